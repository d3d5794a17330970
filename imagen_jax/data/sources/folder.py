"""A folder of images with captions: name.txt beside name.jpg, or one metadata.jsonl or metadata.csv."""

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from absl import logging

from imagen_jax.data.image_files import LeftOut, describe_left_out, list_pictures
from imagen_jax.data.records import (
    EXTENSIONS,
    BadRecord,
    clean_caption,
    inspect_image,
    quiet_decoder,
    read_image,
    read_ordinary_file,
)
from imagen_jax.data.sources.base import fingerprint, load_index, save_index
from imagen_jax.data.sources.folder_captions import CAPTION_KEYS, Candidate, Candidates, find_captions
from imagen_jax.errors import InputError
from imagen_jax.files import user_path

# More than this, and the folder is not what its owner thinks it is.
MAX_BAD_FRACTION = 0.10
MAX_CAPTION_FILE_BYTES = 1_000_000
_VERIFY_THREADS = 4
# Of what the index holds: another one makes every index again.
_INDEX_VERSION = 2


class FolderRecord(NamedTuple):
    """A usable image: its path relative to the folder, caption, sha256 of the file, size, and name if it has one."""

    file: str
    caption: str
    sha256: str
    height: int
    width: int
    name: str | None


class FolderSource:
    """See `open_folder`. Records: image, caption, file (its path relative to the folder), and name where it has one."""

    def __init__(self, spec: str, root: Path, records: Sequence[FolderRecord]):
        self.spec = spec
        self._root = root
        self._records = records
        self.fingerprint = fingerprint([record.caption for record in records], [record.sha256 for record in records])

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Raises InputError if the file was removed or broken after the folder was opened."""
        record = self._records[index]
        path = _path(self._root, record.file)
        try:
            image = read_image(path)
        except (OSError, BadRecord) as error:
            raise InputError(f"{path} could be read before but not now ({error}); start again") from error
        name = {"name": record.name} if record.name is not None else {}
        return {"image": image, "caption": record.caption, "file": record.file, **name}

    def captions(self) -> list[str]:
        """Returns the captions of all records in order."""
        return [record.caption for record in self._records]

    def sizes(self) -> list[tuple[int, int]]:
        """Returns (height, width) in pixels of all records in order, without decoding an image."""
        return [(record.height, record.width) for record in self._records]


def open_folder(spec: str, data_dir: str) -> FolderSource:
    """Opens "folder/PATH": the pictures below PATH in the order of their names, as `list_pictures` finds them.

    Captions come from PATH/metadata.jsonl if it exists (one line per picture, in that order: {"file_name": "a.png",
    "text" or "caption" or "prompt": "...", "name": "..." if wanted}), else from PATH/metadata.csv with such columns,
    else from name.txt beside each picture. Every picture is decoded once, when the folder is first opened, so that a
    bad one is found now and not in the middle of training, and the mapping from step to image is plain arithmetic. The
    result is kept in `data_dir` until a name, size or time in the folder changes. What is there and not used is counted
    by reason and said in one warning.

    Raises:
      InputError: no such folder, no images in it, a table whose rows don't fit its header, or more than 10% of the
        images are bad.
    """
    path_text = spec.removeprefix("folder").removeprefix("/")
    root = Path(os.path.realpath(user_path(path_text)))
    if not path_text or not root.is_dir():
        raise InputError(f'"{spec}": no folder at {root}; expected folder/PATH with images and captions in PATH')
    listing = list_pictures(root)
    candidates = find_captions(root, listing)
    if not candidates.items:
        left_out = describe_left_out([*listing.left_out, *candidates.left_out])
        raise InputError(
            f'"{spec}": no images in {root}{f" (left out: {left_out})" if left_out else ""}; expected '
            f"{', '.join(EXTENSIONS)} files, each with a .txt of the same name beside it, or a metadata.jsonl with "
            f"file_name and {' or '.join(CAPTION_KEYS)}"
        )
    signature = _signature(root, candidates.items)
    index_path = Path(data_dir) / "index" / f"folder-{hashlib.sha256(os.fsencode(root)).hexdigest()[:16]}.json"
    index = _from_index(load_index(index_path, signature))
    if index is None:
        index, is_lasting = _verify(root, candidates.items)
        if is_lasting:
            contents = _contents(index)
            save_index(index_path, {"signature": signature, "digest": _digest(contents), **contents})
    _report(spec, candidates, [*listing.left_out, *candidates.left_out], index)
    return FolderSource(spec, root, index.records)


class _Index(NamedTuple):
    records: list[FolderRecord]
    bad: list[LeftOut]


def _contents(index: _Index) -> dict[str, Any]:
    return {"records": [list(record) for record in index.records], "bad": [list(item) for item in index.bad]}


def _digest(contents: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()


def _from_index(saved: dict[str, Any] | None) -> _Index | None:
    """What was saved, or None if it was damaged since: an index is ours, and can be made again."""
    if saved is None:
        return None
    contents = {"records": saved.get("records"), "bad": saved.get("bad")}
    if saved.get("digest") != _digest(contents):
        return None
    return _Index([FolderRecord(*item) for item in saved["records"]], [LeftOut(*item) for item in saved["bad"]])


def _signature(root: Path, candidates: list[Candidate]) -> str:
    """A hash that changes when a file or a caption is added, removed or rewritten, at the cost of a stat each."""
    digest = hashlib.sha256(f"{_INDEX_VERSION};".encode())
    for file, caption, name in candidates:
        parts: list[Any] = [file, _stat(_path(root, file)), name]
        # Its path too, since a.txt and a.TXT may be alike in all else.
        parts.append([str(caption), _stat(caption)] if isinstance(caption, Path) else str(caption))
        digest.update(json.dumps(parts).encode())
    return digest.hexdigest()


def _stat(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except (OSError, ValueError):  # ValueError: a name that no file system takes.
        return None
    return stat.st_size, stat.st_mtime_ns


def _path(root: Path, file: str) -> Path:
    """Where a record's file is: "sub/../a.png" is "a.png" by its name alone, wherever a link "sub" may lead."""
    return Path(os.path.normpath(root / file))


