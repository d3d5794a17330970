"""Small UNTRAINED encoders, for demos and tests: no weights file, only the seed that they are drawn from."""

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from imagen_jax.errors import InputError
from imagen_jax.files import user_path, write_bytes
from imagen_jax.text.t5 import T5Encoder
from imagen_jax.text.t5_config import SEED_KEY
from imagen_jax.text.tokenizer import count_pieces, train_vocabulary
from imagen_jax.text.words import WORDS_FILE, list_words
from imagen_jax.types import Params


def write_untrained_encoder(
    captions: Sequence[str],
    out_folder: str | os.PathLike[str],
    *,
    seed: int = 0,
    vocab_size: int = 1024,
    d_model: int = 64,
    d_ff: int = 128,
    num_layers: int = 2,
    num_heads: int = 4,
) -> None:
    """Writes an encoder folder with a vocabulary trained on `captions` and weights that are only a seed.

    The same arguments write the same bytes, so running it again changes nothing.

    Args:
      captions: of the data set; repeated ones count once.
      out_folder: is made; may hold the same encoder already.
      vocab_size: an upper limit.
      d_model: D; `num_heads` divides it.

    Raises:
      InputError: sizes that don't fit, captions without text, or a folder that holds something else.
    """
    if min(d_model, d_ff, num_layers, num_heads) < 1 or d_model % num_heads:
        raise InputError(
            f"width {d_model}, d_ff {d_ff}, {num_layers} layers, {num_heads} heads: all must be positive, and the "
            "heads must divide the width"
        )
    spiece_model = train_vocabulary(captions, vocab_size=vocab_size)
    config = {
        "model_type": "t5",
        "architectures": ["UntrainedT5EncoderModel"],
        SEED_KEY: seed,
        "vocab_size": count_pieces(spiece_model),
        "d_model": d_model,
        "d_kv": d_model // num_heads,
        "d_ff": d_ff,
        "num_layers": num_layers,
        "num_heads": num_heads,
        "relative_attention_num_buckets": 32,
        "relative_attention_max_distance": 128,
        "layer_norm_epsilon": 1e-6,
        "feed_forward_proj": "gated-gelu",
    }
    files = {
        "spiece.model": spiece_model,
        WORDS_FILE: list_words(captions),
        "config.json": _json_bytes(config),  # last: a folder with a config is complete
    }
    folder = user_path(out_folder)
    for name, data in files.items():
        path = folder / name
        if path.exists() and path.read_bytes() != data:
            raise InputError(f'"{folder}" holds another encoder ({name} differs); choose another folder or delete it')
    for name, data in files.items():
        write_bytes(folder / name, data)


def untrained_seed(config: Mapping[str, Any]) -> int | None:
    """What the weights of an encoder with this config.json are drawn from; None: they are in files."""
    seed = config.get(SEED_KEY)
    return seed if isinstance(seed, int) and not isinstance(seed, bool) else None


def draw_params(model: T5Encoder, seed: int) -> Params:
    """float32 parameters from `seed`; the generator is named, so that JAX's default may change."""
    key = jax.random.key(seed, impl="threefry2x32")
    return jax.jit(model.init)(key, jnp.zeros((1, 2), jnp.int32), jnp.ones((1, 2), bool))["params"]


def _json_bytes(value: Any) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()
