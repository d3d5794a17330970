"""Lists the pictures below a folder, and counts what is there and not used, so that it can be said."""

import heapq
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from imagen_jax.data.records import EXTENSIONS

# Endings of pictures that are not read; what ends otherwise is no picture, and not counted.
UNREAD_EXTENSIONS = (
    *(".heic", ".heif", ".hif", ".jxl", ".jp2", ".j2k", ".jpx", ".jpf", ".jxr", ".mpo"),
    *(".svg", ".svgz", ".eps", ".ai", ".wmf", ".emf", ".psd", ".psb", ".xcf"),
    *(".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".pef", ".srw"),
    *(".ico", ".icns", ".cur", ".tga", ".pcx", ".dds", ".qoi", ".exr", ".hdr", ".dib", ".ppm", ".pgm", ".pbm", ".pnm"),
)

# What a reason is called for one item and for several.
_PLURALS = {
    "hidden file": "hidden files",
    "format that is not read": "files in formats that are not read",
    "pipe, socket or device": "pipes, sockets or devices",
    "link to a folder that is read already": "links to folders that are read already",
    "folder that can't be read": "folders that can't be read",
    "caption file without a picture": "caption files without a picture",
    "caption file beside metadata.jsonl": "caption files beside metadata.jsonl",
    "caption file beside metadata.csv": "caption files beside metadata.csv",
    "picture that metadata.jsonl doesn't name": "pictures that metadata.jsonl doesn't name",
    "picture that metadata.csv doesn't name": "pictures that metadata.csv doesn't name",
}


class LeftOut(NamedTuple):
    """One thing that was found and is not used.

    Attributes:
      file: its path, relative to the folder.
      reason: the same for all of its kind.
      detail: what is particular to it, or "".
    """

    file: str
    reason: str
    detail: str = ""


class Listing(NamedTuple):
    """What is below a folder.

    Attributes:
      pictures: sorted by their parts' names; each begins with the folder as it was given.
      texts: files that end in .txt, in any case.
      left_out: pictures that are not in `pictures`, with the reasons.
    """

    pictures: list[Path]
    texts: list[Path]
    left_out: list[LeftOut]


def list_pictures(root: Path) -> Listing:
    """Lists the pictures below a folder, by their names alone: none is opened.

    Links to files and to folders are followed, but no folder is read twice and no link into a folder that contains
    it. Hidden files and folders (".name"), pipes, sockets and devices are left out; so are formats that are not read.
    """
    walk = _Walk(root)
    walk.run()
    return Listing(sorted(walk.pictures), sorted(walk.texts), sorted(walk.left_out))


def describe_left_out(items: Iterable[LeftOut]) -> str:
    """Says how many items there are of each reason, with an example: '2 hidden files (".a/b.png"), 1 image corrupt'."""
    by_reason: dict[str, list[LeftOut]] = {}
    for item in items:
        by_reason.setdefault(item.reason, []).append(item)
    parts = []
    for reason, same in sorted(by_reason.items(), key=lambda group: -len(group[1])):
        words = _PLURALS.get(reason, reason) if len(same) > 1 else reason
        detail = f": {same[0].detail}" if same[0].detail else ""
        parts.append(f'{len(same)} {words} ("{_printable(same[0].file)}"{detail})')
    return ", ".join(parts)


def _printable(file: str) -> str:
    """A name without line ends, escape sequences and bytes that are no UTF-8, which a log or a terminal would take."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in file)


class _Walk:
    def __init__(self, root: Path):
        self._root = root
        self._real_root = os.path.realpath(root)
        self._seen: set[str] = set()
        self._links: list[Path] = []  # a heap
        self.pictures: list[Path] = []
        self.texts: list[Path] = []
        self.left_out: list[LeftOut] = []

    def run(self) -> None:
        """Reads folders that are there themselves first, so that a link to one never takes its place and its name."""
        self._read_tree(self._root)
        while self._links:
            link = heapq.heappop(self._links)
            target = os.path.realpath(link)
            # A folder above is a loop, and would bring in what lies beside the folder that was asked for.
            if _contains(target, self._real_root) or _contains(target, os.path.realpath(link.parent)):
                self._leave_out(link, "link to a folder that is read already")
            else:
                self._read_tree(link)

    def _read_tree(self, top: Path) -> None:
        folders = [top]
        while folders:
            folder = folders.pop()
            real = os.path.realpath(folder)
            if real in self._seen:
                self._leave_out(folder, "link to a folder that is read already")
                continue
            self._seen.add(real)
            for entry in self._entries(folder):
                path = folder / entry.name
                if entry.name.startswith("."):
                    self._count_hidden(path, entry)
                elif entry.is_dir(follow_symlinks=False):
                    folders.append(path)
                elif entry.is_symlink() and path.is_dir():
                    heapq.heappush(self._links, path)
                else:
                    self._add_file(path)

    def _entries(self, folder: Path) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(folder) as entries:
                return list(entries)
        except OSError as error:
            self._leave_out(folder, "folder that can't be read", detail=error.strerror or "")
            return []

    def _add_file(self, path: Path) -> None:
        extension = path.suffix.lower()
        if extension in UNREAD_EXTENSIONS:
            self._leave_out(path, "format that is not read")
        elif extension in EXTENSIONS and _is_special(path):
            self._leave_out(path, "pipe, socket or device")
        elif extension in EXTENSIONS:
            self.pictures.append(path)
        elif extension == ".txt":
            self.texts.append(path)

    def _count_hidden(self, path: Path, entry: os.DirEntry[str]) -> None:
        for hidden in _files_below(path) if entry.is_dir(follow_symlinks=False) else [path]:
            if hidden.suffix.lower() in (*EXTENSIONS, *UNREAD_EXTENSIONS):
                self._leave_out(hidden, "hidden file")

    def _leave_out(self, path: Path, reason: str, *, detail: str = "") -> None:
        self.left_out.append(LeftOut(path.relative_to(self._root).as_posix(), reason, detail))


def _contains(folder: str, path: str) -> bool:
    return os.path.commonpath((folder, path)) == folder


def _files_below(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder):
        yield from (Path(parent, name) for name in names)


def _is_special(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except OSError:  # A link to nothing: a picture that is missing.
        return False
    return not stat.S_ISREG(mode)
