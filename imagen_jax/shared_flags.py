"""Flags that several mains share, and the kinds of values that they have."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from absl import flags

from imagen_jax.errors import InputError
from imagen_jax.files import user_path

# A flag that a function below defines belongs to the main that calls it, whose --help lists it.
flags.disclaim_key_flags()


class _PathParser(flags.ArgumentParser):
    """ "~/pictures" -> Path("/home/NAME/pictures")."""

    syntactic_help = "a path"

    def parse(self, argument: str | Path) -> Path:
        return user_path(argument)


def define_path(name: str, default: str | None, help: str, *, required: bool = False) -> flags.FlagHolder[Any]:
    """Defines a flag whose value is a `Path`, or None where it isn't given; "~" in it is the user's home folder.

    Args:
      name, default, help, required: as of absl's DEFINE_string.
    """
    return flags.DEFINE(_PathParser(), name, default, help, required=required)


def times(text: str) -> tuple[float, ...]:
    """(0.2, 0.8) for "0.2:0.8", to parse with."""
    return tuple(float(number) for number in text.split(":"))


_EXPECTED: dict[Any, str] = {int: "whole numbers", float: "numbers", times: "times such as 0.2:0.8"}


def one_or_list(flag: flags.FlagHolder, parse: Callable[[str], Any]) -> Any:
    """The value of a list flag, parsed, as one value, or as a list of them; None where it isn't given.

    Args:
      parse: int, float, str or `times`.

    Raises:
      InputError: something in it can't be parsed.
    """
    if flag.value is None:
        return None
    try:
        values = [parse(text) for text in flag.value]
    except ValueError:
        given = ",".join(flag.value)
        raise InputError(f"--{flag.name}={given}: expected {_EXPECTED[parse]} separated by commas") from None
    return values[0] if len(values) == 1 else values


def flag_values() -> dict[str, str]:
    """Of the main's own flags, as text: what several hosts must agree on."""
    return {flag.name: str(flag.value) for flag in flags.FLAGS.get_flags_for_module(sys.argv[0])}


def define_encoder_flags() -> Callable[[], dict[str, Any]]:
    """Defines --encoder_dtype, --encoder_devices and --encoder_shards, of a main that runs the text encoder.

    Returns:
      A function that reads them, as keyword arguments of `load_encoder`. It raises InputError for devices that aren't
      there.
    """
    dtype = flags.DEFINE_enum("encoder_dtype", "float32", ["float32", "bfloat16"], "What the text encoder computes in.")
    devices = flags.DEFINE_list(
        "encoder_devices", None, "cpu, or numbers of devices, for the text encoder; default: as few as hold it."
    )
    shards = flags.DEFINE_integer(
        "encoder_shards", None, "Devices that share one copy of its weights; default: as few as hold it.", lower_bound=1
    )
    return lambda: {"dtype": dtype.value, "devices": _devices(devices), "shards": shards.value}


def define_device_flags() -> Callable[[], dict[str, Any]]:
    """Defines --devices and --image_shards, of a main that samples.

    Returns:
      A function that reads them, as keyword arguments of `Cascade.sample`. It raises InputError for what is no number.
    """
    devices = flags.DEFINE_integer("devices", None, "How many of this machine's devices to sample on; default: all.")
    shards = flags.DEFINE_list(
        "image_shards", ["1"], "Devices that share each image, by rows, for memory. One for all stages, or one a stage."
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
