"""Captions to CLIP's token ids: `tokenizer.json`, or the `vocab.json` and `merges.txt` that it is made of.

A byte-level BPE that folds case (Radford et al., arXiv 2103.00020), as transformers' CLIPTokenizer reads text: spaces
are squeezed, and nothing is unescaped or mended first, which OpenAI's own code does with HTML and broken Unicode.
"""

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from imagen_jax.errors import InputError
from imagen_jax.files import read_bytes
from imagen_jax.text.tokenizer import check_captions

START, END = "<|startoftext|>", "<|endoftext|>"
_JSON, _VOCAB, _MERGES = "tokenizer.json", "vocab.json", "merges.txt"
# Ten times the published tokenizer.json's.
_MAX_BYTES = 32 * 2**20
# A word is a run of letters, one digit, or a run of other signs; and English endings are words.
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


class ClipTokenizer:
    """A CLIP's tokenizer, with a fixed length and a warning that counts what was cut.

    The names of the two special tokens in a caption are read as those tokens.

    Attributes:
      max_length: L.
      vocab_size: number of ids, those that no token has included.
      end_id: of the end of sentence, which also fills rows up.
    """

    def __init__(self, folder: Path, max_length: int):
        """Reads the tokenizer.

        Args:
          folder: holds tokenizer.json, or vocab.json and merges.txt.
          max_length: L, of a row of ids.

        Raises:
          InputError: the folder has no readable tokenizer, or one without CLIP's special tokens.
        """
        if (folder / _JSON).is_file():
            path, read = folder / _JSON, _read_json
        elif (folder / _VOCAB).is_file() and (folder / _MERGES).is_file():
            path, read = folder / _VOCAB, _read_parts
        else:
            raise InputError(f'"{folder}" has no tokenizer: expected {_JSON}, or {_VOCAB} and {_MERGES}')
        with _readable(path):
            self._tokenizer = read(path)
            largest_id = max(self._tokenizer.get_vocab().values(), default=0)
        if largest_id > np.iinfo(np.int32).max:
            raise InputError(f'"{path}" has the id {largest_id}, which no network has; fetch it again')
        self._path = path
        start_id, end_id = (self._tokenizer.token_to_id(token) for token in (START, END))
        if start_id is None or end_id is None:
            raise InputError(f'"{path}" has no {START} or {END}; expected the tokenizer of a CLIP')
        self._start_id, self.end_id, self.max_length = start_id, end_id, max_length
        # Ids with gaps between them need as many rows of a network's table.
        self.vocab_size: int = max(self._tokenizer.get_vocab_size(), largest_id + 1)

    def __call__(self, captions: Sequence[str]) -> np.ndarray:
        """Tokenizes; warns with the number of captions that were cut.

        Returns:
          [N,L] int32; each row is the start, tokens, the end, and the end again to its length.

        Raises:
          InputError: no captions, something that isn't a string, or a string that is not valid Unicode.
        """
        check_captions(captions)
        with _readable(self._path):
            rows = [found.ids for found in self._tokenizer.encode_batch(list(captions), add_special_tokens=False)]
        ids = np.full((len(rows), self.max_length), self.end_id, np.int32)
        for i, row in enumerate(rows):
            row = [self._start_id, *row[: self.max_length - 2]]
            ids[i, : len(row)] = row
        if num_cut := sum(len(row) > self.max_length - 2 for row in rows):
            logging.warning(
                "%d of %d captions are longer than %d tokens and were cut", num_cut, len(rows), self.max_length
            )
        return ids


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turns what the library raises, whose errors are of no narrower class, into an InputError that names the file."""
    try:
        with _without_panics():
            yield
    except (KeyboardInterrupt, SystemExit, InputError):
        raise
    except BaseException as error:  # a panic of the library, which is written in Rust, is no Exception
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f'"{path}" is no readable tokenizer ({reason}); fetch it again') from error


@contextlib.contextmanager
def _without_panics() -> Iterator[None]:
    """Keeps the stack that the library prints of a panic off the terminal: it writes to the descriptor itself."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nothing:
            os.dup2(nothing.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _read_json(path: Path) -> Any:
    import tokenizers

    data = read_bytes(path, expected="a CLIP's tokenizer", max_bytes=_MAX_BYTES)
    tokenizer = tokenizers.Tokenizer.from_str(data.decode())
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _read_parts(path: Path) -> Any:
    import tokenizers
    from tokenizers import models, normalizers, pre_tokenizers

    for file in (path, path.with_name(_MERGES)):
        read_bytes(file, expected="a part of a CLIP's tokenizer", max_bytes=_MAX_BYTES)  # what the library opens again
    merges = str(path.with_name(_MERGES))
    model = models.BPE.from_file(str(path), merges, unk_token=END, end_of_word_suffix="</w>")
    tokenizer = tokenizers.Tokenizer(model)
    words = pre_tokenizers.Split(tokenizers.Regex(_WORDS), behavior="removed", invert=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(tokenizers.Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.add_special_tokens([START, END])
    return tokenizer
