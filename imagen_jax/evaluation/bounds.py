"""Checks of numbers that say how many: neighbours, subsets, resamples, images of a batch."""

import operator
from typing import Any

from imagen_jax.errors import InputError

# Below it, the ends of an interval are those of the extreme resamples.
LEAST_RESAMPLES = 10
MOST_RESAMPLES = 100_000


def check_count(name: str, value: Any, *, least: int, most: int | None = None) -> int:
    """Returns `value` as an int.

    Args:
      name: of the argument, for the message.
      least, most: the bounds, which are allowed too; None: there is no upper one.

    Raises:
      InputError: it is no whole number, or outside the bounds.
    """
    try:
        number = operator.index(value)  # numpy's integers too, but neither 3.0 nor "3"
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or number < least or (most is not None and number > most):
        bounds = f"from {least} to {most:,}" if most is not None else f"of at least {least}"
        raise InputError(f"{name} is {value!r}; expected a whole number {bounds}")
    return number


def check_resamples(name: str, value: Any) -> int:
    """Returns a number of bootstrap resamples as an int; 0 is none.

    Of fewer than ten there are no 2.5% below or above an interval.

    Raises:
      InputError: another number than 0 or 10 to 100,000.
    """
    if not isinstance(value, bool) and value == 0:
        return 0
    try:
        return check_count(name, value, least=LEAST_RESAMPLES, most=MOST_RESAMPLES)
    except InputError as error:
        raise InputError(f"{error}, or 0 for no interval") from None
