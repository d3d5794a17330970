"""The frozen text encoder: captions to embeddings, from a folder in transformers' layout.

An encoder's folder holds `config.json`, the tokenizer and the weights (see `t5_weights`). An untrained one, for demos
and tests, has no weights: its config says what they are drawn from (see `untrained`).
"""

import hashlib
import json
import math
import numbers
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jax.typing import DTypeLike

from imagen_jax.errors import InputError, NotFiniteError
from imagen_jax.files import user_path
from imagen_jax.text.embeddings import Embeddings
from imagen_jax.text.placement import make_mesh, parameter_sharding
from imagen_jax.text.t5 import T5Encoder
from imagen_jax.text.t5_config import CONFIG_FILE, describe_model, make_encoder, read_config
from imagen_jax.text.t5_weights import hash_weights, load_weights, parameter_shapes, weight_files
from imagen_jax.text.tokenizer import Tokenizer, check_captions, find_tokenizer
from imagen_jax.text.untrained import draw_params, untrained_seed
from imagen_jax.text.words import WORDS_FILE, describe_unseen, read_words
from imagen_jax.types import Params

# Captions are padded to the next power of two tokens from here on, whatever max_length is: most have 10 to 30 tokens,
# and a caption's embedding is the same, to the bit, for every max_length that holds it.
_SHORTEST = 16
# So many batches' captions are sorted by length at a time, so that few batches mix short and long ones.
_WINDOW = 16
_DTYPES = ("float32", "bfloat16", "float16")


