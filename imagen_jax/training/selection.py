"""Choosing parameters by their paths, such as "down_0/attention_1/query/kernel"."""

import difflib
import fnmatch
from collections.abc import Sequence
from typing import Any

from flax.traverse_util import flatten_dict, unflatten_dict

from imagen_jax.errors import InputError
from imagen_jax.fields import show
from imagen_jax.types import Params

_SHOWN_PATHS = 5


def select(params: Params, patterns: Sequence[str]) -> tuple[Params, Params]:
    """Divides parameters into those whose path fits one of the patterns, and the others.

    Args:
      params: arrays or shapes.
      patterns: paths in which * stands for any text, "/" included, ? for a character, and [ab] for a or b.

    Raises:
      InputError: a pattern that no path fits; the message lists the nearest paths.
    """
    flat: dict[str, Any] = flatten_dict(dict(params), sep="/")
    chosen: set[str] = set()
    for pattern in patterns:
        fits = fnmatch.filter(flat, pattern)
        if not fits:
            raise InputError(
                f"config.train.trainable: no parameter's path fits {show(pattern)}, in which * stands for any text; "
                f"the nearest of {len(flat)} paths: {', '.join(_nearest(pattern, list(flat)))}"
            )
        chosen.update(fits)
    parts = ({path: leaf for path, leaf in flat.items() if (path in chosen) == wanted} for wanted in (True, False))
    first, second = (unflatten_dict(part, sep="/") for part in parts)
    return first, second


def union(a: Params, b: Params) -> Params:
    """Puts together what `select` has divided."""
    return unflatten_dict(flatten_dict(dict(a)) | flatten_dict(dict(b)))


def _nearest(pattern: str, paths: Sequence[str]) -> list[str]:
    wanted = pattern.strip("*/")
    # By parts of paths: a pattern is often the name of a layer, of which a path has many.
    parts = {part for path in paths for part in _prefixes(path)}
    close = difflib.get_close_matches(wanted, sorted(parts), n=3, cutoff=0.0)
    found = [path for part in close for path in sorted(paths, key=len) if part in path]
    return list(dict.fromkeys(found))[:_SHOWN_PATHS]


def _prefixes(path: str) -> list[str]:
    """The names in a path, and the path from each of them on."""
    names = path.split("/")
    return ["/".join(names[first:last]) for first in range(len(names)) for last in range(first + 1, len(names) + 1)]
