"""What to do next about a run on a pod, as pure functions of what gcloud and the workers say.

The states are those of Google's TPU API, version 2.
"""

import dataclasses
import enum
from collections.abc import Sequence
from typing import Literal

from imagen_jax.errors import EXIT_BAD_INPUT, EXIT_NO_CHECKPOINT, EXIT_NOT_FINITE, EXIT_PREEMPTED, EXIT_STORAGE

# Of a queued resource.
QUEUED_WAITING = {"CREATING", "ACCEPTED", "WAITING_FOR_RESOURCES", "PROVISIONING", "SUSPENDING", "DELETING"}
QUEUED_FAILED = "FAILED"
QUEUED_LOST = "SUSPENDED"
QUEUED_ACTIVE = "ACTIVE"
# Of a node.
VM_READY = "READY"
VM_WAITING = {
    *("CREATING", "STARTING", "RESTARTING", "REIMAGING", "REPAIRING"),
    *("STOPPING", "DELETING", "HIDING", "HIDDEN", "UNHIDING"),
}
# A spot TPU can't be started again; UNKNOWN is the API's name for "after a failed repair".
VM_LOST = {"PREEMPTED", "TERMINATED", "STOPPED", "UNKNOWN"}

# In place of an exit code, or of a list of them.
RUNNING: Literal["running"] = "running"
UNREACHABLE: Literal["unreachable"] = "unreachable"
Status = int | Literal["running", "unreachable"] | None

# Codes after which the same command would end the same way.
_STOPS = {
    EXIT_BAD_INPUT: "a mistake in the command or the config",
    EXIT_NO_CHECKPOINT: "no valid checkpoint",
    EXIT_NOT_FINITE: "numbers that are not finite",
}
# After a host has gone, the others end by themselves within a minute; what is left then hangs.
_STRAGGLERS_S = 300
_FIRST_BACK_OFF_S = 30
_LAST_BACK_OFF_S = 1800


class Kind(enum.Enum):
    """What babysit can do; each is one function of launch/steps.py."""

    CREATE = "create"
    WAIT = "wait"
    START = "start"  # set up, stop what is left of an earlier start, run
    DELETE = "delete"  # and create again
    DONE = "done"
    STOP = "stop"


@dataclasses.dataclass(frozen=True)
class Action:
    """The next step.

    Args:
      why: for the line that is printed.
      tries: crashes counted so far, this one included.
      delay_s: to wait before it.
      exit_code: babysit's own, of STOP.
    """

    kind: Kind
    why: str
    tries: int = 0
    delay_s: float = 0.0
    exit_code: int = 0


@dataclasses.dataclass(frozen=True)
class Worker:
    """How a run stands on one worker: a line of scripts/status.sh.

    Args:
      state: absent (never started on this VM), running or exited.
      exit_code: where it exited, `age_s` seconds ago.
      tries: crashes counted when it was started.
    """

    worker: str
    state: str
    exit_code: int
    age_s: int
    tries: int


def next_action(
    queued_state: str | None, vm_state: str | None, exit_code: Status, tries: int, *, max_tries: int = 5
) -> Action:
    """What to do.

    Args:
      queued_state: of the queued resource; None where there is none.
      vm_state: of the node; None where there is none.
      exit_code: of the run on all workers (`combine`); None: not started on them all.
      tries: crashes so far.
      max_tries: crashes after which it is given up.
    """
    if queued_state is None:
        return Action(Kind.CREATE, "there is no queued resource", tries)
    if queued_state in QUEUED_WAITING:
        return Action(Kind.WAIT, "waiting", tries)
    if queued_state == QUEUED_LOST:
        return Action(Kind.DELETE, "the pod was taken away", tries)
    if queued_state == QUEUED_FAILED:
        # Also what a request that can never be granted comes to, so it counts.
        return _again(Kind.DELETE, "the request failed", 1, tries, max_tries)
    if queued_state != QUEUED_ACTIVE:
        return Action(Kind.WAIT, f"unknown state of the queued resource: {queued_state}", tries)
    if vm_state in VM_LOST:
        return Action(Kind.DELETE, "the pod was taken away", tries)
    if vm_state is None or vm_state in VM_WAITING:
        return Action(Kind.WAIT, "waiting", tries)
    if vm_state != VM_READY:
        return Action(Kind.WAIT, f"unknown state of the VM: {vm_state}", tries)
    return _after(exit_code, tries, max_tries)


def _after(exit_code: Status, tries: int, max_tries: int) -> Action:
    """Of a run on VMs that are ready."""
    if exit_code is None:
        return Action(Kind.START, "the pod is ready", tries)
    if exit_code == UNREACHABLE:
        return Action(Kind.WAIT, "not every worker answers", tries)
    if exit_code == RUNNING:
        return Action(Kind.WAIT, "running", tries)
    code = int(exit_code)
    if code == 0:
        return Action(Kind.DONE, "done", tries)
    if code == EXIT_PREEMPTED:
        return Action(Kind.START, "stopped after a checkpoint", tries)
    if code in _STOPS:
        return Action(Kind.STOP, f"{_STOPS[code]} (exit code {code})", tries, exit_code=code)
    what = "a disk or bucket that failed" if code == EXIT_STORAGE else "a crash"
    return _again(Kind.START, f"{what} (exit code {code})", code, tries, max_tries)


def _again(kind: Kind, why: str, code: int, tries: int, max_tries: int) -> Action:
    if tries >= max_tries:
        return Action(Kind.STOP, f"{why}, after {tries} more tries", tries, exit_code=code)
    return Action(kind, f"{why}; try {tries + 1} of {max_tries}", tries + 1, back_off_s(tries + 1))


def back_off_s(tries: int) -> float:
    """Seconds before the `tries`-th try: half a minute, doubled each time, at most half an hour."""
    return float(min(_FIRST_BACK_OFF_S * 2 ** min(tries - 1, 10), _LAST_BACK_OFF_S))


def combine(workers: Sequence[Worker], *, expected: int) -> Status:
    """One status of them all.

    Args:
      workers: who answered.
      expected: how many workers there are.
    """
    if len(workers) < expected or not workers:
        return UNREACHABLE
    if any(worker.state == "absent" for worker in workers):
        return None
    failed = [worker for worker in workers if worker.state == "exited" and worker.exit_code]
    if any(worker.state == "running" for worker in workers) and all(worker.age_s < _STRAGGLERS_S for worker in failed):
        return RUNNING
    codes = [worker.exit_code for worker in failed]
    # What one worker knows for certain outweighs how the others ended when it went. A failing bucket comes first: what
    # others take for a mistake, a missing folder or a damaged checkpoint, may be the bucket's absence.
    certain = [code for code in (EXIT_STORAGE, *_STOPS, EXIT_PREEMPTED) if code in codes]
    return next(iter([*certain, *codes]), 0)
