"""Texts as the networks see them: computed once, kept in a file, and used in place of prompts."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from imagen_jax.errors import InputError
from imagen_jax.files import write_bytes

_FORMAT = "imagen_jax text embeddings 1"


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

    def padded(self, rows: Sequence[int] | np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """text_emb [B,L,D] bfloat16, zero at padding, and text_mask [B,L] bool, of some rows or of all."""
        chosen = [self.tokens[row] for row in (range(len(self)) if rows is None else rows)]
        text_emb = np.zeros((len(chosen), self.max_length, self.width), ml_dtypes.bfloat16)
        text_mask = np.zeros((len(chosen), self.max_length), bool)
        for row, tokens in enumerate(chosen):
            text_emb[row, : len(tokens)] = tokens
            text_mask[row, : len(tokens)] = True
        return text_emb, text_mask

    def take(self, rows: Sequence[int]) -> Self:
        """The texts of these rows, in this order."""
        captions, tokens = (tuple(column[row] for row in rows) for column in (self.captions, self.tokens))
        return dataclasses.replace(self, captions=captions, tokens=tokens)

    def save(self, path: str | Path) -> None:
        """Writes one safetensors file, whole or not at all."""
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
        write_bytes(Path(path), save(tensors, metadata))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Reads what `save` wrote.

        Raises:
          InputError: there is no such file, or it holds something else.
        """
        if not Path(path).is_file():
            raise InputError(f'no file of text embeddings "{path}"; sample writes one with --save_embeddings=FILE')
        try:
            with safe_open(path, framework="numpy") as file:
                metadata = file.metadata() or {}
                if metadata.get("format") != _FORMAT:
                    raise InputError(
                        f'"{path}" is not a file of text embeddings, as --save_embeddings=FILE writes them'
                    )
                tokens, lengths = file.get_tensor("tokens"), file.get_tensor("lengths")
            captions = tuple(json.loads(metadata["captions"]))
            if not len(captions) == len(lengths) > 0 or lengths.sum() != len(tokens):
                raise ValueError(f"{len(captions)} captions, {len(lengths)} lengths of {len(tokens)} tokens")
            return cls(
                captions=captions,
                tokens=tuple(np.split(tokens, np.cumsum(lengths)[:-1])),
                max_length=int(metadata["max_length"]),
                encoder_name=metadata["encoder_name"],
                encoder_fingerprint=metadata["encoder_fingerprint"],
            )
        except InputError:
            raise
        except (SafetensorError, KeyError, ValueError) as error:
            raise InputError(f'"{path}" is damaged ({error}); compute the embeddings again') from error
