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
# The largest of each that is read: several times those of the largest published encoder (umt5-xxl), and small enough
# that nothing takes minutes or gigabytes before the weights are found not to fit.
_LARGEST = {
    "vocab_size": 2_000_000,
    "d_model": 65_536,
    "d_kv": 4_096,
    "d_ff": 262_144,
    "num_layers": 128,
    "num_heads": 1_024,
    "relative_attention_num_buckets": 4_096,
    "relative_attention_max_distance": 1_048_576,
}
# float32 of an untrained encoder, which is drawn: 1 GB.
_MAX_UNTRAINED = 2**28
# What the weights of an untrained encoder are drawn from.
SEED_KEY = "imagen_jax_untrained_seed"
_MAX_CONFIG_BYTES = 2**20
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
    return read_json(folder / CONFIG_FILE, expected=f"a T5 encoder's folder: {files}", max_bytes=_MAX_CONFIG_BYTES)


def make_encoder(config: dict[str, Any], folder: Path, dtype: DTypeLike) -> T5Encoder:
    """The network that `config`, read from `folder`, describes.

    Raises:
      InputError: it is another architecture, or sizes are missing.
    """
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in _DEFAULT_ACTIVATION:
        raise InputError(
            f'"{folder}": config.json has model_type {model_type!r:.80}; expected the encoder of a T5: '
            f"{', '.join(map(repr, _DEFAULT_ACTIVATION))} (decoder-only and other models give other embeddings)"
        )
    activation = config.get("feed_forward_proj", _DEFAULT_ACTIVATION[model_type])
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        raise InputError(
            f'"{folder}": config.json has feed_forward_proj {activation!r:.80}; expected '
            f"{', '.join(map(repr, ACTIVATIONS))}"
        )
    if missing := [key for key in _SIZES if not _is_positive(config.get(key), int)]:
        raise InputError(f'"{folder}": config.json needs a positive integer for: {", ".join(missing)}')
    _check_optional(config, folder)
    if large := [key for key, largest in _LARGEST.items() if config.get(key, 1) > largest]:
        given = f"{config[large[0]]:,}"[:20]
        raise InputError(
            f'"{folder}": config.json has {large[0]} = {given}; expected {_LARGEST[large[0]]:,} at most '
            "(no published T5 comes near): it is damaged, or of another architecture"
        )
    _check_untrained(config, folder)
    return T5Encoder(
        **{key: config[key] for key in _SIZES},
        **{key: config[key] for key in _OPTIONAL if key in config},
        feed_forward_proj=activation,
        bias_per_block=model_type == "umt5",
        dtype=dtype,
    )


def _check_optional(config: dict[str, Any], folder: Path) -> None:
    if wrong := [key for key in _OPTIONAL[:2] if key in config and not _is_positive(config[key], int)]:
        raise InputError(f'"{folder}": config.json needs a positive integer for: {", ".join(wrong)}')
    epsilon = config.get("layer_norm_epsilon", 1e-6)
    if not _is_positive(epsilon, int, float) or epsilon > 1:
        raise InputError(
            f'"{folder}": config.json needs a positive number for: layer_norm_epsilon, below 1 (it has {epsilon!r:.40})'
        )
    buckets = config.get("relative_attention_num_buckets", 32)
    distance = config.get("relative_attention_max_distance", 128)
    # Half of them serve each direction, and half of those one distance each; the rest are spaced logarithmically.
    if buckets < 4 or buckets % 2 or distance <= buckets // 4:
        raise InputError(
            f'"{folder}": config.json has relative_attention_num_buckets = {buckets} and '
            f"relative_attention_max_distance = {distance}; expected an even number of at least 4 buckets, and a "
            "distance above a quarter of it"
        )


def _check_untrained(config: dict[str, Any], folder: Path) -> None:
    if SEED_KEY not in config:
        return
    seed = config[SEED_KEY]
    if isinstance(seed, bool) or not isinstance(seed, int) or not -(2**63) <= seed < 2**63:
        raise InputError(f'"{folder}": config.json has {SEED_KEY} = {seed!r:.40}; expected a whole number')
    inner = config["num_heads"] * config["d_kv"]
    each = 4 * config["d_model"] * inner + 3 * config["d_model"] * config["d_ff"]
    total = config["vocab_size"] * config["d_model"] + config["num_layers"] * each
    if total > _MAX_UNTRAINED:
        raise InputError(
            f'"{folder}": config.json describes an untrained encoder of {total:,} parameters; expected '
            f"{_MAX_UNTRAINED:,} at most: make a smaller one with python -m imagen_jax.untrained_encoder"
        )


def _is_positive(value: Any, *kinds: type) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool) and 0 < value < float("inf")


def describe_model(model: T5Encoder) -> dict[str, Any]:
    """What decides the embeddings, besides weights and tokenizer. Not the dtype: it changes rounding, not meaning."""
    names = (*_SIZES, *_OPTIONAL, "feed_forward_proj", "bias_per_block")
    return {name: getattr(model, name) for name in names}
