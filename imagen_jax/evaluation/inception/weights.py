"""Weights of FID's Inception network, from the PyTorch file that everybody uses, or the same tensors in another format.

Tensors have PyTorch's names: `Mixed_5b.branch1x1.conv.weight`, `Mixed_5b.branch1x1.bn.running_var`, ..., `fc.bias`.
"""

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import safe_open

from imagen_jax import storage
from imagen_jax.errors import InputError
from imagen_jax.evaluation.inception.network import IMAGE_SIZE, Inception
from imagen_jax.evaluation.inception.torch_file import open_torch_file
from imagen_jax.evaluation.npz import open_npz
from imagen_jax.evaluation.stored_arrays import StoredArray
from imagen_jax.files import user_path
from imagen_jax.types import Params

# "pt_inception-2015-12-05-6726825d.pth", by pytorch-fid. Like torch.hub it puts the first 8 digits of the file's
# SHA-256 into the name; the other 56 are published nowhere that we know of.
PUBLISHED_FILE = "pt_inception-2015-12-05-6726825d.pth"
PUBLISHED_SHA256_PREFIX = "6726825d"

BATCH_NORM_EPS = 1e-3

_CONV = "conv.weight"
_NORM = ("bn.weight", "bn.bias", "bn.running_mean", "bn.running_var")
# A counter of training steps, which files of PyTorch before 0.4.1 lack.
_IGNORED = "bn.num_batches_tracked"
# What numpy can have of a .safetensors.
_DTYPES = {"F64": np.dtype("<f8"), "F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "I64": np.dtype("<i8")}


@dataclass(frozen=True)
class InceptionWeights:
    """Parameters of `Inception`, on the host, and the sha256 (hex) of the file that they are from."""

    params: Params
    sha256: str


def is_published(sha256: str) -> bool:
    """Whether a file with this hash (hex) has the weights that published FIDs were computed with."""
    return sha256.startswith(PUBLISHED_SHA256_PREFIX)


def load_inception(path: Path) -> InceptionWeights:
    """Reads a `.pth` or `.pt` of torch.save (nothing in it is run), an `.npz` or a `.safetensors`.

    The hash is the file's, so that only the published file itself counts as published, and no copy in another format.
    Names and shapes are compared before any numbers are read.

    Raises:
      InputError: no such file, damaged, not this network (missing or unknown tensors, other shapes), or numbers that
        are not finite.
    """
    path = user_path(path)
    if not path.is_file():
        raise InputError(f'"{path}" is missing; expected the weights of FID\'s Inception network, {PUBLISHED_FILE}')
    with _open(path) as stored:
        names = _checked(stored, path)
        tensors = {name: stored[name].read() for name in names}
    broken = [name for name, tensor in tensors.items() if not np.isfinite(tensor).all()]
    broken += [name for name, tensor in tensors.items() if name.endswith("running_var") and (tensor < 0).any()]
    if broken:
        raise InputError(
            f'"{path}" has numbers that are not finite, or negative variances, in {len(broken)} tensors, for example '
            f"{broken[0]}; fetch it again"
        )
    with open(path, "rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return InceptionWeights(_fold(tensors), sha256)


def tensor_shapes() -> dict[str, tuple[int, ...]]:
    """The shape of every tensor that a file must have, by its name in PyTorch."""
    shapes: dict[str, tuple[int, ...]] = {}
    for parameter, shape in _parameter_shapes().items():
        if parameter == ("fc_bias",):
            shapes["fc.bias"] = shape
        elif parameter == ("fc", "kernel"):
            shapes["fc.weight"] = shape[::-1]
        elif parameter[-1] == "kernel":
            height, width, inputs, outputs = shape
            prefix = ".".join(parameter[:-1])
            shapes[f"{prefix}.{_CONV}"] = (outputs, inputs, height, width)
            shapes |= {f"{prefix}.{name}": (outputs,) for name in _NORM}
    return shapes


def _parameter_shapes() -> dict[tuple[str, ...], tuple[int, ...]]:
    image = jax.ShapeDtypeStruct((1, IMAGE_SIZE, IMAGE_SIZE, 3), jnp.float32)
    params: Any = flatten_dict(jax.eval_shape(Inception().init, jax.random.key(0), image)["params"])
    return {path: leaf.shape for path, leaf in params.items()}


def _open(path: Path) -> AbstractContextManager[Mapping[str, StoredArray]]:
    if path.suffix in (".pth", ".pt"):
        return open_torch_file(path)
    if path.suffix == ".npz":
        return open_npz(path, expected=f"the tensors of {PUBLISHED_FILE}: fetch or write it again")
    if path.suffix == ".safetensors":
        return _open_safetensors(path)
    raise InputError(f'"{path}": unknown kind of file "{path.suffix}"; expected .pth, .pt, .npz or .safetensors')


@contextlib.contextmanager
def _open_safetensors(path: Path) -> Iterator[Mapping[str, StoredArray]]:
    try:
        with safe_open(path, framework="numpy") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (no dict)
            yield {
                name: StoredArray(
                    tuple(each.get_shape()),
                    _DTYPES.get(each.get_dtype(), np.dtype(object)),
                    partial(file.get_tensor, name),
                )
                for name, each in slices.items()
            }
    except (KeyboardInterrupt, SystemExit, GeneratorExit, InputError):
        raise
    except BaseException as error:  # a panic of the library, which is written in Rust, is no Exception
        if storage.describe_failure(error):
            raise
        reason = " ".join(str(error).split())[:200]
        raise InputError(f'"{path}" is truncated or damaged ({reason}); fetch or write it again') from error


def _checked(tensors: Mapping[str, StoredArray], path: Path) -> list[str]:
    """The names of the tensors to read."""
    shapes = tensor_shapes()
    missing = sorted(set(shapes) - set(tensors))
    unknown = sorted(name for name in set(tensors) - set(shapes) if not name.endswith(_IGNORED))
    wrong = [
        f"{name} is {list(tensors[name].shape)} instead of {list(shape)}"
        for name, shape in shapes.items()
        if name in tensors and tensors[name].shape != shape
    ]
    wrong += [name for name in shapes if name in tensors and tensors[name].dtype.kind != "f"]
    faults = [
        f"{len(names)} {what} ({', '.join(name[:100] for name in names[:2])}{', ...' if len(names) > 2 else ''})"
        for what, names in (("missing", missing), ("unknown", unknown), ("of another shape or type", wrong))
        if names
    ]
    if faults:
        raise InputError(
            f'"{path}" does not hold FID\'s Inception network: of {len(shapes)} tensors {"; ".join(faults)}; expected '
            f"{PUBLISHED_FILE} or the same tensors in another format (torchvision's inception_v3 is another network)"
        )
    return list(shapes)


def _fold(tensors: dict[str, np.ndarray]) -> Params:
    """`Inception`'s parameters: each convolution with the batch normalisation behind it, worked out in float64."""
    flat: dict[tuple[str, ...], np.ndarray] = {}
    for name, tensor in tensors.items():
        if not name.endswith(_CONV):
            continue
        prefix = name.removesuffix(_CONV)
        gain, bias, mean, variance = (tensors[prefix + part].astype(np.float64) for part in _NORM)
        gain = gain / np.sqrt(variance + BATCH_NORM_EPS)
        owner = tuple(prefix.removesuffix(".").split("."))
        flat[*owner, "kernel"] = (tensor.transpose(2, 3, 1, 0) * gain).astype(np.float32)
        flat[*owner, "bias"] = (bias - mean * gain).astype(np.float32)
    flat["fc", "kernel"] = tensors["fc.weight"].T.astype(np.float32)
    flat["fc_bias",] = tensors["fc.bias"].astype(np.float32)
    return unflatten_dict(flat)
