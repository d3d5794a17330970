"""Types and ranges of what is passed to `Cascade.sample`, checked before anything is read or compiled."""

import math
import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np

from imagen_jax.errors import InputError
from imagen_jax.text.embeddings import Embeddings

MAX_SEED = 2**32 - 1
# Image k's noise is drawn with fold_in(key, k), which takes 32 bits.
_MAX_INDEX = 2**31 - 1


def is_whole(value: Any) -> bool:
    """Returns whether `value` is an integer of Python or NumPy; True and 2.0 are none."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool | np.bool_)


def is_number(value: Any) -> bool:
    """Returns whether `value` is a finite real number of Python or NumPy; True and "2" are none."""
    if not isinstance(value, numbers.Real) or isinstance(value, bool | np.bool_):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer of hundreds of digits
        return False


def check_whole(name: str, value: Any, *, smallest: int, largest: int, example: str) -> int:
    """Returns `value` as Python's int.

    Args:
      name: of the argument, for the message.
      smallest, largest: the range, both included.
      example: of a right value, as it would be written.

    Raises:
      InputError: it is no whole number, or out of range.
    """
    if not is_whole(value) or not smallest <= value <= largest:
        bounds = f"in [{smallest}, {largest}]" if largest < _MAX_INDEX or name == "seed" else f"at least {smallest}"
        raise InputError(f"{name} must be a whole number {bounds}, such as {example} (got {value!r:.80})")
    return int(value)


def check_prompts_argument(name: str, prompts: Any) -> Sequence[str] | Embeddings:
    """Returns prompts as a list, or embeddings as they are.

    Args:
      name: of the argument, for the message.

    Raises:
      InputError: one string, nothing, or something in it that is no string; a prompt without text.
    """
    if isinstance(prompts, Embeddings):
        return prompts
    if isinstance(prompts, str | bytes):
        raise InputError(f'{name} must be a list of captions, such as ["red apple"] (got one string, {prompts!r:.80})')
    if isinstance(prompts, dict) or not hasattr(prompts, "__iter__"):
        raise InputError(f'{name} must be a list of captions, such as ["red apple"] (got {prompts!r:.80})')
    found = list(prompts)
    if not found:
        raise InputError(f'{name} is empty; expected at least one caption, such as ["red apple"]')
    for index, prompt in enumerate(found):
        if not isinstance(prompt, str):
            raise InputError(f"{name}[{index}] must be a string (got {prompt!r:.80})")
    return [str(prompt) for prompt in found]


def check_count(name: str, value: Any, *, example: str, smallest: int = 1) -> int:
    """Returns `value` as Python's int, `smallest` at least: see `check_whole`."""
    return check_whole(name, value, smallest=smallest, largest=_MAX_INDEX, example=example)


def check_seed(value: Any) -> int:
    """Returns a seed as Python's int: see `check_whole`."""
    return check_whole("seed", value, smallest=0, largest=MAX_SEED, example="0")
