"""The points of a sweep: every combination of the values given for sampling settings."""

import dataclasses
import hashlib
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from imagen_jax.errors import InputError
from imagen_jax.sampling.settings import SamplingSettings

# What one value, where it isn't one a stage, is for; of the other settings for all stages.
_BASE_ONLY, _SUPER_RESOLUTION_ONLY = ("guidance",), ("aug_level",)
_MOST_POINTS = 10_000
# Of a folder's name; file systems take up to 255.
_MOST_BYTES = 200
_FIELDS = {"guidance": "guidance_weight", "steps": "num_steps"}


@dataclasses.dataclass(frozen=True)
class Point:
    """One way to sample.

    Attributes:
      name: of its folder, such as "guidance=1.35,steps=32".
      label: of its dot in a plot: its values.
      values: setting -> what was given for it: one value, or a list with one a stage.
      overrides: setting -> one value a stage, of `Cascade.sample`.
    """

    name: str
    label: str
    values: Mapping[str, Any]
    overrides: Mapping[str, list[Any]]


def make_points(
    given: Mapping[str, Sequence[str]],
    parse: Mapping[str, Callable[[str], Any]],
    own: Sequence[SamplingSettings],
) -> list[Point]:
    """The points, the last setting's values changing fastest.

    Args:
      given: setting -> its values as typed, "3" or, one a stage, "3/1/1". Without any there is one point, "default".
      parse: setting -> how a value is parsed.
      own: the stages' own settings, where a value isn't for all.

    Raises:
      InputError: a value can't be parsed, is there twice, or isn't one for each stage; or there are too many points.
    """
    choices = []
    for name, given_texts in given.items():
        texts = ["".join(text.split()) for text in given_texts]
        if not texts or not all(texts):
            raise InputError(
                f"--{name}={','.join(given_texts)}: expected values separated by commas, none of them empty"
            )
        parsed = [_parse(name, text, parse[name], len(own)) for text in texts]
        if any(values in parsed[:place] for place, values in enumerate(parsed)):
            raise InputError(f"--{name}={','.join(texts)}: expected values that are all different")
        if name == "times" and len(texts) > 1 and not any(":" in text for text in texts):
            # Each by itself would be a point of a single step, which nobody means.
            raise InputError(
                f"--times={','.join(texts)}: levels are separated by colons, --times={':'.join(texts)}; commas "
                "separate points"
            )
        choices.append([(name, text, values) for text, values in zip(texts, parsed, strict=True)])
    points = []
    num_points = math.prod(map(len, choices))
    if num_points > _MOST_POINTS:
        raise InputError(f"{num_points:,} combinations of settings; expected {_MOST_POINTS:,} points at most")
    for chosen in itertools.product(*choices):
        parts = {name: text.replace("/", "_") for name, text, _ in chosen}
        varied = [parts[name] for name in parts if len(given[name]) > 1]
        points.append(
            Point(
                name=_folder_name(",".join(f"{name}={text}" for name, text in parts.items()) or "default"),
                label=", ".join(varied or parts.values()) or "default",
                values={name: values if len(values) > 1 else values[0] for name, _, values in chosen},
                overrides={name: _one_each(name, values, own) for name, _, values in chosen},
            )
        )
    return points


def _folder_name(name: str) -> str:
    """The name itself or, where a file system would not take it, its beginning and some digits of its hash."""
    if len(name.encode()) <= _MOST_BYTES:
        return name
    return f"{name[: _MOST_BYTES // 2]}...{hashlib.sha256(name.encode()).hexdigest()[:12]}"


def _parse(name: str, text: str, parse: Callable[[str], Any], num_stages: int) -> list[Any]:
    try:
        values = [parse(part) for part in text.split("/")]
    except ValueError:
        raise InputError(
            f'--{name}: "{text}" can\'t be read; expected values separated by commas, each one value, or one a stage '
            "separated by slashes (3,5 or 3/1/1,5/1/1)"
        ) from None
    if len(values) not in (1, num_stages):
        raise InputError(
            f'--{name}: "{text}" has {len(values)} values; expected one, or one for each of {num_stages} stages'
        )
    return values


def _one_each(name: str, values: list[Any], own: Sequence[SamplingSettings]) -> list[Any]:
    stages = [getattr(settings, _FIELDS.get(name, name)) for settings in own]
    if len(values) == len(own):
        return values
    if name in _BASE_ONLY:
        return [*values, *stages[1:]]
    if name in _SUPER_RESOLUTION_ONLY:
        return [stages[0], *values * (len(own) - 1)]
    return values * len(own)
