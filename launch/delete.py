"""Deletes the pod and its request. The bucket stays, with everything in it.

python -m launch.delete --name=NAME ...
"""

from imagen_jax import cli
from launch import flags, steps
from launch.runner import Runner, reporting

_POD = flags.define_pod()
_DRY_RUN = flags.define_dry_run()


@reporting
def main() -> None:
    """Deletes it, and says that it is gone only after gcloud has said so; where there is none, nothing happens."""
    runner, pod = Runner(dry_run=_DRY_RUN.value), _POD()
    steps.delete(runner, pod)
    steps.check_gone(runner, pod)
    if not _DRY_RUN.value:
        print(f"{pod.name}: no pod, no cost but that of gs://{pod.bucket}")


if __name__ == "__main__":
    cli.run(main)