class TextEncoder:
    """A frozen encoder with its tokenizer.

    Attributes:
      name: for people; contains "untrained" where it is.
      fingerprint: hex sha256 over what decides the embeddings: architecture, tokenizer and weights.
      tokenizer_fingerprint: of the tokenizer alone.
      dtype: name of what it computes in; it changes rounding only, so it's no part of the fingerprint.
      width: D.
      max_length: L.
    """

    def __init__(
        self,
        model: T5Encoder,
        params: Params,
        tokenizer: Tokenizer,
        *,
        mesh: Mesh,
        name: str,
        fingerprint: str,
        tokenizer_fingerprint: str,
        batch_size: int,
        words: frozenset[str] | None = None,
    ):
        self.name = name
        self.fingerprint = fingerprint
        self.tokenizer_fingerprint = tokenizer_fingerprint
        self.dtype = jnp.dtype(model.dtype).name
        self.width = model.d_model
        self.max_length = tokenizer.max_length
        self._params = params
        self._tokenizer = tokenizer
        self._words = words
        copies = mesh.shape["data"]
        self._batch_size = -(-batch_size // copies) * copies
        self._sharding = NamedSharding(mesh, P("data"))
        self._apply = jax.jit(model.apply)

    def encode(self, captions: Sequence[str]) -> dict[str, np.ndarray]:
        """Encodes any number of captions; those longer than L tokens are cut, with a warning that counts them.

        Returns:
          As `Embeddings.padded`, and equal to what is read back from a text store.

        Raises:
          InputError: no captions, or something that isn't a valid string; a tokenizer whose ids the weights lack.
          NotFiniteError: an embedding is infinite or not a number; the message names its caption.
        """
        return self.embed(captions).padded()

    def embed(self, captions: Sequence[str]) -> Embeddings:
        """As `encode`, without padding and with the encoder's name: what a cascade takes in place of prompts."""
        return Embeddings(
            captions=tuple(captions),
            tokens=tuple(self.encode_ragged(captions)),
            max_length=self.max_length,
            encoder_name=self.name,
            encoder_fingerprint=self.fingerprint,
        )

    def encode_ragged(self, captions: Sequence[str]) -> Iterator[np.ndarray]:
        """As `encode`, one caption at a time: [n,D] bfloat16 with its n <= L real tokens, in order.

        Equal captions are encoded once. Memory holds 16 batches, and the embeddings of captions that occur again.

        Raises:
          InputError, NotFiniteError: as `encode`, at the first `next` that meets it.
        """
        check_captions(captions)
        count = Counter(captions)  # in the order of first occurrence, which is the order in which they are needed
        texts = list(count)
        distinct = self._encode_distinct(texts, *self._tokenizer(texts))
        repeated: dict[str, np.ndarray] = {}
        for caption in captions:
            emb = repeated.pop(caption) if caption in repeated else next(distinct)
            count[caption] -= 1
            if count[caption]:
                repeated[caption] = emb
            yield emb

    def describe_unseen(self, captions: Sequence[str]) -> str:
        """Returns one line that names words which the encoder has never seen, or "" where there are none."""
        return describe_unseen(captions, self._words, self._tokenizer.is_unknown)

    def _encode_distinct(self, texts: list[str], ids: np.ndarray, mask: np.ndarray) -> Iterator[np.ndarray]:
        """[n,D] bfloat16 for each row of [N,L], in order."""
        lengths = mask.sum(axis=1)
        for start in range(0, len(ids), _WINDOW * self._batch_size):
            rows = np.arange(start, min(start + _WINDOW * self._batch_size, len(ids)))
            padded_lengths = np.array([_padded_length(length) for length in lengths[rows]])
            found: dict[int, np.ndarray] = {}
            for padded_length in np.unique(padded_lengths):
                alike = rows[padded_lengths == padded_length]
                for first in range(0, len(alike), self._batch_size):
                    batch = alike[first : first + self._batch_size]
                    found |= zip(batch, self._encode_batch(ids[batch], lengths[batch], padded_length), strict=True)
            for row in rows:
                self._check_finite(found[row], texts[row])
                yield found[row]

    def _check_finite(self, emb: np.ndarray, caption: str) -> None:
        if np.isfinite(emb).all():
            return
        remedy = (
            "fetch its weights again"
            if self.dtype == "float32"
            else f"it overflows in {self.dtype}: use float32 (--encoder_dtype=float32)"
        )
        raise NotFiniteError(
            f'text encoder, caption "{" ".join(caption.split()):.60}": its embedding by {self.name} became infinite or '
            f"not a number, and no picture can be drawn from it; {remedy}"
        )

    def _encode_batch(self, ids: np.ndarray, lengths: np.ndarray, padded_length: int) -> Iterable[np.ndarray]:
        """[n,D] bfloat16 for each row. Every batch of a padded length has one shape: one compilation."""
        shape = (self._batch_size, padded_length)
        batch_ids, batch_mask = np.zeros(shape, np.int32), np.zeros(shape, bool)
        kept = min(padded_length, ids.shape[1])
        batch_ids[: len(ids), :kept] = ids[:, :kept]
        batch_mask[: len(ids)] = np.arange(padded_length) < lengths[:, None]
        batch_ids, batch_mask = jax.device_put((batch_ids, batch_mask), self._sharding)
        emb = np.asarray(self._apply({"params": self._params}, batch_ids, batch_mask)).astype(ml_dtypes.bfloat16)
        # Copies: a view would keep its whole batch alive.
        return (row[:length].copy() for row, length in zip(emb, lengths, strict=False))


def load_encoder(
    folder: str | os.PathLike[str],
    max_length: int = 128,
    dtype: DTypeLike = jnp.float32,
    *,
    batch_size: int = 16,
    devices: Sequence[Any] | None = None,
    shards: int | None = None,
) -> TextEncoder:
    """Loads the encoder of a folder: a T5, mT5 or umT5 of any size.

    Args:
      folder: config.json, spiece.model or tokenizer.json, and model.safetensors or its parts with their index.
      max_length: L, in tokens, the end of sentence included.
      dtype: of the parameters in memory and of the products: see `T5Encoder`. An untrained encoder's parameters are
        float32.
      batch_size: captions a call of the compiled program; shorter batches are padded to it.
      devices: to encode on, for example `jax.devices("cpu")`; None: as few of this process's as hold the weights.
      shards: devices that share one copy of the weights; None: as few as hold it.

    Raises:
      InputError: a file is missing or unreadable, it's another architecture, or the devices can't hold it.
      NotFiniteError: a weight is infinite or not a number.
    """
    folder = user_path(folder)
    _check_dtype(dtype)
    config = read_config(folder)
    model = make_encoder(config, folder, dtype)
    tokenizer = Tokenizer(folder, max_length)
    if tokenizer.vocab_size > model.vocab_size:
        raise InputError(
            f'"{folder}": the tokenizer has {tokenizer.vocab_size} ids, config.json a vocab_size of '
            f"{model.vocab_size}; the files belong to different encoders"
        )
    tokenizer.check_ids_below(model.vocab_size)
    if isinstance(batch_size, bool) or not isinstance(batch_size, numbers.Integral) or batch_size < 1:
        raise InputError(f"the encoder's batch size must be a whole number, at least 1 (got {batch_size!r:.40})")
    seed = untrained_seed(config)
    num_parameters = sum(shape.size for shape in parameter_shapes(model).values())
    mesh = make_mesh(
        devices,
        shards=shards if seed is None else 1,
        num_bytes=num_parameters * jnp.dtype(dtype).itemsize,
        divides=math.gcd(model.num_heads, model.d_ff, model.vocab_size),
    )
    if seed is None:
        params, weights = load_weights(folder, model, dtype=dtype, sharding=lambda path: parameter_sharding(mesh, path))
    else:
        with jax.default_device(mesh.devices.flat[0]):
            params, weights = draw_params(model, seed), _untrained_weights(seed)
        params = jax.device_put(params, NamedSharding(mesh, P()))
    return TextEncoder(
        model,
        params,
        tokenizer,
        mesh=mesh,
        name=_name(folder, config, model),
        fingerprint=_fingerprint(folder, model, weights),
        tokenizer_fingerprint=_hash_tokenizer(folder),
        batch_size=batch_size,
        words=None if seed is None else read_words(folder),
    )


def _check_dtype(dtype: DTypeLike) -> None:
    try:
        known = jnp.dtype(dtype).name in _DTYPES
    except TypeError:
        known = False
    if not known:
        raise InputError(f"the encoder's dtype must be one of {', '.join(_DTYPES)} (got {dtype!r:.40})")


def identify_encoder(folder: str | os.PathLike[str]) -> tuple[str, str]:
    """Name and fingerprint of the encoder in `folder`, from its files alone: no device holds it.

    Raises:
      InputError: as `load_encoder`.
    """
    folder = user_path(folder)
    config = read_config(folder)
    model = make_encoder(config, folder, jnp.float32)
    seed = untrained_seed(config)
    weights = hash_weights(folder, model) if seed is None else _untrained_weights(seed)
    return _name(folder, config, model), _fingerprint(folder, model, weights)


def encoder_files(folder: Path) -> list[Path]:
    """Returns the files of an encoder's folder that are the encoder: config, tokenizer and weights, without pickles.

    And an untrained encoder's list of words, where it has one.
    """
    words = [folder / WORDS_FILE] if (folder / WORDS_FILE).is_file() else []
    return [folder / CONFIG_FILE, find_tokenizer(folder), *words, *weight_files(folder)]


def has_weights(folder: Path) -> bool:
    """False for an untrained encoder, which is a few kilobytes."""
    return untrained_seed(read_config(folder)) is None


def _padded_length(length: int) -> int:
    return max(_SHORTEST, 1 << int(length - 1).bit_length())


def _name(folder: Path, config: dict[str, Any], model: T5Encoder) -> str:
    size = f"width {model.d_model}, {model.num_layers} layers"
    seed = untrained_seed(config)
    if seed is not None:
        return f"untrained T5 v1.1 ({size}, seed {seed})"
    return f"{folder.resolve().name} ({config['model_type']}, {size})"


def _untrained_weights(seed: int) -> str:
    return f"untrained, threefry2x32, seed {seed}"


def _fingerprint(folder: Path, model: T5Encoder, weights: str) -> str:
    parts = ["T5 encoder", describe_model(model), weights, _hash_tokenizer(folder)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _hash_tokenizer(folder: Path) -> str:
    return hashlib.sha256(find_tokenizer(folder).read_bytes()).hexdigest()
