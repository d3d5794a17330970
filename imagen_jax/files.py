"""Small files that are never half-written, text as people write it, and JSON whose faults are one clear error."""

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from imagen_jax import storage
from imagen_jax.errors import InputError

# The largest JSON that is read unless a caller asks for more. Parsed it takes up to ten times as much memory.
_MAX_JSON_BYTES = 64 * 2**20


def user_path(path: str | os.PathLike[str]) -> Path:
    """A path as people type it: "~" is the home folder, also where no shell has replaced it (--out=~/pictures).

    Raises:
      InputError: "~NAME" of nobody here.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise InputError(f'"{path}": {error}; write the folder\'s full path') from None


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file whole or not at all: a kill or a power cut at any moment leaves the old one or the new one.

    Raises:
      StorageError: the disk is full, read-only or gone.
    """
    with storage.writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.partial-{os.getpid()}")
        try:
            with open(partial, "wb") as file:
                file.write(data)
                sync(file)
            os.replace(partial, path)
            sync_folder(path.parent)
        finally:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)


def sync(file: Any) -> None:
    """Has what was written to an open file reach the disk, so that a rename that follows can't outlive its contents."""
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Has the names in a folder reach the disk, so that a rename in it lasts; nothing where the system can't."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        with contextlib.suppress(OSError):  # file systems of buckets refuse it
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 as `write_bytes` does."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as `write_text` does, with sorted keys."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def split_lines(text: str) -> list[str]:
    r"""The lines of a text, split at \n, \r\n and \r alone.

    `str.splitlines` also splits at form feeds and Unicode's separators, which to whoever wrote a line are part of it.
    """
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def read_bytes(path: Path, *, expected: str, max_bytes: int) -> bytes:
    """The contents of an ordinary file that somebody else may have written.

    Args:
      expected: says in the messages what should have been there.
      max_bytes: a larger file is refused before it is read.

    Raises:
      InputError: there is no such file; it is a folder, a pipe or a device; it is too large or can't be read.
      StorageError: the disk is gone.
    """
    if not path.exists():
        raise InputError(f'"{path}" is missing; expected {expected}')
    if not path.is_file():
        raise InputError(f'"{path}" is no ordinary file; expected {expected}')
    try:
        if (size := path.stat().st_size) > max_bytes:
            raise InputError(
                f'"{path}" has {size:,} bytes, more than the {max_bytes:,} that are read; expected {expected}'
            )
        return path.read_bytes()
    except OSError as error:
        if storage.describe_failure(error):
            raise
        raise InputError(f'"{path}" can\'t be read ({error.strerror}); expected {expected}') from None


def parse_json(data: bytes | str, *, where: str, expected: str) -> Any:
    """The value of a JSON text. `where` names it in the messages, and `expected` says what it should have been.

    Raises:
      InputError: it is no JSON in UTF-8, or nested too deeply.
    """
    try:
        return json.loads(data)
    except RecursionError:
        raise InputError(f"{where} is damaged (nested too deeply); expected {expected}") from None
    except ValueError as error:  # UnicodeDecodeError and JSONDecodeError
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{where} is damaged ({reason}); expected {expected}") from None


def read_json(path: Path, *, expected: str, max_bytes: int = _MAX_JSON_BYTES) -> dict[str, Any]:
    """The object in a JSON file. `expected` says in the messages what should have been there.

    Raises:
      InputError: there is no such file, it is larger than `max_bytes`, or it holds something else.
    """
    data = read_bytes(path, expected=expected, max_bytes=max_bytes)
    value = parse_json(data, where=f'"{path}"', expected=expected)
    if not isinstance(value, dict):
        raise InputError(f'"{path}" holds no JSON object; expected {expected}')
    return value
