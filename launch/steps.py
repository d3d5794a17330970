"""What the mains do to a pod, one step a function. Each may be repeated."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from imagen_jax.errors import InputError
from launch import gcloud
from launch.answers import NOT_SET_UP, count_workers, inside, is_absent, parse_object, parse_status
from launch.package import PAYLOAD
from launch.pod import Pod
from launch.runner import CommandError, Runner
from launch.states import QUEUED_ACTIVE, UNREACHABLE, VM_READY, Status, combine

# Packages on a slow mirror, apt behind the VM's own update.
_SETUP_TIMEOUT_S = 3600.0
_DELETE_TIMEOUT_S = 1800.0


@dataclasses.dataclass(frozen=True)
class Observation:
    """How things stand. None: there is none, or not started; `tries`: as the workers remember; `note`: gcloud's."""

    queued_state: str | None
    vm_state: str | None = None
    exit_code: Status = None
    tries: int = 0
    note: str = ""

    def __str__(self) -> str:
        """Of a line that is printed."""
        run = "not started" if self.exit_code is None else self.exit_code
        run = f"exit code {run}" if isinstance(run, int) else run
        vm = f", VM {self.vm_state}, run {run}" if self.vm_state == VM_READY else f", VM {self.vm_state or 'absent'}"
        return f"queue {self.queued_state or 'absent'}{vm if self.queued_state == QUEUED_ACTIVE else ''}{self.note}"


def ensure_bucket(runner: Runner, pod: Pod) -> None:
    """Creates the bucket where it is missing.

    Raises:
      CommandError: gcloud failed.
      InputError: it exists and has no hierarchical namespace, so that checkpoints on it may be half there.
    """
    bucket = _describe(runner, gcloud.describe_bucket(pod), f"gs://{pod.bucket}")
    if bucket is None:
        runner.run(gcloud.create_bucket(pod))
    elif inside(bucket, "hierarchicalNamespace", "enabled") is not True:
        raise InputError(
            f"gs://{pod.bucket} has no hierarchical namespace, without which a folder's renaming can stop half way; "
            "name a --bucket that doesn't exist yet"
        )


def create(runner: Runner, pod: Pod) -> None:
    """Asks for the pod. Raises CommandError where gcloud fails, also because there is one."""
    runner.run(gcloud.create_queued_resource(pod))


def delete(runner: Runner, pod: Pod) -> None:
    """Deletes pod and request, not the bucket. Raises CommandError where gcloud fails."""
    try:
        runner.run(gcloud.delete_queued_resource(pod), timeout_s=_DELETE_TIMEOUT_S)
    except CommandError as error:
        if not is_absent(error.reason, _queued(pod)):
            raise


def check_gone(runner: Runner, pod: Pod) -> None:
    """Asks gcloud whether pod and request are gone.

    Raises:
      CommandError: one of them is still there, and may cost, or gcloud failed.
    """
    asked = {_queued(pod): gcloud.describe_queued_resource(pod), _node(pod): gcloud.describe_node(pod)}
    for resource, argv in asked.items():
        answer = _describe(runner, argv, resource)
        if answer is not None:
            state = inside(answer, "state", "state") or answer.get("state")
            raise CommandError(argv, f"{resource} is still there ({state}), and may cost; look again in a minute")


def set_up(runner: Runner, pod: Pod, payload: Path) -> None:
    """Sends the code and installs it on every worker. Raises CommandError where gcloud or a worker fails."""
    runner.run(gcloud.scp(pod, str(payload)))
    runner.run(gcloud.ssh(pod, _script("setup", pod.bucket)), timeout_s=_SETUP_TIMEOUT_S)


def start(runner: Runner, pod: Pod, command: Sequence[str], *, tries: int = 0) -> str:
    """Starts `python -m COMMAND` on every worker where it doesn't run yet, and returns what they say.

    Raises:
      CommandError: gcloud or a worker failed.
    """
    return runner.run(gcloud.ssh(pod, _script("start", pod.name, pod.workdir, str(tries), *command)))


def stop(runner: Runner, pod: Pod) -> None:
    """Ends the run on every worker, if it runs. Raises CommandError where gcloud or a worker fails."""
    runner.run(gcloud.ssh(pod, _script("stop", pod.name)))


def observe(runner: Runner, pod: Pod) -> Observation:
    """Asks gcloud and, where the VMs are ready, the workers.

    Raises:
      CommandError: gcloud failed, other than by not finding what was asked for.
    """
    queued = _describe(runner, gcloud.describe_queued_resource(pod), _queued(pod))
    if queued is None:
        return Observation(None)
    message = inside(queued, "state", "failedData", "error", "message")
    note = f" ({' '.join(str(message).split())})" if message else ""
    seen = Observation(str(inside(queued, "state", "state") or "STATE_UNSPECIFIED"), note=note)
    if seen.queued_state != QUEUED_ACTIVE:
        return seen
    node = _describe(runner, gcloud.describe_node(pod), _node(pod))
    seen = dataclasses.replace(seen, vm_state=node and str(node.get("state", "STATE_UNSPECIFIED")))
    if node is None or seen.vm_state != VM_READY:
        return seen
    try:
        workers = parse_status(runner.run(status_command(pod)))
    except CommandError:
        return dataclasses.replace(seen, exit_code=UNREACHABLE)
    status = combine(workers, expected=count_workers(node))
    return dataclasses.replace(seen, exit_code=status, tries=max((worker.tries for worker in workers), default=0))


def status_command(pod: Pod) -> list[str]:
    """Of gcloud, to ask every worker; one that was never set up says so too."""
    script = f"if [ -f {PAYLOAD}/status.sh ]; then bash {PAYLOAD}/status.sh {pod.name}; else echo {NOT_SET_UP}; fi"
    return gcloud.ssh(pod, ["bash", "-c", script])


def _script(name: str, *arguments: str) -> list[str]:
    return ["bash", f"{PAYLOAD}/{name}.sh", *arguments]


def _queued(pod: Pod) -> str:
    return f"locations/{pod.zone}/queuedResources/{pod.name}"


def _node(pod: Pod) -> str:
    return f"locations/{pod.zone}/nodes/{pod.name}"


def _describe(runner: Runner, argv: Sequence[str], resource: str) -> dict[str, Any] | None:
    """None where gcloud says that exactly this resource doesn't exist, and in a dry run."""
    try:
        answer = runner.run(argv)
    except CommandError as error:
        if is_absent(error.reason, resource):
            return None
        raise
    if runner.dry_run:
        return None
    described = parse_object(answer)
    if described is None:
        raise CommandError(argv, f"expected JSON, and got: {' '.join(answer.split())[:200] or 'nothing'}")
    return described
