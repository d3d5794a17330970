"""Sends the code to every worker, installs it, and mounts the bucket there.

python -m launch.setup --name=NAME ... [--revision=GIT_REVISION]

The pod must be READY (launch.create says whether). Again at any time, also while the run goes on, which keeps its code.
"""

import tempfile
from pathlib import Path

from imagen_jax import cli
from launch import flags, steps
from launch.package import PAYLOAD, pack
from launch.runner import Runner, reporting

_POD = flags.define_pod()
_REVISION = flags.define_revision()
_DRY_RUN = flags.define_dry_run()


@reporting
def main() -> None:
    """Sets the workers up."""
    runner, pod = Runner(dry_run=_DRY_RUN.value), _POD()
    with tempfile.TemporaryDirectory() as folder:
        payload = Path(folder) / PAYLOAD if _DRY_RUN.value else pack(Path(folder), revision=_REVISION.value)
        steps.set_up(runner, pod, payload)
    if not _DRY_RUN.value:
        print(f"{pod.name}: every worker is set up, with gs://{pod.bucket} at {pod.mount}")


if __name__ == "__main__":
    cli.run(main)
