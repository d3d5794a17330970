"""Captions to token ids: SentencePiece unigram vocabularies in T5's format (`spiece.model`).

T5's special ids: pad 0, end of sentence 1, unknown 2, no beginning of sentence (arXiv 1910.10683).
"""

import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from absl import logging

from imagen_jax.errors import InputError

PAD_ID = 0
EOS_ID = 1
TOKENIZER_FILES = ("spiece.model", "tokenizer.json")


class Tokenizer:
    """transformers' T5 tokenizer, with a fixed length, a mask, and a warning that counts what was cut."""

    def __init__(self, folder: str | os.PathLike[str], max_length: int):
        """Reads the tokenizer.

        Args:
          folder: holds `spiece.model` or `tokenizer.json`.
          max_length: L, at least 2: one token and the end of sentence.

        Raises:
          InputError: `max_length` is too small, or the folder has no readable tokenizer.
        """
        folder = Path(folder)
        if max_length < 2:
            raise InputError(f"max_length is {max_length}; expected at least 2 (one token and the end of sentence)")
        if not any((folder / name).is_file() for name in TOKENIZER_FILES):
            raise InputError(f'"{folder}" has no tokenizer: expected {" or ".join(TOKENIZER_FILES)}')
        # transformers tells everybody without torch, at import, that there is no torch.
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        from transformers import T5Tokenizer  # here because it takes over a second

        try:
            self._tokenizer = T5Tokenizer.from_pretrained(folder, local_files_only=True)
        except Exception as e:  # whatever the parsers of transformers raise: a damaged file has no type of its own
            raise InputError(f'"{folder}" holds no readable T5 tokenizer: {str(e).splitlines()[0]}') from e
        self.max_length = max_length
        self.vocab_size = len(self._tokenizer)

    def __call__(self, captions: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Tokenizes; warns with the number of captions that were cut to `max_length`.

        Args:
          captions: any text, "" included: it becomes the end of sentence alone.

        Returns:
          ids: [B,max_length] int32; each row ends with the end of sentence, then padding.
          mask: [B,max_length] bool, True = a real token, the end of sentence included.

        Raises:
          InputError: no captions, something that isn't a string, or a string that is not valid Unicode.
        """
        check_captions(captions)
        rows: list[list[int]] = self._tokenizer(list(captions), verbose=False)["input_ids"]
        ids = np.full((len(rows), self.max_length), PAD_ID, np.int32)
        mask = np.zeros((len(rows), self.max_length), bool)
        num_cut = 0
        for i, row in enumerate(rows):
            if len(row) > self.max_length:
                num_cut += 1
                row = [*row[: self.max_length - 1], EOS_ID]
            ids[i, : len(row)] = row
            mask[i, : len(row)] = True
        if num_cut:
            logging.warning(
                "%d of %d captions are longer than %d tokens and were cut", num_cut, len(rows), self.max_length
            )
        return ids, mask


def check_captions(captions: Sequence[str]) -> None:
    """Raises InputError for no captions, something that isn't a string, or a string that is not valid Unicode."""
    if isinstance(captions, str):
        raise InputError(f"captions is one string, {captions[:40]!r}; expected a list of strings: put it in a list")
    if len(captions) == 0:
        raise InputError("captions is empty; expected at least one string")
    for i, caption in enumerate(captions):
        if not isinstance(caption, str):
            raise InputError(f"caption {i} is {type(caption).__name__} {str(caption)[:40]!r}; expected a string")
        # Half of a surrogate pair: what Python makes of command-line bytes that aren't UTF-8.
        if any("\ud800" <= c <= "\udfff" for c in caption):
            raise InputError(f"caption {i} is not valid Unicode: {caption[:40]!r}; write it as UTF-8")


def train_vocabulary(captions: Iterable[str], *, vocab_size: int) -> bytes:
    """A SentencePiece unigram vocabulary for `captions`, with T5's special ids.

    The same captions give the same bytes. It folds case, which T5's own vocabulary doesn't, so that "Red Apple" finds
    the words of "red apple"; and it knows all letters and digits of ASCII, so that a word with a letter that
    `captions` lack is still read.

    Args:
      captions: repeated captions count once.
      vocab_size: an upper limit; few captions give fewer pieces.

    Returns:
      The contents of a `spiece.model`.

    Raises:
      InputError: no caption holds text, or `vocab_size` is too small for the characters that occur.
    """
    import sentencepiece

    distinct = [c for c in dict.fromkeys(captions) if c.strip()]
    if not distinct:
        raise InputError("no caption holds any text; a vocabulary needs some")
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(  # pyright: ignore[reportAttributeAccessIssue]
            sentence_iterator=iter(distinct),
            model_writer=model,
            model_type="unigram",
            vocab_size=vocab_size,
            hard_vocab_limit=False,
            character_coverage=1.0,
            required_chars="abcdefghijklmnopqrstuvwxyz0123456789",
            normalization_rule_name="nmt_nfkc_cf",
            pad_id=PAD_ID,
            eos_id=EOS_ID,
            unk_id=2,
            bos_id=-1,
            num_threads=1,  # sums of floats depend on how many threads share them
            minloglevel=2,
        )
    except RuntimeError as e:
        raise InputError(f"no vocabulary of {vocab_size} pieces from {len(distinct)} captions: {e}") from e
    return model.getvalue()


def count_pieces(spiece_model: bytes) -> int:
    """Number of ids of a `spiece.model`, special ones included."""
    import sentencepiece

    return sentencepiece.SentencePieceProcessor(model_proto=spiece_model).vocab_size()
