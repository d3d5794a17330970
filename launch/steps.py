"""What the mains do to a pod, one step a function. Each may be repeated."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from imagen_jax.errors import InputError
from launch import gcloud
from launch.package import PAYLOAD
from launch.pod import Pod
from launch.runner import CommandError, Runner
from launch.states import QUEUED_ACTIVE, UNREACHABLE, VM_READY, Status, Worker, combine

# Packages on a slow mirror, apt behind the VM's own update.
_SETUP_TIMEOUT_S = 3600.0
_DELETE_TIMEOUT_S = 1800.0
# What a worker says that has no scripts yet.
_NOT_SET_UP = "imagen_launch: not set up"


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
    try:
        answer = runner.run(gcloud.describe_bucket(pod))
    except CommandError as error:
        if not error.not_found:
            raise
        answer = ""
    if not answer:
        runner.run(gcloud.create_bucket(pod))
    elif not json.loads(answer).get("hierarchicalNamespace", {}).get("enabled"):
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
        if not error.not_found:
            raise


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
    queued = _describe(runner, gcloud.describe_queued_resource(pod))
    if queued is None:
        return Observation(None)
    state = queued.get("state", {})
    message = state.get("failedData", {}).get("error", {}).get("message", "")
    seen = Observation(state.get("state", "STATE_UNSPECIFIED"), note=f" ({message})" if message else "")
    if seen.queued_state != QUEUED_ACTIVE:
        return seen
    node = _describe(runner, gcloud.describe_node(pod))
    seen = dataclasses.replace(seen, vm_state=node and node.get("state", "STATE_UNSPECIFIED"))
    if node is None or seen.vm_state != VM_READY:
        return seen
    try:
        workers = parse_status(runner.run(status_command(pod)))
    except CommandError:
        return dataclasses.replace(seen, exit_code=UNREACHABLE)
    # One entry a worker and network.
    networks = max(1, len(node.get("networkConfigs", [])))
    status = combine(workers, expected=len(node.get("networkEndpoints", [])) // networks)
    return dataclasses.replace(seen, exit_code=status, tries=max((worker.tries for worker in workers), default=0))


def status_command(pod: Pod) -> list[str]:
    """Of gcloud, to ask every worker; one that was never set up says so too."""
    script = f"if [ -f {PAYLOAD}/status.sh ]; then bash {PAYLOAD}/status.sh {pod.name}; else echo {_NOT_SET_UP}; fi"
    return gcloud.ssh(pod, ["bash", "-c", script])


def parse_status(text: str) -> list[Worker]:
    """The workers' lines, among whatever else ssh prints."""
    workers = []
    for line in text.splitlines():
        if line == _NOT_SET_UP:
            workers.append(Worker("?", "absent", 0, 0, 0))
        elif line.startswith('{"worker"'):
            try:
                workers.append(Worker(**json.loads(line)))
            except (ValueError, TypeError):  # two workers' lines in one: ask again later
                continue
    return workers


def _script(name: str, *arguments: str) -> list[str]:
    return ["bash", f"{PAYLOAD}/{name}.sh", *arguments]


def _describe(runner: Runner, argv: Sequence[str]) -> dict | None:
    try:
        return json.loads(runner.run(argv))
    except CommandError as error:
        if error.not_found:
            return None
        raise
