"""The points of a sweep: every combination of the values given for sampling settings."""

import dataclasses
import hashlib
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from imagen_jax.errors import InputError
from imagen_jax.sampling.setting_values import one_each, parse_setting
from imagen_jax.sampling.settings import BY_FLAG, SamplingSettings

_MOST_POINTS = 10_000
# Of a folder's name; file systems take up to 255.
_MOST_BYTES = 200


@dataclasses.dataclass(frozen=True)
class Point:
    """One way to sample.

    Attributes:
      name: of its folder, such as "guidance=1.35,steps=32".
      label: of its dot in a plot: its values.
      values: flag -> one value for all stages, or a list with one a stage, as it was given.
      overrides: flag -> one value a stage, of `Cascade.sample`; None: the stage's own.
    """

    name: str
    label: str
    values: Mapping[str, Any]
    overrides: Mapping[str, list[Any]]


def make_points(given: Mapping[str, Sequence[str]], own: Sequence[SamplingSettings]) -> list[Point]:
    """The points, the last setting's values changing fastest.

    Args:
      given: flag of a setting -> its values as typed: see `parse_setting`. Without any there is one point, "default".
      own: the stages' own settings, where a value isn't for all.

    Raises:
      InputError: a value can't be parsed, is there twice, or isn't one for each stage; or there are too many points.
    """
    choices = []
    for name, texts in given.items():
        if name == "times" and len(texts) > 1 and not any(":" in text for text in texts):
            # Each by itself would be a point of a single step, which nobody means.
            raise InputError(
                f"--times={','.join(texts)}: levels are separated by colons, --times={':'.join(texts)}; commas "
                "separate points"
            )
        parsed = [parse_setting(BY_FLAG[name], text) for text in texts]
        of_stages = [_one_each(name, value, own) for value in parsed]
        if any(values in of_stages[:place] for place, values in enumerate(of_stages)):
            raise InputError(f"--{name}={','.join(texts)}: expected values that are all different")
        choices.append([(name, *each) for each in zip(texts, parsed, of_stages, strict=True)])
    points = []
    num_points = math.prod(map(len, choices))
    if num_points > _MOST_POINTS:
        raise InputError(f"{num_points:,} combinations of settings; expected {_MOST_POINTS:,} points at most")
    for chosen in itertools.product(*choices):
        parts = {name: text.replace("/", "_") for name, text, *_ in chosen}
        # What follows a last slash is the stages' own in all points.
        labels = {name: text.removesuffix("/") for name, text, *_ in chosen}
        varied = [labels[name] for name in labels if len(given[name]) > 1]
        points.append(
            Point(
                name=_folder_name(",".join(f"{name}={text}" for name, text in parts.items()) or "default"),
                label=", ".join(varied or labels.values()) or "default",
                values={name: values if isinstance(value, list) else value for name, _, value, values in chosen},
                # As given: what is a stage's own isn't overridden.
                overrides={name: one_each(BY_FLAG[name], value, [None] * len(own)) for name, _, value, _ in chosen},
            )
        )
    return points


def _folder_name(name: str) -> str:
    """The name itself or, where a file system would not take it, its beginning and some digits of its hash."""
    if len(name.encode()) <= _MOST_BYTES:
        return name
    return f"{name[: _MOST_BYTES // 2]}...{hashlib.sha256(name.encode()).hexdigest()[:12]}"


def _one_each(flag: str, value: Any, own: Sequence[SamplingSettings]) -> list[Any]:
    name = BY_FLAG[flag]
    return one_each(name, value, [getattr(settings, name) for settings in own])
