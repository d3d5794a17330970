"""A run's pod: the names of what belongs to it, derived from the run's name, and what a kind of TPU implies."""

import dataclasses
import re

from imagen_jax.errors import InputError
from imagen_jax.registry import lookup


@dataclasses.dataclass(frozen=True)
class Generation:
    """One generation of TPU.

    Args:
      runtime: the VM image that Google's page on TPU software versions names for JAX.
      number_per_device: what the number in an accelerator's name counts, per device of JAX. v4-512 counts 512 cores,
        two a device; v5litepod-256 counts chips, each a device; of v2 and v3 each core is a device.
    """

    runtime: str
    number_per_device: int


GENERATIONS = {
    "v2": Generation("tpu-ubuntu2204-base", 1),
    "v3": Generation("tpu-ubuntu2204-base", 1),
    "v4": Generation("tpu-ubuntu2204-base", 2),
    "v5litepod": Generation("v2-alpha-tpuv5-lite", 1),
    "v5p": Generation("v2-alpha-tpuv5", 2),
    "v6e": Generation("v2-alpha-tpuv6e", 1),
}

# What Google Cloud accepts; a bucket's name here is without dots, which are for domains.
_RULES = {
    "name": (r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", "lower-case letters, digits and dashes, a letter first: base64-paper"),
    "project": (r"([a-z0-9.-]+:)?[a-z][-a-z0-9]{4,28}[a-z0-9]", "the project's id, not its name or number: my-project"),
    "zone": (r"[a-z]+-[a-z]+[0-9]+-[a-z]", "a zone, not a region: us-central2-b"),
    "bucket": (r"[a-z0-9][-_a-z0-9]{1,61}[a-z0-9]", "a name without gs:// or dots: my-bucket"),
    "accelerator": (r"[a-z0-9]+-[1-9][0-9]*", "a type and its size: v4-512, v5litepod-256"),
    "runtime": (r"[a-z0-9][-._a-z0-9]*", "a TPU software version: tpu-ubuntu2204-base"),
}


@dataclasses.dataclass(frozen=True)
class Pod:
    """The TPU slice and the bucket of one run. The queued resource and the node have the run's name.

    Args:
      name: the run's.
      accelerator: v4-512, v5litepod-256, ...
      runtime: the VMs' image; "" is the generation's own.
      spot: cheaper, and taken away at any time.
      reserved: out of the project's reservation.

    Raises:
      InputError: a name that Google Cloud would refuse, an unknown generation, or both spot and reserved.
    """

    name: str
    project: str
    zone: str
    accelerator: str
    bucket: str
    runtime: str = ""
    spot: bool = False
    reserved: bool = False

    def __post_init__(self):
        """Checks the fields, and fills `runtime` in."""
        for field, (rule, expected) in _RULES.items():
            value = getattr(self, field)
            if not (field == "runtime" and value == "") and not re.fullmatch(rule, value):
                raise InputError(f'--{field}="{value}": expected {expected}')
        if self.spot and self.reserved:
            raise InputError("--spot and --reserved exclude each other; give one, or neither for on-demand")
        generation = lookup(GENERATIONS, self.accelerator.split("-")[0], what="TPU generation in --accelerator")
        object.__setattr__(self, "runtime", self.runtime or generation.runtime)

    @property
    def region(self) -> str:
        """us-central2 of the zone us-central2-b."""
        return self.zone.rpartition("-")[0]

    @property
    def num_devices(self) -> int:
        """Devices of JAX, over all hosts."""
        generation, number = self.accelerator.split("-")
        return max(1, int(number) // GENERATIONS[generation].number_per_device)

    @property
    def mount(self) -> str:
        """Where every worker has the bucket."""
        return f"/mnt/{self.bucket}"

    @property
    def workdir(self) -> str:
        """The run's folder: the same whenever and wherever it runs, so that every relaunch resumes."""
        return f"{self.mount}/runs/{self.name}"
