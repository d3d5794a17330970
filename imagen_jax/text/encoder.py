"""The frozen text encoder: captions to embeddings, from a folder in transformers' layout.

An encoder folder holds `config.json` (T5Config's keys) and the tokenizer. An untrained one, for demos and tests, has no
weights: `imagen_jax_untrained_seed` in its config says what they are drawn from.
"""

import dataclasses
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from jax.typing import DTypeLike

from imagen_jax.errors import InputError
from imagen_jax.files import read_json, write_bytes
from imagen_jax.text.t5 import T5Encoder
from imagen_jax.text.tokenizer import TOKENIZER_FILES, Tokenizer, check_captions, count_pieces, train_vocabulary
from imagen_jax.types import Params

_SEED_KEY = "imagen_jax_untrained_seed"
_SIZES = ("vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_heads")
_OPTIONAL = ("relative_attention_num_buckets", "relative_attention_max_distance", "layer_norm_epsilon")


class TextEncoder:
    """A frozen encoder with its tokenizer.

    Attributes:
      name: for people; contains "untrained" where it is.
      fingerprint: hex sha256 over what decides the embeddings: architecture, tokenizer and weights.
      width: D.
      max_length: L.
    """

    def __init__(
        self, model: T5Encoder, params: Params, tokenizer: Tokenizer, *, name: str, fingerprint: str, batch_size: int
    ):
        self.name = name
        self.fingerprint = fingerprint
        self.width = model.d_model
        self.max_length = tokenizer.max_length
        self._params = params
        self._tokenizer = tokenizer
        self._batch_size = batch_size
        self._apply = jax.jit(model.apply)

    def encode(self, captions: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Encodes any number of captions; those longer than L tokens are cut, with a warning that counts them.

        Returns:
          text_emb: [B,L,D] bfloat16, zero at padding, so that it equals what is read back from a text store.
          text_mask: [B,L] bool, True = a real token; at least one a row.

        Raises:
          InputError: no captions, or something that isn't a valid string.
        """
        ids, mask = self._tokenizer(captions)
        return np.concatenate(list(self._encode_batches(ids, mask))), mask

    def encode_ragged(self, captions: Sequence[str]) -> Iterator[np.ndarray]:
        """As `encode`, one caption at a time: [n,D] bfloat16 with its n <= L real tokens, in order.

        Equal captions are encoded once. Memory holds one batch, and the embeddings of captions that occur again.

        Raises:
          InputError: as `encode`, at the first `next`.
        """
        check_captions(captions)
        count = Counter(captions)  # in the order of first occurrence, which is the order in which they are needed
        ids, mask = self._tokenizer(list(count))
        rows = (row for batch in self._encode_batches(ids, mask) for row in batch)
        distinct = (row[:n] for row, n in zip(rows, mask.sum(axis=1), strict=True))
        repeated: dict[str, np.ndarray] = {}
        for caption in captions:
            emb = repeated.get(caption)
            if emb is None:
                emb = next(distinct)
                if count[caption] > 1:
                    repeated[caption] = emb.copy()  # a view would keep its whole batch alive
            yield emb

    def _encode_batches(self, ids: np.ndarray, mask: np.ndarray) -> Iterator[np.ndarray]:
        """[b,L,D] bfloat16 for successive rows. Every batch is padded to one size: one compilation."""
        for start in range(0, len(ids), self._batch_size):
            batch_ids, batch_mask = ids[start : start + self._batch_size], mask[start : start + self._batch_size]
            pad = ((0, self._batch_size - len(batch_ids)), (0, 0))
            emb = self._apply({"params": self._params}, np.pad(batch_ids, pad), np.pad(batch_mask, pad))
            emb = np.asarray(emb)[: len(batch_ids)].astype(ml_dtypes.bfloat16)
            yield np.where(batch_mask[:, :, None], emb, ml_dtypes.bfloat16(0))


def load_encoder(
    folder: str | os.PathLike[str], max_length: int = 128, dtype: DTypeLike = jnp.float32, *, batch_size: int = 16
) -> TextEncoder:
    """Loads the encoder of a folder.

    Args:
      folder: config.json (T5 v1.1: gated GELU), spiece.model or tokenizer.json.
      max_length: L, in tokens, the end of sentence included.
      dtype: of the products; parameters are float32.
      batch_size: captions a call of the compiled program; shorter batches are padded to it.

    Raises:
      InputError: a file is missing or unreadable, the architecture is another one, or there are weights to load.
    """
    folder = Path(folder)
    config = _read_config(folder)
    model = _build_model(config, folder, dtype)
    tokenizer = Tokenizer(folder, max_length)
    if tokenizer.vocab_size > model.vocab_size:
        raise InputError(
            f'"{folder}": the tokenizer has {tokenizer.vocab_size} ids, config.json a vocab_size of '
            f"{model.vocab_size}; the files belong to different encoders"
        )
    seed = config.get(_SEED_KEY)
    if not isinstance(seed, int):
        raise InputError(
            f'"{folder}" is not an untrained encoder (its config.json has no "{_SEED_KEY}"), and loading published '
            "weights is not supported yet. Expected: config.json with that seed and spiece.model, as written by "
            "python -m imagen_jax.untrained_encoder --data=SPEC --out=DIR"
        )
    return TextEncoder(
        model,
        _draw_params(model, seed),
        tokenizer,
        name=f"untrained T5 v1.1 (width {model.d_model}, {model.num_layers} layers, seed {seed})",
        fingerprint=_fingerprint(model, folder, weights=f"untrained, threefry2x32, seed {seed}"),
        batch_size=batch_size,
    )


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
        _SEED_KEY: seed,
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
    # Without extra_ids, transformers adds a hundred sentinels that the encoder has no embeddings for.
    tokenizer_config = {"tokenizer_class": "T5Tokenizer", "extra_ids": 0}
    files = {
        "spiece.model": spiece_model,
        "tokenizer_config.json": _json_bytes(tokenizer_config),
        "config.json": _json_bytes(config),  # last: a folder with a config is complete
    }
    folder = Path(out_folder)
    for name, data in files.items():
        path = folder / name
        if path.exists() and path.read_bytes() != data:
            raise InputError(f'"{folder}" holds another encoder ({name} differs); choose another folder or delete it')
    for name, data in files.items():
        write_bytes(folder / name, data)


def _json_bytes(value: Any) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()


def _read_config(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise InputError(f'no encoder folder "{folder}"; expected config.json and {" or ".join(TOKENIZER_FILES)} in it')
    return read_json(folder / "config.json", expected=f"T5Config's keys, beside {' or '.join(TOKENIZER_FILES)}")


def _build_model(config: dict[str, Any], folder: Path, dtype: DTypeLike) -> T5Encoder:
    model_type, activation = config.get("model_type"), config.get("feed_forward_proj")
    if model_type != "t5" or activation != "gated-gelu":
        raise InputError(
            f'"{folder}": config.json has model_type {model_type!r} and feed_forward_proj {activation!r}; supported is '
            "T5 v1.1 (and flan-t5), 't5' with 'gated-gelu'"
        )
    if missing := [key for key in _SIZES if not isinstance(config.get(key), int) or config[key] < 1]:
        raise InputError(f'"{folder}": config.json needs a positive integer for: {", ".join(missing)}')
    sizes = {key: config[key] for key in _SIZES}
    return T5Encoder(**sizes, **{key: config[key] for key in _OPTIONAL if key in config}, dtype=dtype)


def _draw_params(model: T5Encoder, seed: int) -> Params:
    """float32 parameters from `seed`; the generator is named, so that JAX's default may change."""
    key = jax.random.key(seed, impl="threefry2x32")
    return jax.jit(model.init)(key, jnp.zeros((1, 2), jnp.int32), jnp.ones((1, 2), bool))["params"]


def _fingerprint(model: T5Encoder, folder: Path, *, weights: str) -> str:
    """`dtype` is no part of it: it changes rounding, not what the embeddings mean."""
    fields = {f.name: getattr(model, f.name) for f in dataclasses.fields(model)}
    architecture = {key: fields[key] for key in (*_SIZES, *_OPTIONAL)}
    digest = hashlib.sha256(json.dumps(["T5 v1.1 encoder", architecture, weights], sort_keys=True).encode())
    for name in (*TOKENIZER_FILES, "tokenizer_config.json"):
        path = folder / name
        if path.is_file():
            digest.update(f"{name} {path.stat().st_size}\n".encode() + path.read_bytes())
    return digest.hexdigest()
