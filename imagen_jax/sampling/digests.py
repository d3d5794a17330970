"""What a cascade's files were when they were written: sha256 of each, kept in cascade.json."""

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from absl import logging

from imagen_jax.errors import InputError

# A file that has not changed since is hashed once a process: weights may have gigabytes.
_hashed: dict[tuple[str, int, int, int], str] = {}


def hash_file(path: Path) -> str:
    """Returns the hex sha256 of a file's contents.

    Raises:
      InputError: it is missing, or no ordinary file.
    """
    if not path.is_file():
        raise InputError(f'"{path}" is missing; write the cascade again with python -m imagen_jax.export')
    with open(path, "rb") as file:
        status = os.fstat(file.fileno())
        key = (str(path.resolve()), status.st_ino, status.st_size, status.st_mtime_ns)
        if key not in _hashed:
            _hashed[key] = hashlib.file_digest(file, "sha256").hexdigest()
    return _hashed[key]


def hash_files(folder: Path, paths: Iterable[Path]) -> dict[str, str]:
    """Returns the sha256 of each file, by its path relative to `folder`."""
    return {path.relative_to(folder).as_posix(): hash_file(path) for path in paths}


class Digests:
    """The sha256 that cascade.json has of each file; of a cascade of format 1, none."""

    def __init__(self, folder: Path, recorded: Mapping[str, str] | None):
        """Digests by path relative to `folder`; None: of format 1, in which there are none."""
        self._folder, self._recorded = folder, recorded

    @classmethod
    def read(cls, folder: Path, index: Mapping[str, Any]) -> "Digests":
        """Takes them from what cascade.json holds.

        Raises:
          InputError: it should hold some and doesn't.
        """
        if index.get("format_version") == 1:
            return cls(folder, None)
        recorded = index.get("sha256")
        if not isinstance(recorded, dict) or not all(isinstance(digest, str) for digest in recorded.values()):
            raise InputError(
                f'"{folder}/cascade.json" has no sha256 of its files; copy the cascade again, or write it again with '
                "python -m imagen_jax.export"
            )
        return cls(folder, recorded)

    def warn_if_absent(self) -> None:
        """Warns, in one line, where damage of the files can't be found out."""
        if self._recorded is None:
            logging.warning(
                "%s was written by an earlier version, without digests: damage of its files can't be found out; "
                "python -m imagen_jax.export writes it with them",
                self._folder,
            )

    def check(self, path: Path) -> None:
        """Checks that a file of the cascade is what was written.

        Raises:
          InputError: it isn't, or is missing.
        """
        if self._recorded is None:
            return
        name = path.relative_to(self._folder).as_posix()
        expected = self._recorded.get(name)
        if expected is None:
            raise InputError(
                f'"{self._folder}/cascade.json" has no sha256 of {name}; copy the cascade again, or write it again '
                "with python -m imagen_jax.export"
            )
        found = hash_file(path)
        if found != expected:
            raise InputError(
                f'"{path}" is damaged, or was changed: its sha256 is {found[:12]}, not {expected[:12]} as written; '
                "copy the cascade again, or write it again with python -m imagen_jax.export"
            )
