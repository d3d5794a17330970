"""Flags that several mains share, and the kinds of values that they have."""

import contextlib
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


def define_allow_modules() -> flags.FlagHolder[Any]:
    """Defines --allow_modules, of a main that reads a stage's config."""
    return flags.DEFINE_list(
        "allow_modules",
        [],
        "Python modules that the folder may have imported, and so run: where its network, sampler or a condition is of "
        "your own.",
    )


def define_device_flags() -> Callable[[], dict[str, Any]]:
    """Defines --devices and --image_shards, of a main that samples.

    Returns:
      A function that reads them, as keyword arguments of `Cascade.sample`. It raises InputError for what is no number.
    """
    with group("Devices"):
        devices = flags.DEFINE_integer(
            "devices", None, "How many of this machine's devices to sample on, at least 1; default: all."
        )
        shards = flags.DEFINE_string(
            "image_shards",
            "1",
            "How many devices share each image, by rows, for memory: one value for all stages, or one a stage: 1/1/2.",
        )
    return lambda: {"devices": devices.value, "image_shards": _whole_numbers(shards)}


def _whole_numbers(flag: flags.FlagHolder[Any]) -> int | list[int]:
    text = flag.value or ""
    try:
        values = [int(part) for part in text.split("/")]
    except ValueError:
        example = f"--{flag.name}={text.replace(',', '/') if ',' in text else '1/1/2'}"
        raise InputError(
            f"--{flag.name}={text}: expected a whole number or, separated by slashes, one a stage: {example}"
        ) from None
    return values[0] if len(values) == 1 else values


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
