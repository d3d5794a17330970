"""Which caption belongs to which picture of a folder: name.txt beside name.jpg, metadata.jsonl or metadata.csv."""

import csv
import io
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from imagen_jax.data.image_files import LeftOut, Listing
from imagen_jax.data.records import BadRecord
from imagen_jax.errors import InputError
from imagen_jax.files import read_bytes

# Some two million captions.
MAX_METADATA_BYTES = 2**28
# The first of these with a text in it is the caption.
CAPTION_KEYS = ("text", "caption", "prompt")


class Candidate(NamedTuple):
    """A picture that may become a record.

    Attributes:
      file: relative to the folder.
      caption: the text itself, a file to read it from, or the reason why there is none.
      name: what the picture shows in a word or two, for evaluation, or None.
    """

    file: str
    caption: str | Path | BadRecord
    name: str | None = None


class Candidates(NamedTuple):
    """All candidates of a folder in their order, what was found and not used, and a remark about others, or ""."""

    items: list[Candidate]
    left_out: list[LeftOut]
    remark: str = ""


def find_captions(root: Path, listing: Listing) -> Candidates:
    """Pairs the pictures of a folder with captions, reading no picture and no .txt file.

    Raises:
      InputError: a metadata file that can't be read, or a table of which a row doesn't fit the header.
    """
    lines, table = root / "metadata.jsonl", root / "metadata.csv"
    # lexists: a link to nothing is an error, and not a folder without metadata.
    if os.path.lexists(lines):
        remark = "metadata.csv is there too and not read" if os.path.lexists(table) else ""
        return _with_unnamed(root, listing, list(_from_lines(root, lines)), lines.name, remark)
    if os.path.lexists(table):
        return _with_unnamed(root, listing, list(_from_table(root, table)), table.name, "")
    return _from_text_files(root, listing)


def _from_text_files(root: Path, listing: Listing) -> Candidates:
    # Exactly .txt wins over .TXT, which sorts before it.
    texts = {path.with_suffix(""): path for path in listing.texts}
    items = []
    used = set()
    for path in listing.pictures:
        stem = path.with_suffix("")
        items.append(Candidate(path.relative_to(root).as_posix(), texts.get(stem, path.with_suffix(".txt"))))
        used.add(texts.get(stem))
    unused = [path for path in listing.texts if path not in used]
    reason = "caption file without a picture"
    return Candidates(items, [LeftOut(path.relative_to(root).as_posix(), reason) for path in unused])


def _with_unnamed(root: Path, listing: Listing, items: list[Candidate], metadata: str, remark: str) -> Candidates:
    """The candidates, with the pictures and .txt captions beside them that they don't use."""
    left_out = []
    named = {root / os.path.normpath(item.file) for item in items}
    unnamed = [path for path in listing.pictures if path not in named]
    if unnamed:  # Perhaps by another way, through a link to their folder.
        real = {_real(path) for path in named}
        reason = f"picture that {metadata} doesn't name"
        left_out = [LeftOut(path.relative_to(root).as_posix(), reason) for path in unnamed if _real(path) not in real]
    stems = {path.with_suffix("") for path in listing.pictures}
    reason = f"caption file beside {metadata}"
    left_out += [
        LeftOut(path.relative_to(root).as_posix(), reason) for path in listing.texts if path.with_suffix("") in stems
    ]
    # Not left out: several captions of one picture are several records.
    counts = Counter(os.path.normpath(item.file) for item in items if not isinstance(item.caption, BadRecord))
    twice = [file for file, count in counts.items() if count > 1]
    if twice:
        pictures = "1 picture is" if len(twice) == 1 else f"{len(twice)} pictures are"
        said = f'{pictures} named more than once in {metadata} and give a record each time ("{twice[0]}")'
        remark = f"{remark}; {said}" if remark else said
    return Candidates(items, left_out, remark)


def _real(path: Path) -> str:
    """`path` without links to folders in it. The file itself may be a link: two names of one picture are two."""
    try:
        return os.path.join(os.path.realpath(path.parent), path.name)
    except ValueError:  # A NUL byte in a name from a metadata file.
        return str(path)


def _from_lines(root: Path, path: Path) -> Iterator[Candidate]:
    expected = 'lines such as {"file_name": "a.png", "text": "a caption"}'
    data = read_bytes(path, expected=expected, max_bytes=MAX_METADATA_BYTES)
    # Before decoding, so that a byte that is no UTF-8 costs one line.
    for number, line in enumerate(data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n"), start=1):
        if line.strip():
            yield _parse_line(root, f"{path.name}:{number}", line)


def _parse_line(root: Path, place: str, line: bytes) -> Candidate:
    try:
        item = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return Candidate(place, BadRecord("metadata line that is no JSON"))
    return _candidate(root, place, item if isinstance(item, dict) else {})


def _from_table(root: Path, path: Path) -> Iterator[Candidate]:
    expected = f"a table with commas and the columns file_name and {' or '.join(CAPTION_KEYS)}"
    data = read_bytes(path, expected=expected, max_bytes=MAX_METADATA_BYTES)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f'"{path}" is no UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8') from None
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] | None = None
    first_line = 1
    try:
        for row in rows:
            if header is None:
                header = [name.strip() for name in row]
                if len(set(header)) < len(header) or "file_name" not in header or not {*CAPTION_KEYS} & {*header}:
                    shown = ", ".join(header)[:200]
                    raise InputError(f'the first line of "{path}" has the columns {shown!r}; expected {expected}')
            elif row:
                if len(row) != len(header):
                    raise InputError(
                        f'"{path}", line {first_line}: {len(row)} fields, but the header has {len(header)} '
                        f"({', '.join(header)[:200]}); put a text with commas into double quotes"
                    )
                yield _candidate(root, f"{path.name}:{first_line}", dict(zip(header, row, strict=True)))
            first_line = rows.line_num + 1
    except csv.Error as error:
        raise InputError(f'"{path}", line {first_line}: {error}; expected {expected}') from None
    if header is None:
        raise InputError(f'"{path}" is empty; expected {expected}')


def _candidate(root: Path, place: str, item: Mapping[str, Any]) -> Candidate:
    file = item.get("file_name")
    if not isinstance(file, str) or not file or "\0" in file or not _is_encodable(file):
        return Candidate(place, BadRecord("metadata line without a file_name"))
    # Of the names alone, since links in the folder may lead to where a hub's cache keeps its files.
    if not Path(os.path.normpath(root / file)).is_relative_to(root):
        return Candidate(place, BadRecord("metadata file_name outside the folder"))
    texts = [item.get(key) for key in CAPTION_KEYS]
    caption = next((text for text in texts if isinstance(text, str) and text.strip()), None)
    if caption is None:
        return Candidate(file, BadRecord("caption missing", detail=f"no text in {', '.join(CAPTION_KEYS)}"))
    name = item.get("name")
    return Candidate(file, caption, name if isinstance(name, str) and name.strip() else None)


def _is_encodable(file: str) -> bool:
    try:
        file.encode()
    except UnicodeError:
        return False
    return True
