"""What every data set offers, and the index that saves a source from reading everything again at the next opening."""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol


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
    """What `save_index` wrote for the same `signature`, or None."""
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return index if isinstance(index, dict) and index.get("signature") == signature else None


def save_index(path: Path, index: dict[str, Any]) -> None:
    """Writes `index` as JSON, atomically: several processes may open one source at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, delete=False) as file:
        json.dump(index, file)
    os.replace(file.name, path)
