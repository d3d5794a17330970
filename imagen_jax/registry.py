"""Choosing by name from an explicit dict."""

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

from imagen_jax.errors import InputError
from imagen_jax.fields import show

T = TypeVar("T")


# Of difflib's ratio: a letter lost, added or swapped in a word of four is closer than this, another word isn't.
_CLOSE = 0.7
_LONGEST_NAME = 100


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """Returns ' Did you mean "x"?' for the closest of `choices`, or '' where none is close."""
    close = difflib.get_close_matches(name[:_LONGEST_NAME], list(choices), n=1, cutoff=_CLOSE)
    return f' Did you mean "{close[0]}"?' if close else ""


def lookup(table: Mapping[str, T], name: str, *, what: str) -> T:
    """Returns `table[name]`.

    Raises:
      InputError: no such name; the message lists the choices. `what` names the kind of thing ("sampler").
    """
    if not isinstance(name, str):
        raise InputError(f"{what} must be a text (got {show(name)}); choose from: {', '.join(sorted(table))}")
    if name not in table:
        choices = ", ".join(sorted(table))
        shown = f'"{name}"' if name.isprintable() and len(name) <= _LONGEST_NAME else show(name)
        raise InputError(f"unknown {what} {shown}; choose from: {choices}.{did_you_mean(name, table)}")
    return table[name]
