"""What a network is told besides z and its noise level: one file for each kind, see `base.Condition`."""

import inspect
from collections.abc import Sequence
from typing import Any

from imagen_jax.conditions.base import Condition
from imagen_jax.conditions.low_res import LowRes
from imagen_jax.conditions.text import Text
from imagen_jax.errors import InputError
from imagen_jax.registry import find, is_import_path

__all__ = ["Condition", "LowRes", "Text", "find_condition", "make_conditions"]

_METHODS = ("given", "seen", "from_record", "default", "for_training", "for_sampling", "null")


def make_conditions(
    *,
    max_tokens: int,
    text_width: int,
    image_size: int,
    low_res_size: int | None,
    drop_rate: float = 0.0,
    max_aug_level: float = 1.0,
    own: Sequence[str] = (),
) -> tuple[Condition, ...]:
    """Returns what the network of a stage is told.

    Args:
      max_tokens, text_width, drop_rate: see `Text`.
      image_size: rows of an image; low_res_size: of the stage before's, 0 or None for a base stage.
      max_aug_level: see `LowRes`.
      own: see `find_condition`.

    Raises:
      InputError: see `find_condition`.
    """
    text = Text(max_tokens, text_width, drop_rate=drop_rate)
    low_res = [LowRes(image_size // low_res_size, max_aug_level=max_aug_level)] if low_res_size else []
    return text, *low_res, *map(find_condition, own)


def find_condition(path: str) -> Condition:
    """A condition of the caller's own.

    Args:
      path: of an instance, or of a class that is made without arguments: "my_project.conditions:Style".

    Raises:
      InputError: there is none, or it lacks a method of `Condition`.
    """
    if not is_import_path(path):
        raise InputError(
            f'"{path}" is no condition of your own; expected MODULE:NAME, as in my_project.conditions:Style'
        )
    found: Any = find({}, path, what="condition")
    if inspect.isclass(found):
        try:
            found = found()
        except Exception as error:  # its own, of every class
            reason = " ".join(str(error).split())[:300]
            raise InputError(f'condition "{path}" can\'t be made without arguments: {reason}') from error
    if lacking := [name for name in _METHODS if not hasattr(found, name)]:
        raise InputError(f'condition "{path}" has no method "{lacking[0]}"; see imagen_jax.conditions.Condition')
    return found
