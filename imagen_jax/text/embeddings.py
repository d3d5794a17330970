"""Texts as the networks see them: computed once, kept in a file, and used in place of prompts."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from imagen_jax.errors import InputError, NotFiniteError
from imagen_jax.files import parse_json, user_path, write_bytes

_FORMAT = "imagen_jax text embeddings 1"
# The largest L that anything here is trained with is 4,096.
_MAX_LENGTH = 2**16


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Embeddings:
    """N texts, their embeddings, and who made them.

    Attributes:
      captions: N texts.
      tokens: N arrays [n,D] bfloat16 of 1 <= n <= max_length real tokens.
      max_length: L.
      encoder_name: for people.
      encoder_fingerprint: see `TextEncoder`.
    """

    captions: tuple[str, ...]
    tokens: tuple[np.ndarray, ...]
    max_length: int
    encoder_name: str
    encoder_fingerprint: str

    def __len__(self) -> int:
        return len(self.captions)

    @property
    def width(self) -> int:
        """D."""
        return self.tokens[0].shape[1]

    def padded(self, rows: Sequence[int] | np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Returns text_emb [B,L,D] bfloat16, zero at padding, and text_mask [B,L] bool, by name, of rows or of all.

        Raises:
          NotFiniteError: an embedding is infinite or not a number.
        """
        rows = range(len(self)) if rows is None else rows
        self.check_finite(rows)
        chosen = [self.tokens[row] for row in rows]
        text_emb = np.zeros((len(chosen), self.max_length, self.width), ml_dtypes.bfloat16)
        text_mask = np.zeros((len(chosen), self.max_length), bool)
        for row, tokens in enumerate(chosen):
            text_emb[row, : len(tokens)] = tokens
            text_mask[row, : len(tokens)] = True
        return {"text_emb": text_emb, "text_mask": text_mask}

    def check_finite(self, rows: Sequence[int] | np.ndarray | None = None) -> None:
        """Checks that the embeddings of some rows, or of all, are numbers.

        Raises:
          NotFiniteError: one is infinite or not a number; the message names its caption.
        """
        for row in range(len(self)) if rows is None else rows:
            if not np.isfinite(self.tokens[row]).all():
                raise NotFiniteError(
                    f'text encoder, prompt {row} ("{self.captions[row]:.60}"): its embedding by {self.encoder_name} '
                    "holds infinities or NaN, from which no picture can be drawn; compute it again "
                    "(--encoder_dtype=float32)"
                )

    def take(self, rows: Sequence[int]) -> Self:
        """The texts of these rows, in this order."""
        captions, tokens = (tuple(column[row] for row in rows) for column in (self.captions, self.tokens))
        return dataclasses.replace(self, captions=captions, tokens=tokens)

    def save(self, path: str | Path) -> None:
        """Writes one safetensors file, whole or not at all.

        Raises:
          StorageError: the disk is full, read-only or gone.
        """
        tensors = {
            "tokens": np.concatenate(self.tokens),
            "lengths": np.array([len(tokens) for tokens in self.tokens], np.int32),
        }
        metadata = {
            "format": _FORMAT,
            "captions": json.dumps(self.captions),
            "max_length": str(self.max_length),
            "encoder_name": self.encoder_name,
            "encoder_fingerprint": self.encoder_fingerprint,
        }
        write_bytes(user_path(path), save(tensors, metadata))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Reads what `save` wrote.

        Raises:
          InputError: there is no such file, or it holds something else.
          NotFiniteError: an embedding is infinite or not a number.
        """
        path = user_path(path)
        if not path.is_file():
            raise InputError(f'no file of text embeddings "{path}"; sample writes one with --save_embeddings=FILE')
        try:
            with safe_open(path, framework="numpy") as file:
                metadata = file.metadata() or {}
                if metadata.get("format") != _FORMAT:
                    raise InputError(
                        f'"{path}" is not a file of text embeddings, as --save_embeddings=FILE writes them'
                    )
                captions = parse_json(metadata["captions"], where=f'"{path}"', expected="a list of captions")
                tokens, lengths = _read_arrays(file)
            loaded = cls(
                captions=_checked_captions(captions, len(lengths)),
                tokens=tuple(np.split(tokens, np.cumsum(lengths)[:-1])),
                max_length=int(metadata["max_length"]) if metadata["max_length"].isdecimal() else 0,
                encoder_name=metadata["encoder_name"],
                encoder_fingerprint=metadata["encoder_fingerprint"],
            )
            if not lengths.max() <= loaded.max_length <= _MAX_LENGTH:
                raise ValueError(f"texts of up to {lengths.max()} tokens, and a max_length of {loaded.max_length}")
        except (SafetensorError, KeyError, ValueError) as error:
            reason = " ".join(str(error).split())[:300]
            raise InputError(f'"{path}" is damaged ({reason}); compute the embeddings again') from error
        loaded.check_finite()
        return loaded


def _read_arrays(file: Any) -> tuple[np.ndarray, np.ndarray]:
    """Tokens [T,D] bfloat16 and the texts' lengths [N], which fit each other; looks at their headers first."""
    for name, kind, rank in (("tokens", "BF16", 2), ("lengths", "I32", 1)):
        header = file.get_slice(name)
        if header.get_dtype() != kind or len(header.get_shape()) != rank or 0 in header.get_shape():
            raise ValueError(f"{name} is {header.get_dtype()} {header.get_shape()}")
    tokens, lengths = file.get_tensor("tokens"), file.get_tensor("lengths").astype(np.int64)
    if lengths.min() < 1 or lengths.sum() != len(tokens):
        raise ValueError(f"{len(lengths)} lengths of {len(tokens)} tokens do not fit them")
    return tokens, lengths


def _checked_captions(captions: Any, count: int) -> tuple[str, ...]:
    if not isinstance(captions, list) or not all(isinstance(caption, str) for caption in captions):
        raise ValueError("its captions are no list of texts")
    if len(captions) != count:
        raise ValueError(f"{len(captions)} captions for {count} embeddings")
    return tuple(captions)
