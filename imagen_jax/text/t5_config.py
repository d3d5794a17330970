"""config.json of an encoder folder, and the widths of the published encoders."""

from pathlib import Path
from typing import Any

from jax.typing import DTypeLike

from imagen_jax.errors import InputError
from imagen_jax.files import read_json
from imagen_jax.text.t5 import ACTIVATIONS, T5Encoder
from imagen_jax.text.tokenizer import TOKENIZER_FILES

CONFIG_FILE = "config.json"
# model_type -> the feed_forward_proj that transformers takes where config.json has none.
_DEFAULT_ACTIVATION = {"t5": "relu", "mt5": "gated-gelu", "umt5": "gated-gelu"}
_SIZES = ("vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_heads")
_OPTIONAL = ("relative_attention_num_buckets", "relative_attention_max_distance", "layer_norm_epsilon")
# By d_model.
_PUBLISHED = {
    512: "t5-small, t5-v1_1-small, flan-t5-small, mt5-small, umt5-small",
    768: "t5-base, t5-v1_1-base, flan-t5-base, mt5-base, umt5-base",
    1024: "t5-large, t5-3b, t5-11b, t5-v1_1-large, flan-t5-large, mt5-large",
    2048: "t5-v1_1-xl, flan-t5-xl, mt5-xl, umt5-xl",
    4096: "t5-v1_1-xxl, flan-t5-xxl, mt5-xxl, umt5-xxl, ul2, flan-ul2",
}


def describe_width(width: int) -> str:
    """ "width 2048 (as of t5-v1_1-xl, ...)": which encoder a text width may have come from."""
    return f"width {width} ({f'as of {_PUBLISHED[width]}' if width in _PUBLISHED else 'of no published T5'})"


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of an encoder folder.

    Raises:
      InputError: there is no such folder, or no readable config in it.
    """
    files = f"{CONFIG_FILE}, model.safetensors and {' or '.join(TOKENIZER_FILES)}"
    if not folder.is_dir():
        raise InputError(f'no encoder folder "{folder}"; expected {files} in it, as transformers lays them out')
    return read_json(folder / CONFIG_FILE, expected=f"a T5 encoder's folder: {files}")


def make_encoder(config: dict[str, Any], folder: Path, dtype: DTypeLike) -> T5Encoder:
    """The network that `config`, read from `folder`, describes.

    Raises:
      InputError: it is another architecture, or sizes are missing.
    """
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in _DEFAULT_ACTIVATION:
        raise InputError(
            f'"{folder}": config.json has model_type {model_type!r}; expected the encoder of a T5: '
            f"{', '.join(map(repr, _DEFAULT_ACTIVATION))} (decoder-only and other models give other embeddings)"
        )
    activation = config.get("feed_forward_proj", _DEFAULT_ACTIVATION[model_type])
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        raise InputError(
            f'"{folder}": config.json has feed_forward_proj {activation!r}; expected '
            f"{', '.join(map(repr, ACTIVATIONS))}"
        )
    if missing := [key for key in _SIZES if not _is_positive(config.get(key), int)]:
        raise InputError(f'"{folder}": config.json needs a positive integer for: {", ".join(missing)}')
    if wrong := [key for key in _OPTIONAL if key in config and not _is_positive(config[key], int, float)]:
        raise InputError(f'"{folder}": config.json needs a positive number for: {", ".join(wrong)}')
    return T5Encoder(
        **{key: config[key] for key in _SIZES},
        **{key: config[key] for key in _OPTIONAL if key in config},
        feed_forward_proj=activation,
        bias_per_block=model_type == "umt5",
        dtype=dtype,
    )


def _is_positive(value: Any, *kinds: type) -> bool:
    return isinstance(value, kinds) and value > 0


def describe_model(model: T5Encoder) -> dict[str, Any]:
    """What decides the embeddings, besides weights and tokenizer. Not the dtype: it changes rounding, not meaning."""
    names = (*_SIZES, *_OPTIONAL, "feed_forward_proj", "bias_per_block")
    return {name: getattr(model, name) for name in names}
