"""Prompts, from a file or the command line."""

from collections.abc import Sequence
from pathlib import Path

from imagen_jax.errors import InputError
from imagen_jax.files import read_bytes, split_lines, user_path

_MAX_BYTES = 64 * 2**20


def read_prompts_file(path: str | Path) -> list[str]:
    """Reads a UTF-8 text file with one prompt per line; empty lines are skipped.

    Raises:
      InputError: there is no such file, it isn't UTF-8, it is too large, or it's empty.
    """
    path = user_path(path)
    if not path.exists():
        raise InputError(f'--prompts_file: no file "{path}"')
    data = read_bytes(path, expected="a text file with one prompt per line", max_bytes=_MAX_BYTES)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f'--prompts_file: "{path}" is not UTF-8 (byte {error.start}); save it as UTF-8') from None
    prompts = [line.strip() for line in split_lines(text) if line.strip()]
    if not prompts:
        raise InputError(f'--prompts_file: "{path}" is empty; expected one prompt per line')
    return prompts


def check_prompts(prompts: Sequence[str]) -> None:
    """Raises InputError for a prompt without text: to draw anything at all is more likely a mistake."""
    if any(not prompt.strip() for prompt in prompts):
        raise InputError("--prompt: a prompt is empty; say what to draw")
