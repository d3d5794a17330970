"""What a network is told besides z and its noise level: one file for each kind, see `base.Condition`."""

import inspect
from typing import Any

from imagen_jax.conditions.base import Condition
from imagen_jax.conditions.low_res import LowRes
from imagen_jax.conditions.text import Text
from imagen_jax.errors import InputError
from imagen_jax.registry import find

__all__ = ["Condition", "LowRes", "Text", "find_condition"]


def find_condition(path: str) -> Condition:
    """A condition of the caller's own.

    Args:
      path: of an instance, or of a class that is made without arguments: "my_project.conditions:Style".

    Raises:
      InputError: there is none, or it lacks a method of `Condition`.
    """
    found: Any = find({}, path, what="condition")
    if inspect.isclass(found):
        try:
            found = found()
        except Exception as error:  # its own, of every class
            reason = " ".join(str(error).split())[:300]
            raise InputError(f'condition "{path}" can\'t be made without arguments: {reason}') from error
    lacking = [name for name in ("given", "seen", "for_training", "for_sampling", "null") if not hasattr(found, name)]
    if lacking:
        raise InputError(f'condition "{path}" has no method "{lacking[0]}"; see imagen_jax.conditions.Condition')
    return found
