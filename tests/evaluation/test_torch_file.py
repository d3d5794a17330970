import os
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from imagen_jax.errors import InputError
from imagen_jax.evaluation.inception.torch_file import read_torch_file
from tests.evaluation.torch_files import TorchWriter

RNG = np.random.default_rng(0)
TENSORS = {
    "conv.weight": RNG.normal(size=(4, 3, 1, 2)).astype(np.float32),
    "bn.running_var": RNG.normal(size=5),
    "bn.num_batches_tracked": np.array(7, np.int64),
}
FORMATS = pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])


@pytest.fixture
def save(monkeypatch, tmp_path):
    return partial(TorchWriter(monkeypatch).save, tmp_path / "weights.pth")


class Malicious:
    def __init__(self, marker: Path):
        self._command = f"touch {marker}"

    def __reduce__(self):
        return os.system, (self._command,)


@FORMATS
def test_tensors_come_back_with_their_names_types_and_shapes(save, legacy):
    found = read_torch_file(save(TENSORS, legacy=legacy))
    assert list(found) == list(TENSORS)
    for name, tensor in TENSORS.items():
        assert found[name].dtype == tensor.dtype
        np.testing.assert_array_equal(found[name], tensor)


@FORMATS
def test_a_function_that_a_file_names_is_refused_by_name_and_not_called(save, legacy, tmp_path):
    path = save(TENSORS | {"harmless": Malicious(tmp_path / "called")}, legacy=legacy)
    with pytest.raises(InputError, match=rf"{os.system.__module__}\.system.*no part of a tensor"):
        read_torch_file(path)
    assert not (tmp_path / "called").exists()


@FORMATS
@pytest.mark.parametrize("allowed_elsewhere", [print, eval, getattr, np.array])
def test_no_builtin_is_allowed(save, legacy, allowed_elsewhere):
    with pytest.raises(InputError, match=allowed_elsewhere.__name__):
        read_torch_file(save({"a": allowed_elsewhere}, legacy=legacy))


@FORMATS
def test_a_truncated_file_is_one_clear_error(save, legacy):
    path = save(TENSORS, legacy=legacy)
    data = path.read_bytes()
    for share in (0.0, 0.1, 0.5, 0.95):
        path.write_bytes(data[: int(share * len(data))])
        with pytest.raises(InputError, match="truncated or damaged"):
            read_torch_file(path)


@FORMATS
@pytest.mark.parametrize(
    ("geometry", "message"),
    [
        ({"offset": 3}, "outside its storage"),
        ({"offset": -1}, "outside its storage"),
        ({"stride": (2**40,)}, "isn't contiguous"),
        ({"stride": (0,)}, "isn't contiguous"),
    ],
)
def test_a_tensor_reaches_no_memory_but_its_own(save, legacy, geometry, message):
    with pytest.raises(InputError, match=message):
        read_torch_file(save({"a": np.zeros(4, np.float32)}, legacy=legacy, **geometry))


@pytest.mark.parametrize("value", [3, "text", [1, 2]])
def test_what_isn_t_a_tensor_is_refused(save, value):
    with pytest.raises(InputError, match="no tensor"):
        read_torch_file(save({"a": value}))


def test_compressed_members_are_refused(save, tmp_path):
    path = save(TENSORS)
    compressed = tmp_path / "compressed.pth"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(compressed, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    with pytest.raises(InputError, match="compressed"):
        read_torch_file(compressed)
