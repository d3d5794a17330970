"""What a value may be: its type, its bounds and what it is for, as data from which checks, messages and pages come."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from imagen_jax.errors import InputError

_LONGEST_SHOWN = 120


@dataclasses.dataclass(frozen=True)
class Field:
    """One setting: the values that it takes, and a sentence that explains it.

    Attributes:
      kind: int, float (whole numbers are welcome), bool or str.
      help: one line that says what the setting does, with its unit.
      lower, upper: bounds of a number, both allowed unless `excluded` names them.
      excluded: "", "lower", "upper" or "both".
      also: a number outside the bounds that is allowed all the same, such as 0 for "none".
      length: None for one value; (at least, at most) for a tuple or list of so many values of that kind.
      filled: of a text: whether it must have characters other than spaces.
      is_path: a text that names a file or folder, in which "~" is the home folder.
      example: how a tuple is written, for messages.
    """

    kind: type
    help: str
    lower: float = -math.inf
    upper: float = math.inf
    excluded: str = ""
    also: float | None = None
    length: tuple[int, int] | None = None
    filled: bool = False
    is_path: bool = False
    example: str = ""

    def check(self, name: str, value: Any) -> None:
        """Raises InputError, which calls the value `name`, where this field can't have it."""
        if self.length is None:
            if not self._takes(value):
                raise InputError(f"{name} must be {self.expected} (got {show(value)}){self._hint(value)}")
            return
        at_least, at_most = self.length
        if not isinstance(value, tuple | list):
            raise InputError(f"{name} must be {self.expected} (got {show(value)}, which is no tuple)")
        if not at_least <= len(value) <= at_most:
            raise InputError(f"{name} must be {self.expected} (got {len(value)}: {show(tuple(value))})")
        for entry in value:
            if not self._takes(entry):
                whole = f", {show(entry)} among them" if len(value) > 1 else ""
                raise InputError(f"{name} must be {self.expected} (got {show(tuple(value))}{whole})")

    @property
    def expected(self) -> str:
        """The values that are allowed, in words: "a whole number from 1 to 8,192"."""
        if self.length is None:
            return f"{self._one}{f', or {self.also:g}' if self.also is not None else ''}"
        at_least, at_most = self.length
        count = (
            f"{at_least}" if at_least == at_most else f"{at_least} to {at_most:,}" if at_least else f"up to {at_most:,}"
        )
        example = f", such as {self.example}" if self.example else ""
        return f"a tuple of {count} entries, each {self._one}{example}"

    @property
    def _one(self) -> str:
        if self.kind is bool:
            return "True or False"
        if self.kind is str:
            return "a text that is not empty" if self.filled else "a text"
        noun = "a whole number" if self.kind is int else "a number"
        low, high = number(self.lower), number(self.upper)
        return {
            "": f"{noun} from {low} to {high}",
            "lower": f"{noun} above {low}, up to {high}",
            "upper": f"{noun} from {low} to below {high}",
            "both": f"{noun} between {low} and {high}, both excluded",
        }[self.excluded]

    def _takes(self, value: Any) -> bool:
        # Exact types: True is no number, and what is not plain Python can't be written to config.json.
        if self.kind is bool:
            return type(value) is bool
        if self.kind is str:
            return type(value) is str and bool(value.strip() or not self.filled) and _is_writable(value)
        if type(value) is not int and not (self.kind is float and type(value) is float):
            return False
        if self.also is not None and value == self.also:
            return True
        above = value > self.lower if self.excluded in ("lower", "both") else value >= self.lower
        below = value < self.upper if self.excluded in ("upper", "both") else value <= self.upper
        return above and below

    def _hint(self, value: Any) -> str:
        if self.kind is int and type(value) is float and value.is_integer() and self._takes(int(value)):
            return f"; write {int(value)}"
        if self.kind is int and type(value) is bool:
            return f"; write {int(value)} for the number"
        return ""


def _is_writable(text: str) -> bool:
    """Whether the text can be written to a file, and a path made of it."""
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


def number(value: float) -> str:
    """A number as people write it: 2,500,000 and 0.5."""
    return f"{int(value):,}" if float(value).is_integer() else f"{value:g}"


def nearest_multiples(value: int, multiple: int) -> str:
    """Returns '8 or 16' for 12 and 8, '8' for 5 and 8."""
    below, above = value // multiple * multiple, -(-value // multiple) * multiple
    return " or ".join(str(size) for size in sorted({below, above}) if size > 0)


def show(value: Any) -> str:
    """A value on one line for a message, shortened, with its type where that is no plain Python one."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # a number of more digits than Python prints, or an object's own fault
        return f"a value of type {type(value).__name__}"
    if len(text) > _LONGEST_SHOWN:
        text = f"{text[: _LONGEST_SHOWN - 20]} ... ({len(text):,} characters)"
    plain = (int, float, bool, str, bytes, list, tuple, dict, set, complex, type(None))
    return text if type(value) in plain else f"{text}, of type {type(value).__name__}"


def check_fields(fields: Mapping[str, Field], values: Mapping[str, Any], *, prefix: str = "") -> None:
    """Checks each of `values` that `fields` describes. Messages call it `prefix` + its name.

    Raises:
      InputError: the first that its field can't have.
    """
    for name, field in fields.items():
        if name in values:
            field.check(f"{prefix}{name}", values[name])
