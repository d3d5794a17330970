import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from imagen_jax.errors import InputError
from imagen_jax.evaluation import npz
from imagen_jax.evaluation.inception import weights as inception_weights
from imagen_jax.evaluation.inception.weights import is_published, load_inception, tensor_shapes
from tests.evaluation.torch_files import TorchWriter, random_tensors

SHAPES = {"a.conv.weight": (2, 3, 1, 1), "a.bn.bias": (2,), "fc.bias": (5,)}
SMALL = {name: np.ones(shape, np.float32) for name, shape in SHAPES.items()}


@pytest.fixture(scope="module")
def tensors():
    return random_tensors(0)


@pytest.fixture
def small_network(monkeypatch):
    monkeypatch.setattr(inception_weights, "tensor_shapes", lambda: SHAPES)


def test_the_network_has_the_published_files_parameters():
    shapes = tensor_shapes()
    trained = {name: shape for name, shape in shapes.items() if not name.endswith(("running_mean", "running_var"))}
    convolutions = sum(name.endswith("conv.weight") for name in shapes)
    # The published file has 566 tensors: one counter of steps for each batch normalisation besides.
    assert len(shapes) + convolutions == 566
    assert sum(int(np.prod(shape)) for shape in trained.values()) == 23_850_960


def test_all_formats_give_the_same_parameters_and_the_files_hash(tensors, tmp_path, monkeypatch):
    counters = {name.replace("weight", "num_batches_tracked"): np.array(0) for name in tensors if "bn.weight" in name}
    np.savez(tmp_path / "weights.npz", allow_pickle=False, **tensors)
    save_file(tensors, tmp_path / "weights.safetensors")
    writer = TorchWriter(monkeypatch)
    writer.save(tmp_path / "weights.pth", tensors | counters)
    writer.save(tmp_path / "legacy.pth", tensors, legacy=True)
    expected = load_inception(tmp_path / "weights.npz")
    for name in ("weights.safetensors", "weights.pth", "legacy.pth"):
        path = tmp_path / name
        found = load_inception(path)
        assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest() and not is_published(found.sha256)
        assert all(jax.tree.leaves(jax.tree.map(np.array_equal, found.params, expected.params)))
        path.unlink()
    normalised_convolution(tensors, expected.params)


def normalised_convolution(tensors, params):
    x = np.random.default_rng(0).normal(size=(1, 6, 6, 3)).astype(np.float32)
    prefix, dims = "Conv2d_1a_3x3", ("NHWC", "HWIO", "NHWC")

    def convolve(kernel):
        return np.asarray(jax.lax.conv_general_dilated(jnp.asarray(x), kernel, (1, 1), "VALID", dimension_numbers=dims))

    weight, bias, mean, variance = (
        tensors[f"{prefix}.bn.{name}"][None, None, None] for name in ("weight", "bias", "running_mean", "running_var")
    )
    plain = convolve(tensors[f"{prefix}.conv.weight"].transpose(2, 3, 1, 0))
    expected = (plain - mean) / np.sqrt(variance + 1e-3) * weight + bias
    folded = params[prefix]
    np.testing.assert_allclose(convolve(folded["kernel"]) + folded["bias"][None, None, None], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fc.bias": None}, "1 missing (fc.bias)"),
        ({"fc.extra": np.ones(2, np.float32)}, "1 unknown (fc.extra)"),
        ({"fc.bias": np.ones(6, np.float32)}, "fc.bias is [6] instead of [5]"),
        ({"fc.bias": np.ones(5, np.int32)}, "of another shape or type (fc.bias)"),
        (dict.fromkeys(SMALL) | {"x": np.ones(1)}, "3 missing (a.bn.bias, a.conv.weight, ...); 1 unknown (x)"),
    ],
)
def test_another_networks_file_is_refused_with_what_differs(small_network, tmp_path, changes, message):
    tensors = {name: tensor for name, tensor in (SMALL | changes).items() if tensor is not None}
    save_file(tensors, tmp_path / "weights.safetensors")
    with pytest.raises(InputError) as error:
        load_inception(tmp_path / "weights.safetensors")
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".pth"])
def test_a_damaged_file_is_one_clear_error(small_network, tmp_path, suffix, monkeypatch):
    path = tmp_path / f"weights{suffix}"
    if suffix == ".npz":
        np.savez(path, allow_pickle=False, **SMALL)
    elif suffix == ".pth":
        TorchWriter(monkeypatch).save(path, SMALL)
    else:
        save_file(SMALL, path)
    data = path.read_bytes()
    for damaged in (b"", data[:20], data[:-10], b"\0" * len(data), b"<html>not found</html>"):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="damaged"):
            load_inception(path)


def test_missing_files_and_unknown_formats_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"missing.*6726825d\.pth"):
        load_inception(tmp_path / "nowhere.pth")
    (tmp_path / "weights.h5").write_bytes(b"x")
    with pytest.raises(InputError, match=r"\.h5.*expected \.pth"):
        load_inception(tmp_path / "weights.h5")


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".pth"])
@pytest.mark.parametrize(
    ("name", "value"), [("fc.bias", np.nan), ("a.conv.weight", np.inf), ("a.bn.running_var", -1.0)]
)
def test_weights_that_make_no_numbers_are_refused_by_name(tmp_path, monkeypatch, suffix, name, value):
    shapes = SHAPES | {f"a.{part}": (2,) for part in ("bn.weight", "bn.running_mean", "bn.running_var")}
    monkeypatch.setattr(inception_weights, "tensor_shapes", lambda: shapes)
    tensors = {key: np.ones(shape, np.float32) for key, shape in shapes.items()}
    tensors[name] = np.full(shapes[name], value, np.float32)
    path = tmp_path / f"weights{suffix}"
    if suffix == ".npz":
        np.savez(path, allow_pickle=False, **tensors)
    elif suffix == ".pth":
        TorchWriter(monkeypatch).save(path, tensors)
    else:
        save_file(tensors, path)
    with pytest.raises(InputError, match=f"not finite, or negative variances, in 1 tensors, for example {name}"):
        load_inception(path)


def test_the_numbers_of_another_network_are_not_read(small_network, tmp_path, monkeypatch):
    np.savez(tmp_path / "large.npz", allow_pickle=False, **SMALL, other=np.ones(10))
    monkeypatch.setattr(npz, "_read", lambda *_: pytest.fail("read"))
    with pytest.raises(InputError, match="1 unknown"):
        load_inception(tmp_path / "large.npz")


def test_numbers_that_are_no_floats_are_another_type_in_any_file(small_network, tmp_path):
    objects = {"fc.bias": np.asarray([None] * 5, object)}
    np.savez(tmp_path / "w.npz", allow_pickle=True, **(SMALL | objects))
    with pytest.raises(InputError, match=r"of another shape or type \(fc\.bias"):
        load_inception(tmp_path / "w.npz")
