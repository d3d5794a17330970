"""Weights of published T5 encoders, from safetensors to our tree of parameters.

The files may hold the decoder too; it isn't read.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Sharding
from jax.typing import DTypeLike

from imagen_jax.errors import NotFiniteError
from imagen_jax.text import safetensors_folder
from imagen_jax.text.t5 import T5Encoder
from imagen_jax.types import Params

# What a checkpoint of the whole model has besides the encoder.
_DECODER = ("decoder.", "lm_head.")
# The token embeddings have two names, and a file has one of them or both.
_SHARED, _TIED = "shared.weight", "encoder.embed_tokens.weight"

# A parameter's place in the tree, for example ("block_0_ff", "wo", "kernel").
ParamPath = tuple[str, ...]


def weight_files(folder: Path) -> list[Path]:
    """The files that hold an encoder's weights, their index included; none where there are none."""
    return safetensors_folder.weight_files(folder, ignored=_DECODER)


def load_weights(
    folder: Path, model: T5Encoder, *, dtype: DTypeLike, sharding: Callable[[ParamPath], Sharding]
) -> tuple[Params, str]:
    """Reads an encoder's parameters straight to the devices; the host holds one tensor at a time.

    Args:
      folder: see `safetensors_folder`.
      dtype: of kernels and token embeddings. The scales of norms and the position biases stay float32: they are small,
        and their rounding would show in every token.
      sharding: of the parameter with this path in the tree.

    Returns:
      The parameters, and a hex sha256 over the tensors: the same for one file and several, with or without a decoder.

    Raises:
      InputError: files are missing, damaged or pickles; tensors are missing, unknown, or of other shapes than
        config.json says.
      NotFiniteError: a weight is infinite or not a number, as it is stored or in `dtype`.
    """
    flat: dict[ParamPath, jax.Array] = {}

    def put(path: ParamPath, tensor: np.ndarray) -> None:
        kind = dtype if path[-1] == "kernel" or path[0] == "shared" else jnp.float32
        array = tensor.T if path[-1] == "kernel" else tensor  # torch keeps a kernel as [out, in]
        with np.errstate(over="ignore"):  # said below
            array = array.astype(kind)
        if not np.isfinite(array).all():
            _raise_not_finite(folder, transformers_name(path), tensor, jnp.dtype(kind).name)
        flat[path] = jax.device_put(array, sharding(path)).block_until_ready()

    digest = _read(folder, model, put)
    return unflatten_dict(flat), digest


def _raise_not_finite(folder: Path, name: str, stored: np.ndarray, dtype: str) -> None:
    if np.isfinite(stored).all():
        raise NotFiniteError(
            f'text encoder "{folder}": {name} is too large for {dtype} and becomes infinite; use float32 '
            "(--encoder_dtype=float32)"
        )
    raise NotFiniteError(f'text encoder "{folder}": {name} holds infinities or NaN; fetch its weights again')


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
    """Calls `use` for every parameter, the largest first, and returns the sha256."""
    paths: dict[str, ParamPath] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for path, leaf in parameter_shapes(model).items():
        name = transformers_name(path)
        paths[name], shapes[name] = path, leaf.shape[::-1] if path[-1] == "kernel" else leaf.shape
    tensors = safetensors_folder.find_tensors(folder, ignored=_DECODER, transformers_class="AutoModelForTextEncoding")
    if _TIED in tensors:
        tensors.setdefault(_SHARED, tensors.pop(_TIED))
    return safetensors_folder.read_tensors(folder, tensors, shapes, lambda name, tensor: use(paths[name], tensor))
