import os
import struct
import tracemalloc
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from imagen_jax.errors import InputError
from imagen_jax.evaluation.inception import torch_file
from imagen_jax.evaluation.inception.torch_file import open_torch_file, read_torch_file
from tests.evaluation.test_pickles import BOMBS
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


@FORMATS
@pytest.mark.parametrize("axes", [(3, 2, 0, 1), (0, 2, 3, 1), (1, 0, 2, 3)])
def test_a_tensor_that_was_saved_transposed_is_read_as_it_was(save, legacy, axes):
    tensor = RNG.normal(size=(4, 3, 1, 2)).transpose(axes)
    np.testing.assert_array_equal(read_torch_file(save({"a": tensor}, legacy=legacy))["a"], tensor)


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


def rewrite(path, change):
    """The zip with its members changed: {name: content}, a list of pairs where a name is there twice."""
    with zipfile.ZipFile(path) as source:
        members = {name: source.read(name) for name in source.namelist()}
    with zipfile.ZipFile(path, "w") as target:
        for name, content in change(members):
            target.writestr(name, content)
    return path


def test_names_and_shapes_are_known_before_any_numbers_are_read(save, monkeypatch):
    monkeypatch.setattr(torch_file, "_read", lambda *_: pytest.fail("read"))
    with open_torch_file(save(TENSORS)) as stored:
        assert {name: (each.shape, each.dtype) for name, each in stored.items()} == {
            name: (each.shape, each.dtype) for name, each in TENSORS.items()
        }


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_name_are_refused(save):
    path = rewrite(save(TENSORS), lambda members: [*members.items(), ("weights/data/0", b"\0" * 96)])
    with pytest.raises(InputError, match="one member of each name"):
        read_torch_file(path)


@pytest.mark.parametrize("data", [b"", b"\0" * 95, b"\0" * 97])
def test_a_storage_of_another_size_than_the_pickle_says_is_refused(save, data):
    path = rewrite(save(TENSORS), lambda members: (members | {"weights/data/0": data}).items())
    with pytest.raises(InputError, match="storage 0 is cut short"):
        read_torch_file(path)


def test_a_size_in_the_zip_that_is_false_is_refused(save):
    path = save(TENSORS)
    data, sizes = path.read_bytes(), struct.pack("<II", 96, 96)
    assert data.count(sizes) == 2  # before the member, and in the directory
    for false in (95, 97, 2**31):
        path.write_bytes(data.replace(sizes, struct.pack("<II", false, false)))
        with pytest.raises(InputError, match="no readable PyTorch file"):
            read_torch_file(path)


def test_a_flipped_bit_of_a_number_is_noticed_in_a_zip(save):
    path = save(TENSORS)
    data = bytearray(path.read_bytes())
    place = data.index(TENSORS["conv.weight"].tobytes()) + 40
    data[place] ^= 4
    path.write_bytes(bytes(data))
    with pytest.raises(InputError, match="CRC"):
        read_torch_file(path)


def test_a_storage_that_hundreds_of_tensors_share_is_not_read_for_each():
    storage = torch_file._Storage("0", np.dtype("<f4"), 100)
    tensors = {f"t{number}": torch_file._Tensor(storage, number, (1,), (1,)) for number in range(100)}
    torch_file._checked(dict(list(tensors.items())[:10]), {"0": 400}, file_bytes=1000)
    with pytest.raises(ValueError, match="too small for its tensors"):
        torch_file._checked(tensors, {"0": 400}, file_bytes=1000)


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=list(BOMBS))
def test_a_hundred_bytes_take_no_gigabytes(tmp_path, bomb):
    path = tmp_path / "small.pth"
    tracemalloc.start()
    try:
        for data in (bomb, None):
            if data is None:
                with zipfile.ZipFile(path, "w") as archive:
                    archive.writestr("weights/data.pkl", bomb)
            else:
                path.write_bytes(data)
            with pytest.raises(InputError, match=r"no readable PyTorch file|no part of a tensor"):
                read_torch_file(path)
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()


def test_a_list_of_tensors_larger_than_any_is_not_read(save, monkeypatch):
    path = save(TENSORS)
    monkeypatch.setattr(torch_file, "_MAX_PICKLE_BYTES", 50)
    with pytest.raises(InputError, match="larger than a list of tensors"):
        read_torch_file(path)
