"""Choosing by name from an explicit dict."""

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

from imagen_jax.errors import InputError

T = TypeVar("T")


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """' Did you mean "x"?' for the closest of `choices`, or '' where none is close."""
    close = difflib.get_close_matches(name, list(choices), n=1)
    return f' Did you mean "{close[0]}"?' if close else ""


def lookup(table: Mapping[str, T], name: str, *, what: str) -> T:
    """`table[name]`.

    Raises:
      InputError: no such name; the message lists the choices. `what` names the kind of thing ("sampler").
    """
    if name not in table:
        choices = ", ".join(sorted(table))
        raise InputError(f'unknown {what} "{name}"; choose from: {choices}.{did_you_mean(name, table)}')
    return table[name]
