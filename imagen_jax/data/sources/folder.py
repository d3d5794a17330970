"""A folder of images with captions: name.txt beside name.jpg, or one metadata.jsonl."""

import hashlib
import json
import warnings
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from absl import logging
from PIL import Image

from imagen_jax.data.records import BadRecord, clean_caption, decode_image
from imagen_jax.data.sources.base import fingerprint, load_index, save_index
from imagen_jax.errors import InputError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp")
# More than this, and the folder is not what its owner thinks it is.
MAX_BAD_FRACTION = 0.10
MAX_CAPTION_FILE_BYTES = 1_000_000
_VERIFY_THREADS = 4


class FolderSource:
    """See `open_folder`. Records: image, caption, file (its path relative to the folder)."""

    def __init__(self, spec: str, root: Path, records: list[tuple[str, str, str]]):
        """`records`: (file, caption, sha256 of the file) of each usable image, in order."""
        self.spec = spec
        self._root = root
        self._records = records
        self.fingerprint = fingerprint([caption for _, caption, _ in records], [sha for _, _, sha in records])

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Raises InputError if the file was removed or broken after the folder was opened."""
        file, caption, _ = self._records[index]
        try:
            image = decode_image((self._root / file).read_bytes())
        except (OSError, BadRecord) as error:
            raise InputError(f"{self._root / file} could be read before but not now ({error}); start again") from error
        return {"image": image, "caption": caption, "file": file}

    def captions(self) -> list[str]:
        return [caption for _, caption, _ in self._records]


def open_folder(spec: str, data_dir: str) -> FolderSource:
    """Opens "folder/PATH": PNG, JPEG and WebP images below PATH, in the order of their names.

    Captions come from PATH/metadata.jsonl (a line: {"file_name": "a.png", "text" or "caption": "..."}) if it exists,
    else from name.txt beside each image. Every image is decoded once, when the folder is first opened, so that a bad
    one is found now and not in the middle of training, and the mapping from step to image is plain arithmetic. The
    result is kept in `data_dir` until a name, size or time in the folder changes. Bad items are skipped, counted by
    reason and reported in one warning.

    Raises:
      InputError: no such folder, no images in it, or more than 10% of them are bad.
    """
    path_text = spec.removeprefix("folder").removeprefix("/")
    root = Path(path_text).expanduser().resolve()
    if not path_text or not root.is_dir():
        raise InputError(f'"{spec}": no folder at {root}; expected folder/PATH with images and captions in PATH')
    candidates = list(_from_metadata(root) if (root / "metadata.jsonl").exists() else _from_text_files(root))
    if not candidates:
        raise InputError(
            f'"{spec}": no images in {root}; expected {", ".join(EXTENSIONS)} files, each with a .txt of the same name '
            "beside it, or a metadata.jsonl with file_name and text"
        )
    signature = _signature(root, candidates)
    index_path = Path(data_dir) / "index" / f"folder-{hashlib.sha256(str(root).encode()).hexdigest()[:16]}.json"
    index = load_index(index_path, signature)
    if index is None:
        index = {"signature": signature, **_verify(root, candidates)}
        save_index(index_path, index)
    _report(spec, index["bad"], num_items=len(candidates))
    return FolderSource(spec, root, [tuple(record) for record in index["records"]])


# (file relative to the folder, its caption: the text itself, a file to read it from, or the reason why there is none).
_Candidate = tuple[str, str | Path | BadRecord]


def _from_text_files(root: Path) -> Iterator[_Candidate]:
    for path in sorted(root.rglob("*")):
        if path.suffix.lower() in EXTENSIONS:
            yield path.relative_to(root).as_posix(), path.with_suffix(".txt")


def _from_metadata(root: Path) -> Iterator[_Candidate]:
    with open(root / "metadata.jsonl", "rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield _parse_metadata_line(root, number, line)


def _parse_metadata_line(root: Path, number: int, line: bytes) -> _Candidate:
    name = f"metadata.jsonl:{number}"
    try:
        item = json.loads(line.decode("utf-8-sig"))
        file = item["file_name"]
        path = (root / file).resolve()
    except (ValueError, KeyError, TypeError, RecursionError):
        return name, BadRecord("metadata line without a file_name")
    if not path.is_relative_to(root):
        return name, BadRecord("metadata file_name outside the folder")
    caption = item.get("text", item.get("caption"))
    return file, caption if isinstance(caption, str) else BadRecord("caption missing")


def _signature(root: Path, candidates: list[_Candidate]) -> str:
    """A hash that changes when a file or a caption is added, removed or rewritten, at the cost of a stat each."""
    digest = hashlib.sha256()
    for file, caption in candidates:
        parts: list[Any] = [file, _stat(root / file)]
        parts.append(_stat(caption) if isinstance(caption, Path) else str(caption))
        digest.update(json.dumps(parts).encode())
    return digest.hexdigest()


def _stat(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except (OSError, ValueError):  # ValueError: a NUL byte in a name from metadata.jsonl.
        return None
    return stat.st_size, stat.st_mtime_ns


def _verify(root: Path, candidates: list[_Candidate]) -> dict[str, Any]:
    def check(candidate: _Candidate) -> tuple[str, str, str] | tuple[str, str]:
        file, caption = candidate
        try:
            return file, *_load(root / file, caption)
        except BadRecord as error:
            return file, str(error)

    # Set here and not in the threads, because warning filters belong to the whole process.
    with warnings.catch_warnings(), ThreadPoolExecutor(_VERIFY_THREADS) as pool:
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        results = list(pool.map(check, candidates))
    return {"records": [r for r in results if len(r) == 3], "bad": [r for r in results if len(r) == 2]}


def _load(path: Path, caption: str | Path | BadRecord) -> tuple[str, str]:
    """(caption, sha256 of the image file) of an image that decodes."""
    if isinstance(caption, BadRecord):
        raise caption
    if isinstance(caption, Path):
        try:
            with open(caption, "rb") as file:
                text = file.read(MAX_CAPTION_FILE_BYTES + 1)
        except OSError as error:
            raise BadRecord("caption missing") from error
        if len(text) > MAX_CAPTION_FILE_BYTES:
            raise BadRecord("caption file too large")
        caption = clean_caption(text)
    else:
        caption = clean_caption(caption)
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        raise BadRecord("image missing") from error
    decode_image(data)
    return caption, hashlib.sha256(data).hexdigest()


def _report(spec: str, bad: list[tuple[str, str]], *, num_items: int) -> None:
    if not bad:
        return
    reasons = Counter(reason for _, reason in bad)
    examples = {reason: file for file, reason in reversed(bad)}
    summary = ", ".join(f"{count} {reason} ({examples[reason]!r})" for reason, count in reasons.most_common())
    if len(bad) > MAX_BAD_FRACTION * num_items:
        raise InputError(
            f'"{spec}": {len(bad)} of {num_items} items are unusable, more than {MAX_BAD_FRACTION:.0%}: {summary}; '
            "repair or remove them"
        )
    logging.warning('"%s": skipped %d of %d items: %s', spec, len(bad), num_items, summary)
