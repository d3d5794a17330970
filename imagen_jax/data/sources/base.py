"""What every data set offers, and the index that saves a source from reading everything again at the next opening."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

from absl import logging

from imagen_jax.errors import InputError, StorageError
from imagen_jax.files import read_json, write_text

# Ten million captions.
_MAX_INDEX_BYTES = 2**30


class Source(Protocol):
    """Captioned images by index. It knows nothing of stages and resizes nothing.

    Attributes:
      spec: the string that `open_source` was given.
      fingerprint: hex of a sha256 over the ordered captions and the identity of the images.
    """

    spec: str
    fingerprint: str

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> dict[str, Any]:
        """{"image": uint8 [H, W, 3] RGB, "caption": str, ...}: more keys are the source's own."""
        ...

    def captions(self) -> list[str]:
        """The captions of all records in order, without decoding an image."""
        ...


def fingerprint(captions: Iterable[str], image_ids: Iterable[str]) -> str:
    """Hex of a sha256 over both sequences; each item is prefixed by its length, so that no two sequences collide."""
    digest = hashlib.sha256()
    for items in (list(captions), list(image_ids)):
        digest.update(f"{len(items)};".encode())
        for item in items:
            data = item.encode()
            digest.update(f"{len(data)}:".encode() + data)
    return digest.hexdigest()


def load_index(path: Path, signature: str) -> dict[str, Any] | None:
    """Reads what `save_index` wrote for the same `signature`; None for anything else, which is then made again."""
    try:
        index = read_json(path, expected="an index", max_bytes=_MAX_INDEX_BYTES)
    except (OSError, InputError, StorageError):
        return None
    return index if index.get("signature") == signature else None


def save_index(path: Path, index: dict[str, Any]) -> None:
    """Writes `index` as JSON, atomically: several processes may open one source at once.

    Where it can't be written (a read-only or full disk), that is one warning: only the next opening is slower.
    """
    try:
        write_text(path, json.dumps(index))
    except (OSError, StorageError) as error:
        reason = " ".join(str(error.__cause__ if isinstance(error, StorageError) else error).split())
        logging.warning("can't keep the index of this data set (%s); it is read again at the next start", reason)