class _Unread(NamedTuple):
    """A file that is there and could not be read this time, which is no property of it."""

    item: LeftOut


def _verify(root: Path, candidates: list[Candidate]) -> tuple[_Index, bool]:
    """Reads every picture and caption once; also says whether the next opening would find the same."""

    def check(candidate: Candidate) -> FolderRecord | LeftOut | _Unread:
        what = "caption"
        try:
            caption = _read_caption(candidate.caption)
            what = "image"
            sha256, height, width = inspect_image(_path(root, candidate.file))
        except BadRecord as error:
            return LeftOut(candidate.file, str(error), error.detail)
        except OSError as error:
            return _Unread(LeftOut(candidate.file, f"{what} can't be read", error.strerror or str(error)))
        return FolderRecord(candidate.file, caption, sha256, height, width, _clean_name(candidate.name))

    with quiet_decoder(), ThreadPoolExecutor(_VERIFY_THREADS) as pool:
        results = list(pool.map(check, candidates))
    records = [result for result in results if isinstance(result, FolderRecord)]
    unread = [result.item for result in results if isinstance(result, _Unread)]
    bad = [result for result in results if isinstance(result, LeftOut)]
    return _Index(records, bad + unread), not unread


def _read_caption(caption: str | Path | BadRecord) -> str:
    if isinstance(caption, BadRecord):
        raise caption
    if isinstance(caption, str):
        return clean_caption(caption)
    try:
        return clean_caption(read_ordinary_file(caption, max_bytes=MAX_CAPTION_FILE_BYTES, what="caption"))
    except BadRecord as error:
        if str(error) == "caption missing":
            raise BadRecord(str(error), detail=f"no caption in {caption.name}") from error
        raise


def _clean_name(name: str | None) -> str | None:
    try:
        return None if name is None else clean_caption(name)
    except BadRecord:
        return None


def _report(spec: str, candidates: Candidates, left_out: list[LeftOut], index: _Index) -> None:
    """Says in one warning what is not used. Raises InputError if too many pictures are bad, or none is left."""
    bad, num_items = index.bad, len(candidates.items)
    if len(bad) > MAX_BAD_FRACTION * num_items:
        beside = f"; left out besides: {describe_left_out(left_out)}" if left_out else ""
        raise InputError(
            f'"{spec}": {len(bad)} of {num_items} items are unusable, more than {MAX_BAD_FRACTION:.0%}: '
            f"{describe_left_out(bad)}; repair or remove them{beside}"
        )
    parts = []
    if unused := [*left_out, *bad]:
        items = "1 item" if len(unused) == 1 else f"{len(unused)} items"
        parts.append(f"left out {items}: {describe_left_out(unused)}")
    parts += [candidates.remark] if candidates.remark else []
    if parts:
        logging.warning('"%s": %s; %d records are used', spec, "; ".join(parts), len(index.records))
