"""Choosing by name: from an explicit dict or, for what the package doesn't hold, by import path."""

import difflib
import importlib
import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from imagen_jax.errors import InputError
from imagen_jax.fields import show

T = TypeVar("T")


# Of difflib's ratio: a letter lost, added or swapped in a word of four is closer than this, another word isn't.
_CLOSE = 0.7
_LONGEST_NAME = 100
_IMPORT_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """Returns ' Did you mean "x"?' for the closest of `choices`, or '' where none is close."""
    close = difflib.get_close_matches(name[:_LONGEST_NAME], list(choices), n=1, cutoff=_CLOSE)
    return f' Did you mean "{close[0]}"?' if close else ""


def is_import_path(name: Any) -> bool:
    """Whether a name is one of the user's own modules and what it holds: "my_project.nets:MyNet"."""
    return isinstance(name, str) and bool(_IMPORT_PATH.fullmatch(name))


def find(table: Mapping[str, T], name: str, *, what: str) -> T:
    """Returns `table[name]` or, for "MODULE:NAME", what that module holds.

    The module is imported, which runs it: `sampling.folder` refuses it in a folder from elsewhere, unless allowed.

    Raises:
      InputError: neither in the table, nor such a module that can be imported and has that name.
    """
    if not is_import_path(name):
        return lookup(table, name, what=what)
    module_name, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise InputError(
            f'{what} "{name}": there is no module "{error.name}"; run the command in the folder that holds it, or '
            "install it (pip install -e FOLDER)"
        ) from error
    except Exception as error:  # the module's own, of every class
        reason = " ".join(str(error).split())[:300]
        failed = f"importing {module_name} failed: {type(error).__name__}: {reason}"
        raise InputError(f'{what} "{name}": {failed}') from error
    if not hasattr(module, attribute):
        names = [each for each in vars(module) if not each.startswith("_")]
        raise InputError(
            f'{what} "{name}": {module_name} has no "{attribute}".{did_you_mean(attribute, names)} It has: '
            f"{', '.join(names)[:300] or 'nothing'}"
        )
    return getattr(module, attribute)


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
