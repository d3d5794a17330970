"""Weights of published T5 encoders: safetensors in transformers' layout, read one tensor at a time.

An encoder's folder has `model.safetensors`, or several files and `model.safetensors.index.json`, which says where each
tensor is. They may hold the decoder too; it isn't read.
"""

import hashlib
import json
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Sharding
from jax.typing import DTypeLike
from safetensors import SafetensorError, safe_open

from imagen_jax.errors import InputError
from imagen_jax.files import read_json
from imagen_jax.text.t5 import T5Encoder
from imagen_jax.types import Params

_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_DTYPES = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}
# What a checkpoint of the whole model has besides the encoder.
_DECODER = ("decoder.", "lm_head.")
# The token embeddings have two names, and a file has one of them or both.
_SHARED, _TIED = "shared.weight", "encoder.embed_tokens.weight"
_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")

# A parameter's place in the tree, for example ("block_0_ff", "wo", "kernel").
ParamPath = tuple[str, ...]


def weight_files(folder: Path) -> list[Path]:
    """The files that hold an encoder's weights, their index included; none where there are none."""
    if (folder / _SINGLE).is_file():
        return [folder / _SINGLE]
    return [folder / _INDEX, *sorted(set(_find(folder).values()))] if (folder / _INDEX).is_file() else []


def load_weights(
    folder: Path, model: T5Encoder, *, dtype: DTypeLike, sharding: Callable[[ParamPath], Sharding]
) -> tuple[Params, str]:
    """Reads an encoder's parameters straight to the devices; the host holds one tensor at a time.

    Args:
      folder: see above.
      dtype: of kernels and token embeddings. The scales of norms and the position biases stay float32: they are small,
        and their rounding would show in every token.
      sharding: of the parameter with this path in the tree.

    Returns:
      The parameters, and a hex sha256 over the tensors: the same for one file and several, with or without a decoder.

    Raises:
      InputError: files are missing, damaged or pickles; tensors are missing, unknown, or of other shapes than
        config.json says.
    """
    flat: dict[ParamPath, jax.Array] = {}

    def put(path: ParamPath, tensor: np.ndarray) -> None:
        kind = dtype if path[-1] == "kernel" or path[0] == "shared" else jnp.float32
        array = tensor.T if path[-1] == "kernel" else tensor  # torch keeps a kernel as [out, in]
        flat[path] = jax.device_put(array.astype(kind), sharding(path)).block_until_ready()

    digest = _read(folder, model, put)
    return unflatten_dict(flat), digest


def hash_weights(folder: Path, model: T5Encoder) -> str:
    """The sha256 that `load_weights` returns, from the files alone.

    Raises:
      InputError: as `load_weights`.
    """
    return _read(folder, model, lambda path, tensor: None)


def parameter_shapes(model: T5Encoder) -> dict[ParamPath, jax.ShapeDtypeStruct]:
    """Shapes by path in the tree of parameters."""
    ids, mask = (jax.ShapeDtypeStruct((1, 2), kind) for kind in (jnp.int32, jnp.bool))
    shapes: Any = flatten_dict(jax.eval_shape(model.init, jax.random.key(0), ids, mask)["params"])
    return shapes


def transformers_name(path: ParamPath) -> str:
    """transformers' name of the parameter with this path in our tree."""
    owner = path[0]
    if owner == "shared":
        return _SHARED
    if owner == "final_norm":
        return "encoder.final_layer_norm.weight"
    if owner == "relative_attention_bias":
        owner = "block_0_relative_attention_bias"
    _, block, part = owner.split("_", 2)
    layer = {
        "relative_attention_bias": "0.SelfAttention.relative_attention_bias",
        "attention": "0.SelfAttention",
        "attention_norm": "0.layer_norm",
        "ff": "1.DenseReluDense",
        "ff_norm": "1.layer_norm",
    }[part]
    # ("block_1_ff", "wo", "kernel") but ("block_1_ff_norm", "scale").
    return ".".join([f"encoder.block.{block}.layer.{layer}", *path[1:-1], "weight"])


