"""Lines that fit a terminal: broken between words, where a terminal itself would break in the middle of one."""

import shutil
import sys
import textwrap
from typing import TextIO

_INDENT = "  "


def fit(text: str, stream: TextIO) -> str:
    """Returns `text` with lines that are no longer than the terminal that `stream` is, or as it is where it is none.

    Words longer than a line, such as paths, stay whole, so that they can be copied.
    """
    if not stream.isatty():
        return text
    width = shutil.get_terminal_size((80, 24)).columns
    return "\n".join(
        textwrap.fill(line, width, subsequent_indent=_INDENT, break_long_words=False, break_on_hyphens=False)
        if len(line) > width
        else line
        for line in text.split("\n")
    )


def say(text: str) -> None:
    """Prints a main's result on standard output, fitted to the terminal if there is one."""
    print(fit(text, sys.stdout), flush=True)
