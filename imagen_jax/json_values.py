"""Values out of JSON that somebody else may have written: their types checked, and shown in messages cut short."""

import reprlib
from collections.abc import Mapping
from typing import Any

_short = reprlib.Repr()
_short.maxstring, _short.maxother, _short.maxlevel = 80, 80, 3


class WrongValue(ValueError):
    """The message says which value of a record is wrong, and what was expected."""


def shown(value: Any) -> str:
    """Returns `repr(value)`, shortened: for messages, whatever the value is."""
    return _short.repr(value)


def get_text(record: Any, key: str) -> str:
    """Returns `record[key]`, a valid text. Raises WrongValue if it is something else, or isn't there."""
    value = _get(record, key)
    if not isinstance(value, str) or not is_text(value):
        raise WrongValue(f"{key} is {shown(value)}; expected a text")
    return value


def get_number(record: Any, key: str, *, least: int, most: int) -> int:
    """Returns `record[key]`, a whole number in these bounds. Raises WrongValue if it is another, or not there."""
    value = _get(record, key)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise WrongValue(f"{key} is {shown(value)}; expected a whole number from {least} to {most}")
    return value


def get_list(record: Any, key: str) -> list[Any]:
    """Returns `record[key]`, a list with something in it. Raises WrongValue if it is something else, or isn't there."""
    value = _get(record, key)
    if not isinstance(value, list) or not value:
        raise WrongValue(f"{key} is {shown(value)}; expected a list with something in it")
    return value


def get_object(record: Any, key: str) -> dict[str, Any]:
    """Returns `record[key]`, an object. Raises WrongValue if it is something else, or isn't there."""
    value = _get(record, key)
    if not isinstance(value, dict):
        raise WrongValue(f"{key} is {shown(value)}; expected an object")
    return value


def is_text(value: str) -> bool:
    """Tells whether a text can be written as UTF-8: JSON can hold halves of characters, which can't."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _get(record: Any, key: str) -> Any:
    if not isinstance(record, Mapping):
        raise WrongValue(f"{shown(record)} in place of an object with {key}")
    if key not in record:
        raise WrongValue(f"{key} is missing")
    return record[key]