def _read(folder: Path, model: T5Encoder, use: Callable[[ParamPath, np.ndarray], None]) -> str:
    """Calls `use` for every parameter, the largest first (while little else is in memory), and returns the sha256."""
    shapes = parameter_shapes(model)
    names = {path: transformers_name(path) for path in shapes}
    files = _find(folder)
    stored_as = {_SHARED: _TIED} if _SHARED not in files and _TIED in files else {}
    _check_names(folder, set(files), {stored_as.get(name, name) for name in names.values()})
    digests: dict[str, str] = {}
    for path in sorted(shapes, key=lambda path: -shapes[path].size):
        name, shape = names[path], shapes[path].shape
        stored = stored_as.get(name, name)
        tensor = _read_tensor(files[stored], stored, shape[::-1] if path[-1] == "kernel" else shape)
        use(path, tensor)
        header = f"{name} {tensor.dtype} {tensor.shape} "
        digests[name] = header + hashlib.sha256(np.ascontiguousarray(tensor).view(np.uint8).data).hexdigest()
    return hashlib.sha256("\n".join(digests[name] for name in sorted(digests)).encode()).hexdigest()


def _find(folder: Path) -> dict[str, Path]:
    """The file of every tensor of the encoder, by name. Where both layouts are there, the single file counts.

    Raises:
      InputError: there are no weights (the message lists the files expected), or some of the files are missing.
    """
    if (folder / _SINGLE).is_file():
        with _open(folder / _SINGLE) as file:
            return {name: folder / _SINGLE for name in file.keys() if not name.startswith(_DECODER)}  # noqa: SIM118
    if (folder / _INDEX).is_file():
        names = read_json(folder / _INDEX, expected="the index of an encoder's weights").get("weight_map")
        if not isinstance(names, dict) or not names or not all(isinstance(file, str) for file in names.values()):
            raise InputError(f'"{folder / _INDEX}" has no weight_map; fetch it again')
        files = {name: folder / file for name, file in names.items() if not name.startswith(_DECODER)}
        if missing := sorted({path.name for path in files.values() if not path.is_file()}):
            raise InputError(f'"{folder}" lacks {", ".join(missing)}, which {_INDEX} names; fetch them again')
        return files
    if any((folder / name).is_file() for name in _PICKLES):
        raise InputError(
            f'"{folder}" has its weights as a pickle (pytorch_model.bin), which may run any program when it is read; '
            f"convert it once, where torch and transformers are installed: {conversion_command(folder)}"
        )
    others = sorted(path.name for path in folder.glob("*.safetensors"))
    raise InputError(
        f'"{folder}" has no weights; expected {_SINGLE}, or {_INDEX} and the files that it names, beside config.json'
        + (f" (there is {', '.join(others[:3])}: give it that name)" if others else "")
    )


def conversion_command(folder: Path) -> str:
    """A shell command that writes `model.safetensors` (the encoder alone) beside a `pytorch_model.bin`."""
    path = json.dumps(str(folder))
    model = f'AutoModelForTextEncoding.from_pretrained({path}, dtype="auto")'
    code = f"from transformers import AutoModelForTextEncoding; {model}.save_pretrained({path})"
    return f"python -c {shlex.quote(code)}"


def _check_names(folder: Path, there: set[str], needed: set[str]) -> None:
    missing, unknown = sorted(needed - there), sorted(there - needed - {_TIED})
    if missing or unknown:
        raise InputError(
            f'"{folder}": the weights do not fit config.json: {_first_of("missing", missing)}'
            f"{'; ' if missing and unknown else ''}{_first_of('unknown', unknown)}; they belong to different encoders"
        )


def _first_of(what: str, names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{what} {', '.join(names[:3])}{more}" if names else ""


def _read_tensor(path: Path, name: str, shape: tuple[int, ...]) -> np.ndarray:
    # Opened for one tensor: the pages of a file that stays mapped would count as this process's memory, all of them.
    with _open(path) as file:
        tensor = file.get_slice(name)
        if tuple(tensor.get_shape()) != shape:
            raise InputError(
                f'"{path}": {name} is {list(tensor.get_shape())}, and by config.json {list(shape)}; they belong to '
                "different encoders"
            )
        if tensor.get_dtype() not in _DTYPES:
            raise InputError(
                f'"{path}": {name} is {tensor.get_dtype()}; expected {", ".join(_DTYPES)} (weights that are not '
                "quantised)"
            )
        return file.get_tensor(name)


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="numpy") as file:
            yield file
    except SafetensorError as error:
        raise InputError(f'"{path}" is truncated or damaged ({error}); fetch it again') from error
