"""Values of sampling settings as people write them: one for all stages, or one for each."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from imagen_jax.errors import InputError
from imagen_jax.fields import Field
from imagen_jax.sampling.settings import SETTINGS, SamplingSettings


def parse_setting(name: str, text: str) -> Any:
    """Reads the value of a flag: "3" for all stages, or "3/1/1", one a stage; "3/" leaves the others what they are.

    Args:
      name: of the setting, a key of `SETTINGS`.
      text: as typed. Levels and intervals are numbers separated by colons.

    Returns:
      One value, or a list with one a stage, in which None is the stage's own; after a last None all others are too.

    Raises:
      InputError: it can't be read; the message says how it is written.
    """
    setting, parts = SETTINGS[name], ["".join(part.split()) for part in text.split("/")]
    try:
        values = [None if not part and len(parts) > 1 else _parse(setting.field, part) for part in parts]
        if all(value is None for value in values):
            raise ValueError("no value")
        _check_all(name, values)
    except InputError as error:
        raise InputError(f"--{setting.flag}={text}: {error}{_hint(name, text)}") from None
    except ValueError:
        raise InputError(f"--{setting.flag}={text}: expected {expected(name)}{_hint(name, text)}") from None
    return values if len(values) > 1 else values[0]


def expected(name: str) -> str:
    """Returns how the value of a flag is written, in words."""
    setting = SETTINGS[name]
    return f"{setting.written or setting.field.expected}; slashes separate stages"


def _hint(name: str, text: str) -> str:
    """How what is separated by commas would be written."""
    setting = SETTINGS[name]
    if "," not in text:
        return ""
    levels = setting.field.length is not None and ":" not in text
    separator, what = (":", "numbers") if levels else ("/", "stages")
    return f"; {what} are separated by '{separator}', --{setting.flag}={text.replace(',', separator)}"


def one_each(name: str, value: Any, own: Sequence[Any]) -> list[Any]:
    """Returns one value for each stage.

    Args:
      name: of a setting, or of an argument like one.
      value: one for all stages (of a setting of super-resolution alone, for those), or a list with one a stage, where
        None is the stage's own. A last None stands for all stages that are left.
      own: the stages' own values.

    Raises:
      InputError: a list of another length.
    """
    setting = SETTINGS.get(name)
    if isinstance(value, np.ndarray):
        value = value.tolist()
    is_list = isinstance(value, Sequence) and not isinstance(value, str | bytes)
    if is_list and setting and setting.field.length:
        # A value is a sequence itself.
        is_list = any(item is None or isinstance(item, Sequence) for item in value)
    if not is_list:
        count = 1 if setting and setting.super_resolution else 0
        return [*own[:count], *[value] * (len(own) - count)]
    values = list(value)
    if values and values[-1] is None:
        while len(values) > max(1, len(own)) and values[-1] is None:
            values.pop()
        values += [None] * (len(own) - len(values))
    if len(values) != len(own):
        raise InputError(f"{name}: one value for all stages, or one for each of the {len(own)} (got {len(values)})")
    return [mine if given is None else given for given, mine in zip(values, own, strict=True)]


def _check_all(name: str, values: Sequence[Any]) -> None:
    """Raises InputError for a name that there isn't, and another ValueError for numbers out of their bounds."""
    for value in values:
        try:
            SamplingSettings(**({} if value is None else {name: value}))
        except InputError as error:
            # Of numbers it speaks Python, and `expected` the language of the flag.
            raise error if SETTINGS[name].find is not None else ValueError from None


def _parse(field: Field, text: str) -> Any:
    if field.length is not None:
        values = tuple(_finite(part) for part in text.split(":"))
        if not field.length[0] <= len(values) <= field.length[1]:
            raise ValueError("another number of numbers")
        return values
    if field.kind is float:
        return _finite(text)
    if not text:
        raise ValueError("nothing")
    return field.kind(text)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("not finite")
    return value
