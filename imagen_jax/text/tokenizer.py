"""Captions to token ids: SentencePiece vocabularies in T5's format (`spiece.model`), or `tokenizer.json`.

T5's special ids: pad 0, end of sentence 1, unknown 2, no beginning of sentence (arXiv 1910.10683).
"""

import base64
import binascii
import io
import numbers
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
from absl import logging

from imagen_jax.errors import InputError
from imagen_jax.files import parse_json, read_bytes

PAD_ID = 0
EOS_ID = 1
# The first that is there is read. The libraries that wrote them read them: what transformers makes of a `spiece.model`
# is right for T5's own vocabulary, but has no byte fallback, which mT5's and umT5's have.
TOKENIZER_FILES = ("spiece.model", "tokenizer.json")
# The largest published ones have 5 and 17 MB; parsed, a file takes some ten times as much memory.
_MAX_BYTES = 64 * 2**20
# Of a caption; a page of text has 500 tokens.
_MAX_LENGTH = 2**16


class Tokenizer:
    """A T5's tokenizer, with a fixed length, a mask, and a warning that counts what was cut.

    What looks like a special token in a caption ("</s>") is read as text from a `spiece.model`.

    Attributes:
      path: of its file.
      max_length: L.
      vocab_size: number of ids, without the sentinels that no caption needs.
    """

    def __init__(self, folder: str | os.PathLike[str], max_length: int):
        """Reads the tokenizer.

        Args:
          folder: holds `spiece.model` or `tokenizer.json`.
          max_length: L, at least 2: one token and the end of sentence.

        Raises:
          InputError: `max_length` is too small, or the folder has no readable tokenizer.
        """
        if isinstance(max_length, bool) or not isinstance(max_length, numbers.Integral) or max_length > _MAX_LENGTH:
            raise InputError(f"max_length is {max_length!r:.40}; expected a whole number, {_MAX_LENGTH:,} at most")
        if max_length < 2:
            raise InputError(f"max_length is {max_length}; expected at least 2 (one token and the end of sentence)")
        self.path = find_tokenizer(Path(folder))
        self.max_length = int(max_length)
        self._below = 2**31
        read = _read_spiece if self.path.name == TOKENIZER_FILES[0] else _read_json
        data = read_bytes(self.path, expected="a tokenizer", max_bytes=_MAX_BYTES)
        try:
            self._read = read(data)
        except InputError:
            raise
        except BaseException as error:  # of every class, and without one for a damaged file; Rust's panics, too
            _raise_unreadable(self.path, error)
        self.vocab_size = self._read.vocab_size

    def __call__(self, captions: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Tokenizes; warns with the number of captions that were cut to `max_length`.

        Args:
          captions: any text, "" included: it becomes the end of sentence alone.

        Returns:
          ids: [B,max_length] int32; each row ends with the end of sentence, then padding.
          mask: [B,max_length] bool, True = a real token, the end of sentence included.

        Raises:
          InputError: no captions, something that isn't a string, or a string that is not valid Unicode; an id beyond
            the vocabulary that the folder's config.json states (`check_ids_below`).
        """
        check_captions(captions)
        rows = self._encode(list(captions))
        ids = np.full((len(rows), self.max_length), PAD_ID, np.int32)
        mask = np.zeros((len(rows), self.max_length), bool)
        num_cut = 0
        for i, row in enumerate(rows):
            num_cut += len(row) >= self.max_length
            row = [*row[: self.max_length - 1], EOS_ID]
            if max(row) >= self._below:
                raise InputError(
                    f'"{self.path}" gives caption {i} ({captions[i][:40]!r}) the token id {max(row)}, beyond the '
                    f"vocab_size of {self._below} in config.json; the files belong to different encoders"
                )
            ids[i, : len(row)] = row
            mask[i, : len(row)] = True
        if num_cut:
            logging.warning(
                "%d of %d captions are longer than %d tokens and were cut", num_cut, len(rows), self.max_length
            )
        return ids, mask

    def check_ids_below(self, vocab_size: int) -> None:
        """Has every id from `vocab_size` on be an error when it is produced; XLA would read another one's embedding."""
        self._below = min(self._below, vocab_size)

    def is_unknown(self, words: Sequence[str]) -> list[bool]:
        """Returns for each word whether the vocabulary has no piece for a part of it: it is unknown, or bare bytes."""
        return [any(id in self._read.unknown_ids for id in row) for row in self._encode(list(words))]

    def _encode(self, captions: list[str]) -> list[list[int]]:
        try:
            return self._read.encode(captions)
        except BaseException as error:
            _raise_unreadable(self.path, error)


def _raise_unreadable(path: Path, error: BaseException) -> NoReturn:
    if isinstance(error, KeyboardInterrupt | SystemExit | MemoryError):
        raise error
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    raise InputError(f'"{path}" is no readable tokenizer ({reason}); fetch it again') from error


def find_tokenizer(folder: Path) -> Path:
    """The tokenizer's file in an encoder's folder.

    Raises:
      InputError: there is none.
    """
    for name in TOKENIZER_FILES:
        if (folder / name).is_file():
            return folder / name
    beside = [path for name in TOKENIZER_FILES for path in sorted(folder.parent.glob(f"tokenizer*/{name}"))]
    hint = f'; copy it from "{beside[0]}"' if beside else ""
    raise InputError(f'"{folder}" has no tokenizer: expected {" or ".join(TOKENIZER_FILES)}{hint}')


class _Reader(NamedTuple):
    """A library's tokenizer.

    Attributes:
      encode: captions -> ids without the end of sentence.
      vocab_size: number of ids.
      unknown_ids: those of no piece: unknown, and bare bytes.
    """

    encode: Callable[[list[str]], list[list[int]]]
    vocab_size: int
    unknown_ids: frozenset[int]


def _read_spiece(data: bytes) -> _Reader:
    import sentencepiece

    pieces = sentencepiece.SentencePieceProcessor(model_proto=data)
    count = pieces.vocab_size()
    unknown = frozenset(id for id in range(count) if pieces.is_unknown(id) or pieces.is_byte(id))
    return _Reader(lambda captions: pieces.encode(captions), count, unknown)


def _read_json(data: bytes) -> _Reader:
    import tokenizers

    description = parse_json(data, where="tokenizer.json", expected="a tokenizer, as the tokenizers library writes it")
    if not isinstance(description, dict):
        raise ValueError("no JSON object")
    _check_charsmaps(description)
    tokenizer = tokenizers.Tokenizer.from_str(data.decode("utf-8"))
    tokenizer.no_padding()
    tokenizer.no_truncation()

    def encode(captions: list[str]) -> list[list[int]]:
        return [encoding.ids for encoding in tokenizer.encode_batch(captions, add_special_tokens=False)]

    vocabulary = tokenizer.get_vocab(with_added_tokens=False)
    names = {f"<0x{byte:02X}>" for byte in range(256)} | {"<unk>"}
    unknown = frozenset(vocabulary[name] for name in names if name in vocabulary)
    return _Reader(encode, tokenizer.get_vocab_size(with_added_tokens=False), unknown)


def _check_charsmaps(description: dict[str, Any]) -> None:
    """Checks normalisers as SentencePiece compiles them; the library panics at a damaged one, and prints that it does.

    Raises:
      ValueError: one is damaged.
    """
    normalizer = description.get("normalizer")
    each = normalizer.get("normalizers") if isinstance(normalizer, dict) else None
    for part in [normalizer, *(each if isinstance(each, list) else [])]:
        if not isinstance(part, dict) or part.get("type") != "Precompiled":
            continue
        try:
            charsmap = base64.b64decode(part.get("precompiled_charsmap") or "", validate=True)
        except (TypeError, ValueError, binascii.Error):
            raise ValueError("its normalizer is damaged") from None
        # The length of a table in bytes, the table, and texts.
        table = int.from_bytes(charsmap[:4], "little")
        if len(charsmap) < 4 or table % 4 or 4 + table > len(charsmap):
            raise ValueError("its normalizer is damaged")
        charsmap[4 + table :].decode("utf-8")


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
