"""TPU slices by name, and their devices for the compiler: no TPU is needed, and none is touched. GiB are 2^30 bytes."""

import importlib.util
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax

from imagen_jax.errors import InputError
from imagen_jax.registry import lookup

INSTALL_COMPILER = "pip install -e '.[tpu]'"


class Chip(NamedTuple):
    """A generation of TPUs.

    Attributes:
      peak_flops: bfloat16 operations a second of a chip (cloud.google.com/tpu/docs/system-architecture-tpu-vm).
      hbm_gib: what a program may use of a chip's memory of 32, 16, 95 and 32 GB: "available HBM" in the compiler's own
        words, where it refuses a program that is too large (libtpu 0.0.52).
      device_kind: jax's name of it.
      shapes: the slices there are, in chips along each axis (cloud.google.com/tpu/docs/v4 and its neighbours).
      options: what the compiler must be told besides: on v4 that a chip's two cores are one device, as jax has them.
    """

    peak_flops: float
    hbm_gib: float
    device_kind: str
    shapes: tuple[str, ...]
    options: Mapping[str, str] = {}


_TORI = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x12", "8x8x16", "8x16x16")
_SQUARES = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")

CHIPS: Mapping[str, Chip] = {
    "v4": Chip(275e12, 30.75, "TPU v4", _TORI, {"chip_config_name": "megacore"}),
    "v5e": Chip(197e12, 15.75, "TPU v5 lite", _SQUARES),
    "v5p": Chip(459e12, 95.73, "TPU v5", (*_TORI, "16x16x16", "16x16x24")),
    "v6e": Chip(918e12, 31.24, "TPU v6 lite", _SQUARES),
}


class Topology(NamedTuple):
    """A slice: `name` as it was given ("v4:8x8x4"), the kind of its chips and their number."""

    name: str
    chip: Chip
    num_chips: int


def parse_topology(name: str) -> Topology:
    """The slice called `name`, "CHIP:SHAPE", such as "v5e:16x16"; the axes may stand in any order.

    Raises:
      InputError: there is no such slice; the message lists those there are.
    """
    kind, separator, shape = name.partition(":")
    if not separator:
        raise InputError(f'"{name}" is no topology; expected CHIP:SHAPE, with CHIP one of {", ".join(CHIPS)}')
    chip = lookup(CHIPS, kind, what="chip")
    sizes = [int(size) if size.isdecimal() else 0 for size in shape.split("x")]
    if sorted(sizes) not in [sorted(map(int, known.split("x"))) for known in chip.shapes]:
        known = ", ".join(f"{kind}:{known}" for known in chip.shapes)
        raise InputError(f'there is no topology "{name}"; choose from: {known} (the axes in any order)')
    return Topology(name, chip, math.prod(sizes))


def running_on(devices: Sequence[Any]) -> Topology | None:
    """What these devices of jax are, all of a kind; None where they are no chips that are known here."""
    kind = devices[0].device_kind
    chip = next((chip for chip in CHIPS.values() if chip.device_kind == kind), None)
    return Topology(kind, chip, len(devices)) if chip else None


def has_compiler() -> bool:
    """Whether the TPU compiler, libtpu, is installed."""
    return importlib.util.find_spec("libtpu") is not None


def only_compile() -> None:
    """First call of a process that compiles for abstract devices alone: a TPU here may be training.

    Nothing compiled is kept: jax can't read back what is for devices that aren't there, and warns.
    """
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_compilation_cache", False)


def abstract_devices(topology: Topology) -> list[Any]:
    """The slice's devices, one a chip, to compile for; nothing can run on them.

    Raises:
      InputError: the TPU compiler isn't installed, or knows no such slice.
    """
    if not has_compiler():
        raise InputError(f"compiling for {topology.name} takes the TPU compiler, and no TPU; {INSTALL_COMPILER}")
    from jax.experimental import topologies  # loads the compiler

    try:
        with compiler_environment():
            found = topologies.get_topology_desc(platform="tpu", topology_name=topology.name, **topology.chip.options)
    except RuntimeError as error:
        raise InputError(f'the compiler knows no topology "{topology.name}": {error}') from None
    assert len(found.devices) == topology.num_chips, (topology.name, len(found.devices))
    return found.devices


@contextmanager
def compiler_environment() -> Iterator[None]:
    """What the TPU compiler must find in the environment, while it is loaded and the first time that it compiles."""
    before = os.environ.copy()
    # Otherwise it asks a metadata server which TPU this is, for minutes, and refuses to be loaded twice on a machine.
    os.environ.update(TPU_SKIP_MDS_QUERY="1", TPU_WORKER_HOSTNAMES="localhost", ALLOW_MULTIPLE_LIBTPU_LOAD="1")
    # Any will do, and without one it warns: what it compiles for is the topology.
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v4-8")
    # It aborts at a flag that is another compiler's, such as a CPU's.
    os.environ.pop("XLA_FLAGS", None)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
