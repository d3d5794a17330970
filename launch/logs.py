"""Shows what the run writes, on one worker or on all.

python -m launch.logs --name=NAME ... [--worker=0|all] [--lines=50] [--follow]

When a run has ended, its logs are on the bucket too: gs://BUCKET/runs/NAME/logs.
"""

from absl import flags as absl_flags

from imagen_jax import cli
from imagen_jax.errors import InputError
from launch import flags, gcloud
from launch.runner import Runner

_POD = flags.define_pod()
_WORKER = absl_flags.DEFINE_string("worker", "0", "A worker's number, or all.")
_LINES = absl_flags.DEFINE_integer("lines", 50, "How many lines from the end.", lower_bound=1, upper_bound=10**6)
_FOLLOW = absl_flags.DEFINE_bool("follow", False, "Go on as the run goes on; Ctrl-C ends it, and not the run.")
_DRY_RUN = flags.define_dry_run()


def main() -> int:
    """Shows them, and returns gcloud's exit code."""
    pod = _POD()
    if _WORKER.value != "all" and not (_WORKER.value.isascii() and _WORKER.value.isdecimal()):
        raise InputError(f"--worker={_WORKER.value}: expected a worker's number, or all")
    # -F: by name, so that it waits for a run that is yet to start.
    tail = ["tail", f"--lines={_LINES.value}", *(["-F"] if _FOLLOW.value else []), f"imagen_runs/{pod.name}/log"]
    return Runner(dry_run=_DRY_RUN.value).stream(gcloud.ssh(pod, tail, worker=_WORKER.value))


if __name__ == "__main__":
    cli.run(main)
