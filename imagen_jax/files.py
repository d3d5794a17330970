"""Small files that are never half-written, and JSON whose faults are one clear error."""

import json
import os
from pathlib import Path
from typing import Any

from imagen_jax.errors import InputError


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file whole or not at all: a kill at any moment leaves the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial-{os.getpid()}")
    try:
        partial.write_bytes(data)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 as `write_bytes` does."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as `write_text` does, with sorted keys."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def read_json(path: Path, *, expected: str) -> dict[str, Any]:
    """The object in a JSON file. `expected` says in the messages what should have been there.

    Raises:
      InputError: there is no such file, or it holds something else.
    """
    if not path.is_file():
        raise InputError(f'"{path}" is missing; expected {expected}')
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f'"{path}" is damaged ({error}); expected {expected}') from error
    if not isinstance(value, dict):
        raise InputError(f'"{path}" holds no JSON object; expected {expected}')
    return value
