"""Runs a main of imagen_jax as several hosts on this machine, each with simulated CPU devices.

python -m launch.local --processes=2 --devices=4 -- train --config=configs/X.py --workdir=DIR

What follows the bare -- is the main's name and its flags. Output is prefixed by the process's number: [0], [1].
SIGTERM and SIGINT go to all. The exit code is that of the first that failed.
"""

import shlex
import sys
from collections.abc import Sequence

from absl import flags as absl_flags

from imagen_jax import cli
from imagen_jax.errors import InputError
from imagen_jax.registry import lookup
from launch import flags
from launch.package import REPOSITORY
from launch.processes import host_environments, run_processes

_PROCESSES = absl_flags.DEFINE_integer("processes", 2, "How many hosts.", lower_bound=1, upper_bound=64)
_DEVICES = absl_flags.DEFINE_integer("devices", 4, "CPU devices of each.", lower_bound=1, upper_bound=1_024)
_GRACE_S = absl_flags.DEFINE_float(
    "grace",
    60.0,
    "Seconds that the others get to end by themselves after one has failed.",
    lower_bound=0.0,
    upper_bound=86_400.0,
)
_DRY_RUN = flags.define_dry_run()


def main(command: Sequence[str]) -> int:
    """Runs the processes; `command`: the name of a main and its flags."""
    mains = {
        path.stem: f"imagen_jax.{path.stem}"
        for path in (REPOSITORY / "imagen_jax").glob("*.py")
        if path.read_text("utf-8").endswith("cli.run(main)\n")
    }
    if not command:
        raise InputError(f"after a bare -- comes the main and its flags; one of {', '.join(sorted(mains))}")
    argv = [sys.executable, "-m", lookup(mains, command[0].removeprefix("imagen_jax."), what="main"), *command[1:]]
    environments = host_environments(_PROCESSES.value, _DEVICES.value)
    if _DRY_RUN.value:
        for environment in environments:
            print(shlex.join(["env", *(f"{name}={value}" for name, value in environment.items()), *argv]))
        return 0
    return run_processes(argv, environments, grace_s=_GRACE_S.value)


if __name__ == "__main__":
    cli.run(main, hands_on=True)
