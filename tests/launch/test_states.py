import itertools

import pytest

from imagen_jax.errors import EXIT_BAD_INPUT, EXIT_NO_CHECKPOINT, EXIT_NOT_FINITE, EXIT_PREEMPTED
from launch.states import (
    QUEUED_WAITING,
    RUNNING,
    UNREACHABLE,
    VM_LOST,
    VM_WAITING,
    Kind,
    Status,
    Worker,
    back_off_s,
    combine,
    next_action,
)

QUEUED = [None, *sorted(QUEUED_WAITING), "ACTIVE", "FAILED", "SUSPENDED", "STATE_UNSPECIFIED", "SOMETHING_NEW"]
VMS = [None, "READY", *sorted(VM_WAITING), *sorted(VM_LOST), "STATE_UNSPECIFIED", "SOMETHING_NEW"]
CODES: list[Status] = [None, RUNNING, UNREACHABLE, 0, 1, 2, 3, 4, 5, 42, 130, 134, 137, 255]


@pytest.mark.parametrize(
    ("queued", "vm", "code", "kind"),
    [
        (None, None, None, Kind.CREATE),
        ("ACCEPTED", None, None, Kind.WAIT),
        ("WAITING_FOR_RESOURCES", None, None, Kind.WAIT),
        ("PROVISIONING", None, None, Kind.WAIT),
        ("CREATING", None, None, Kind.WAIT),
        ("ACTIVE", None, None, Kind.WAIT),
        ("ACTIVE", "CREATING", None, Kind.WAIT),
        ("ACTIVE", "READY", None, Kind.START),
        ("ACTIVE", "READY", RUNNING, Kind.WAIT),
        ("ACTIVE", "READY", UNREACHABLE, Kind.WAIT),
        ("ACTIVE", "REPAIRING", None, Kind.WAIT),
        ("ACTIVE", "PREEMPTED", None, Kind.DELETE),
        ("ACTIVE", "TERMINATED", None, Kind.DELETE),
        ("SUSPENDING", None, None, Kind.WAIT),
        ("SUSPENDED", None, None, Kind.DELETE),
        ("FAILED", None, None, Kind.DELETE),
        ("DELETING", None, None, Kind.WAIT),
        ("SOMETHING_NEW", None, None, Kind.WAIT),
        ("ACTIVE", "SOMETHING_NEW", None, Kind.WAIT),
        ("ACTIVE", "READY", 0, Kind.DONE),
        ("ACTIVE", "READY", EXIT_PREEMPTED, Kind.START),
        ("ACTIVE", "READY", EXIT_BAD_INPUT, Kind.STOP),
        ("ACTIVE", "READY", EXIT_NO_CHECKPOINT, Kind.STOP),
        ("ACTIVE", "READY", EXIT_NOT_FINITE, Kind.STOP),
        ("ACTIVE", "READY", 1, Kind.START),
        ("ACTIVE", "READY", 5, Kind.START),
        ("ACTIVE", "READY", 137, Kind.START),
    ],
)
def test_next_action(queued: str | None, vm: str | None, code: Status, kind: Kind):
    assert next_action(queued, vm, code, 0).kind is kind


def test_every_state_has_one_action_that_fits_it():
    for queued, vm, code, tries in itertools.product(QUEUED, VMS, CODES, range(4)):
        action = next_action(queued, vm, code, tries, max_tries=3)
        case = (queued, vm, code, tries, action)
        usable = (queued, vm) == ("ACTIVE", "READY")
        assert (action.kind is Kind.CREATE) == (queued is None), case
        assert action.kind is not Kind.START or (usable and code not in (RUNNING, UNREACHABLE, 0, 2, 3, 4)), case
        assert (action.kind is Kind.DONE) == (usable and code == 0), case
        assert action.kind is not Kind.STOP or action.exit_code not in (0, EXIT_PREEMPTED), case
        assert action.kind is not Kind.DELETE or queued in ("FAILED", "SUSPENDED") or vm in VM_LOST, case
        assert tries <= action.tries <= min(tries + 1, 3), case
        assert action.why, case
        assert (action.delay_s > 0) == (action.tries > tries), case


@pytest.mark.parametrize("state", ["STATE_UNSPECIFIED", "SOMETHING_NEW"])
def test_an_unknown_state_is_named(state: str):
    assert state in next_action(state, None, None, 0).why
    assert state in next_action("ACTIVE", state, None, 0).why


def test_crashes_are_counted_and_preemptions_are_not():
    assert next_action("ACTIVE", "READY", 1, 2, max_tries=3).tries == 3
    assert next_action("ACTIVE", "READY", EXIT_PREEMPTED, 3, max_tries=3).tries == 3
    given_up = next_action("ACTIVE", "READY", 134, 3, max_tries=3)
    assert (given_up.kind, given_up.exit_code) == (Kind.STOP, 134)
    assert next_action("FAILED", None, None, 3, max_tries=3).kind is Kind.STOP


def test_back_off_grows_to_half_an_hour():
    delays = [back_off_s(tries) for tries in range(1, 50)]
    assert delays[:3] == [30, 60, 120]
    assert delays == sorted(delays)
    assert delays[-1] == 1800


def workers(*states: tuple[str, int, int]) -> list[Worker]:
    return [Worker(f"w-{i}", state, code, age_s, 0) for i, (state, code, age_s) in enumerate(states)]


@pytest.mark.parametrize(
    ("states", "status"),
    [
        ([("exited", 0, 9), ("exited", 0, 9)], 0),
        ([("running", 0, 0), ("running", 0, 0)], RUNNING),
        ([("absent", 0, 0), ("absent", 0, 0)], None),
        ([("running", 0, 0), ("absent", 0, 0)], None),
        # The others end by themselves when one has gone, but not for ever.
        ([("running", 0, 0), ("exited", 1, 9)], RUNNING),
        ([("running", 0, 0), ("exited", 1, 999)], 1),
        # One may have more to do at the end than the others.
        ([("running", 0, 0), ("exited", 0, 999)], RUNNING),
        ([("exited", 0, 9), ("exited", 134, 9)], 134),
        ([("exited", 134, 9), ("exited", 42, 9)], 42),
        ([("exited", 42, 9), ("exited", 4, 9)], 4),
        ([("exited", 1, 9), ("exited", 2, 9)], 2),
        # Where one worker's bucket failed, what others take for a mistake may be that too.
        ([("exited", 2, 9), ("exited", 5, 9)], 5),
        ([("exited", 42, 9), ("exited", 5, 9)], 5),
        ([("exited", 0, 9)], UNREACHABLE),
        ([], UNREACHABLE),
    ],
)
def test_the_workers_exit_codes_become_one(states: list[tuple[str, int, int]], status: Status):
    assert combine(workers(*states), expected=2) == status
