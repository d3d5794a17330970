"""Prompts, from a file or the command line."""

from collections.abc import Sequence
from pathlib import Path

from imagen_jax.errors import InputError


def read_prompts_file(path: str | Path) -> list[str]:
    """The lines of a UTF-8 text file, without empty ones.

    Raises:
      InputError: there is no such file, it isn't UTF-8, or it's empty.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f'--prompts_file: no file "{path}"')
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f'--prompts_file: "{path}" is not UTF-8 (byte {error.start}); save it as UTF-8') from None
    prompts = [line.strip() for line in lines if line.strip()]
    if not prompts:
        raise InputError(f'--prompts_file: "{path}" is empty; expected a prompt a line')
    return prompts


def check_prompts(prompts: Sequence[str]) -> None:
    """Raises InputError for a prompt without text: to draw anything at all is more likely a mistake."""
    if any(not prompt.strip() for prompt in prompts):
        raise InputError("--prompt: a prompt is empty; say what to draw")
