"""Words that a text encoder has seen, so that prompts with others can be told from a typing error at once.

An untrained encoder's folder has its data set's words in `words.txt`, one per line. It is no part of the encoder's
fingerprint: it changes no embedding.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from absl import logging

from imagen_jax.errors import InputError
from imagen_jax.files import read_bytes, split_lines

WORDS_FILE = "words.txt"
_MAX_BYTES = 64 * 2**20
_SHOWN = 3
# English words that change no picture much: a warning about them would hide one about others.
_SMALL_WORDS = frozenset(
    ("a", "an", "and", "at", "by", "for", "from", "in", "is", "of", "on", "or", "the", "to", "with")
)


def list_words(captions: Iterable[str]) -> bytes:
    """Returns the contents of `words.txt`: the distinct words of captions, folded as the vocabulary folds them."""
    words = {_fold(word) for caption in dict.fromkeys(captions) for word in split_words(caption)}
    return "".join(f"{word}\n" for word in sorted(words)).encode()


def read_words(folder: Path) -> frozenset[str] | None:
    """Returns the words in an encoder's folder; None where they aren't known."""
    path = folder / WORDS_FILE
    if not path.is_file():
        return None
    try:
        text = read_bytes(path, expected="one word per line", max_bytes=_MAX_BYTES).decode()
    except (InputError, UnicodeDecodeError):
        # Nothing that is drawn depends on it.
        logging.warning("%s is damaged, and words that the text encoder has never seen are not told", path)
        return None
    return frozenset(word for word in split_lines(text) if word)


def split_words(caption: str) -> Iterator[str]:
    """Yields what stands between white space and punctuation, and each run of other signs, such as an emoji."""
    yield from re.findall(r"\w+|[^\w\s\x00-\x7f]+", unicodedata.normalize("NFKC", caption))


def describe_unseen(
    captions: Sequence[str], known: frozenset[str] | None, is_unknown: Callable[[Sequence[str]], Sequence[bool]]
) -> str:
    """Returns one line that names words of prompts which the encoder has never seen; "" where there are none.

    Args:
      captions: the prompts.
      known: the encoder's words; None: not known, and then `is_unknown` decides.
      is_unknown: whether the vocabulary has no piece for each of some words.
    """
    first: dict[str, int] = {}
    for index, caption in enumerate(captions):
        for word in split_words(caption):
            # Punctuation from outside ASCII is no word.
            if any(unicodedata.category(sign)[0] in "LNS" for sign in word):
                first.setdefault(word, index)
    words = list(first)
    if known is None:
        unseen = [word for word, unknown in zip(words, is_unknown(words) if words else [], strict=True) if unknown]
    else:
        unseen = [word for word in words if _fold(word) not in known | _SMALL_WORDS]
    if not unseen:
        return ""
    shown = ", ".join(f'"{word:.40}" (prompt {first[word]})' for word in unseen[:_SHOWN])
    more = f" and {len(unseen) - _SHOWN} more words" if len(unseen) > _SHOWN else ""
    reason = (
        "its vocabulary has no piece for it, and reads it as unknown or as bare bytes"
        if known is None
        else "no caption that it and the stages were trained with has it, so what it draws is chance"
    )
    return f"the text encoder has never seen {shown}{more}: {reason}"


def _fold(word: str) -> str:
    return unicodedata.normalize("NFKC", word).casefold()
