"""Starts training on every worker of a pod, detached: it goes on when this command and its ssh have ended.

python -m launch.run --name=NAME ... --config=configs/X.py[:VARIANT] [--config.key=value] [--restart] [-- FLAGS]

A worker on which the run goes on already is left alone. The workdir is /mnt/BUCKET/runs/NAME, so that what is run again
resumes. FLAGS go to train as they are.
"""

from collections.abc import Sequence

from absl import flags as absl_flags

from imagen_jax import cli
from launch import flags, steps
from launch.runner import Runner, reporting

_POD = flags.define_pod()
_TRAIN = flags.define_train()
_RESTART = absl_flags.DEFINE_bool("restart", False, "Stop what runs, after a checkpoint, and start anew.")
_DRY_RUN = flags.define_dry_run()


@reporting
def main(further: Sequence[str]) -> None:
    """Starts the run; `further`: flags for train, as they are."""
    runner, pod = Runner(dry_run=_DRY_RUN.value), _POD()
    command = _TRAIN(pod, further)
    if _RESTART.value:
        steps.stop(runner, pod)
    print(steps.start(runner, pod, command), end="")


if __name__ == "__main__":
    cli.run(main, hands_on=True)
