"""Creates the bucket, where it is missing, and asks for the pod.

python -m launch.create --name=NAME --project=... --zone=... --accelerator=... --bucket=... [--spot | --reserved]

The request waits in a queue, hours for large pods. The same command again says how it stands. --bucket_only asks for no
pod yet, so that it doesn't wait, and cost, for data that is still being copied.
"""

from absl import flags as absl_flags

from imagen_jax import cli
from launch import flags, steps
from launch.runner import Runner, reporting

_POD = flags.define_pod()
_BUCKET_ONLY = absl_flags.DEFINE_bool("bucket_only", False, "Create the bucket only.")
_DRY_RUN = flags.define_dry_run()


@reporting
def main() -> None:
    """Creates what is missing."""
    runner, pod = Runner(dry_run=_DRY_RUN.value), _POD()
    steps.ensure_bucket(runner, pod)
    if _BUCKET_ONLY.value:
        return
    if _DRY_RUN.value:
        steps.create(runner, pod)
        return
    if steps.observe(runner, pod).queued_state is None:
        steps.create(runner, pod)
    print(steps.observe(runner, pod))


if __name__ == "__main__":
    cli.run(main)
