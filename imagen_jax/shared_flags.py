"""Flags that several mains share, and the kinds of values that they have."""

import contextlib
import itertools
import math
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
from absl import flags

from imagen_jax.errors import InputError
from imagen_jax.files import user_path

# A flag that a function below defines belongs to the main that calls it, whose --help lists it.
flags.disclaim_key_flags()


# The names of flags -> the heading that --help shows them under.
_GROUPS: dict[str, str] = {}


@contextlib.contextmanager
def group(title: str) -> Iterator[None]:
    """Puts the flags that are defined inside under a heading of --help. Without one a flag's kind decides."""
    before = set(flags.FLAGS)
    yield
    _GROUPS.update(dict.fromkeys(set(flags.FLAGS) - before, title))


def group_of(name: str) -> str | None:
    """Returns the heading that a flag was defined under; None where there was none."""
    return _GROUPS.get(name)


class PathParser(flags.ArgumentParser):
    """Parses "~/pictures" to Path("/home/NAME/pictures")."""

    syntactic_help = "a path"

    def parse(self, argument: str | Path) -> Path:
        """Returns the path. Raises ValueError where there is none."""
        if not str(argument).strip():
            raise ValueError("expected a path; leave the flag out for none")
        return user_path(argument)


def define_path(name: str, default: str | None, help: str, *, required: bool = False) -> flags.FlagHolder[Any]:
    """Defines a flag whose value is a `Path`, or None where it isn't given; "~" in it is the user's home folder.

    Args:
      name, default, help, required: as of absl's DEFINE_string.
    """
    return flags.DEFINE(PathParser(), name, default, help, required=required)


def levels(text: str) -> tuple[float, ...]:
    """Returns (1.0, 0.7, 0.4) for "1:0.7:0.4", to parse --times with. Raises ValueError where they don't fall."""
    values = _numbers(text)
    if not all(0 <= t <= 1 for t in values) or not all(a > b for a, b in itertools.pairwise(values)):
        raise ValueError("levels that do not fall")
    return values


def interval(text: str) -> tuple[float, ...]:
    """Returns (0.2, 0.8) for "0.2:0.8", to parse --guidance_interval with. Raises ValueError for no interval."""
    values = _numbers(text)
    if len(values) != 2 or not 0 <= values[0] < values[1] <= 1:
        raise ValueError("no interval")
    return values


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(number) for number in text.split(":"))


_SEPARATED = "; commas separate the stages"
_EXPECTED: dict[Any, str] = {
    int: "whole numbers separated by commas",
    float: "numbers separated by commas",
    levels: f"levels falling from 1 (noise) towards 0 (clean), separated by colons: 1:0.7:0.4:0.1{_SEPARATED}",
    interval: f"FROM:TO, two times with 0 <= FROM < TO <= 1, such as 0.2:0.8{_SEPARATED}",
}


def expected_by(parse: Callable[[str], Any]) -> str:
    """Returns what a parser of one value expects, in words."""
    return _EXPECTED.get(parse, "texts separated by commas")


def one_or_list(flag: flags.FlagHolder, parse: Callable[[str], Any]) -> Any:
    """The value of a list flag, parsed, as one value, or as a list of them; None where it isn't given.

    Args:
      parse: int, float, str, `levels` or `interval`.

    Raises:
      InputError: something in it can't be parsed.
    """
    if flag.value is None:
        return None
    given = ",".join(flag.value)
    try:
        values = [parse(text) for text in flag.value]
        if not all(map(_is_finite, values)):
            raise ValueError("not finite")
    except ValueError:
        raise InputError(f"--{flag.name}={given}: expected {expected_by(parse)}") from None
    if not values:
        raise InputError(f"--{flag.name}= is empty; leave it out for each stage's own")
    if parse is levels and len(values) > 1 and len(set(values)) > 1 and all(len(value) == 1 for value in values):
        colons = ":".join(flag.value)
        raise InputError(f"--{flag.name}={given}: levels are separated by colons, --{flag.name}={colons}{_SEPARATED}")
    return values[0] if len(values) == 1 else values


def _is_finite(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def flag_values() -> dict[str, str]:
    """Of the main's own flags, as text: what several hosts must agree on."""
    return {flag.name: str(flag.value) for flag in flags.FLAGS.get_flags_for_module(sys.argv[0])}


def define_encoder_flags() -> Callable[[], dict[str, Any]]:
    """Defines --encoder_dtype, --encoder_devices and --encoder_shards, of a main that runs the text encoder.

    Returns:
      A function that reads them, as keyword arguments of `load_encoder`. It raises InputError for devices that aren't
      there.
    """
    with group("Text encoder"):
        dtype = flags.DEFINE_enum(
            "encoder_dtype", "float32", ["float32", "bfloat16"], "Type that the text encoder computes in."
        )
        devices = flags.DEFINE_list(
            "encoder_devices",
            None,
            "Where the text encoder runs: cpu, or numbers of devices; default: as few as hold it.",
        )
        shards = flags.DEFINE_integer(
            "encoder_shards",
            None,
            "Devices that share one copy of the text encoder's weights; default: as few as hold it.",
            lower_bound=1,
        )
    return lambda: {"dtype": dtype.value, "devices": _devices(devices), "shards": shards.value}


def define_device_flags() -> Callable[[], dict[str, Any]]:
    """Defines --devices and --image_shards, of a main that samples.

    Returns:
      A function that reads them, as keyword arguments of `Cascade.sample`. It raises InputError for what is no number.
    """
    with group("Devices"):
        devices = flags.DEFINE_integer(
            "devices", None, "How many of this machine's devices to sample on, at least 1; default: all."
        )
        shards = flags.DEFINE_list(
            "image_shards",
            ["1"],
            "How many devices share each image, by rows, for memory. One value for all stages, or one per stage.",
        )
    return lambda: {"devices": devices.value, "image_shards": one_or_list(shards, int)}


def _devices(flag: flags.FlagHolder) -> list[Any] | None:
    if flag.value is None:
        return None
    given = f"--{flag.name}={','.join(flag.value)}"
    if flag.value == ["cpu"]:
        try:
            return jax.local_devices(backend="cpu")[:1]
        except RuntimeError:
            raise InputError(
                f"{given}: JAX_PLATFORMS={os.environ.get('JAX_PLATFORMS', '')} leaves the CPU out; add cpu to it"
            ) from None
    there = {str(device.id): device for device in jax.local_devices()}
    unknown = [number for number in flag.value if number not in there]
    if unknown or not flag.value or len(set(flag.value)) < len(flag.value):
        raise InputError(f"{given}: expected cpu, or some of {', '.join(there)}, each once")
    return [there[number] for number in flag.value]
