"""launch.babysit against a gcloud that plays stories."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from imagen_jax.errors import InputError
from launch.babysit import babysit
from launch.runner import CommandError, Runner
from launch.states import back_off_s
from tests.launch.world import POD, READY, World

COMMAND = ["imagen_jax.train", "--config=configs/imagen_base64.py", f"--workdir={POD.workdir}"]
PAYLOAD = Path("/payload/imagen_launch")
LOST = [*READY, ["ACTIVE", "PREEMPTED"]]


def play(world: World, **settings: Any) -> tuple[int, list[str], list[float]]:
    """babysit's exit code, what it said, and how long it would have slept."""
    said: list[str] = []
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        assert len(slept) < 1000, "goes on for ever"

    settings = {"max_tries": 3, "runner": world.runner(), "sleep": sleep} | settings
    code = babysit(settings.pop("runner"), POD, PAYLOAD, COMMAND, say=said.append, **settings)
    return code, said, slept


def actions(said: list[str]) -> list[str]:
    return [line.rpartition(" -> ")[2] for line in said if " -> " in line]


def test_from_nothing_through_a_preemption_to_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    waiting = [["WAITING_FOR_RESOURCES", None], ["PROVISIONING", None], ["ACTIVE", "CREATING"]]
    lives = [
        [*waiting, *READY, *READY, ["ACTIVE", "PREEMPTED"]],
        [*waiting, *READY, *READY, ["SUSPENDING", None], ["SUSPENDED", None]],
        [["WAITING_FOR_RESOURCES", None], *READY],
    ]
    world = World(tmp_path, lives=lives, runs=[["running"], ["running"], ["running", 0]], bucket="absent")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    code, said, _ = play(world, runner=Runner(dry_run=False))
    assert code == 0
    one_life = ["create", "wait", "wait", "wait", "start", "wait"]
    assert actions(said) == [
        *one_life,
        "delete",
        *one_life,
        "wait",
        "delete",
        "create",
        "wait",
        "start",
        "wait",
        "done",
    ]
    assert world.count("buckets create") == 1
    assert world.count("queued-resources create base", "--node-id=base", "--spot") == 3
    starts = [call for call in world.calls() if "start.sh" in call[-1]]
    assert len(starts) == 3
    assert all(f"start.sh base {POD.workdir} 0 {' '.join(COMMAND)}" in call[-1] for call in starts)
    words = [" ".join(call[2:4]) for call in world.calls()[-3:]]
    assert words == [
        "queued-resources delete",
        "queued-resources describe",
        "tpu-vm describe",
    ]  # deleted, and asked again
    page = (Path(__file__).parents[2] / "docs" / "pods.md").read_text("utf-8")
    shown = re.search(r"^```text\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    time_chars = len("2026-03-02 18:04:11  ")
    assert shown and {line[time_chars:] for line in shown[1].splitlines()} <= {line[time_chars:] for line in said}


@pytest.mark.parametrize("code", [0, 2, 3, 4])
def test_a_final_exit_code_is_passed_on_and_nothing_relaunched(tmp_path: Path, code: int):
    world = World(tmp_path, runs=[["running", code]])
    assert play(world)[0] == code
    assert world.count("start.sh") == 1
    assert world.count("queued-resources delete") == 1


def test_after_a_checkpoint_it_relaunches_as_often_as_it_takes(tmp_path: Path):
    world = World(tmp_path, runs=[*[["running", 42]] * 10, [0]])
    code, said, slept = play(world, max_tries=0, poll_s=7)
    assert code == 0
    assert world.count("start.sh base", f"{POD.workdir} 0 ") == 11
    assert actions(said)[-1] == "done"
    assert set(slept) == {7}


def test_a_crash_is_relaunched_with_growing_delays_and_then_given_up(tmp_path: Path):
    world = World(tmp_path, runs=[[134]])
    code, said, slept = play(world, max_tries=3, poll_s=1)
    assert code == 134
    assert world.count("start.sh") == 4
    assert [delay for delay in slept if delay != 1] == [back_off_s(tries) for tries in (1, 2, 3)]
    assert [call[-1].split()[4] for call in world.calls() if "start.sh" in call[-1]] == ["0", "1", "2", "3"]
    assert "after 3 more tries" in said[-2]


def test_a_full_disk_is_retried_and_counted(tmp_path: Path):
    world = World(tmp_path / "passing", runs=[["running", 5], ["running", 0]])
    code, said, slept = play(world, poll_s=1)
    assert code == 0 and back_off_s(1) in slept
    assert any("a disk or bucket that failed (exit code 5); try 1 of 3" in line for line in said)
    assert play(World(tmp_path / "lasting", runs=[[5]]))[0] == 5


def test_a_request_that_always_fails_is_given_up(tmp_path: Path):
    world = World(tmp_path, lives=[[["FAILED", None]]])
    assert play(world, max_tries=2)[0] == 1
    assert world.count("queued-resources create") == 3


@pytest.mark.parametrize("command", ["tpu-vm scp", "setup.sh", "start.sh", "queued-resources create"])
def test_a_step_that_fails_is_tried_again_and_then_given_up(tmp_path: Path, command: str):
    passing = World(tmp_path / "passing", failing=[command, 2])
    assert play(passing)[0] == 0
    lasting = World(tmp_path / "lasting", failing=[command, 99])
    code, said, slept = play(lasting, poll_s=1)
    assert code == 1
    assert any(f"{command} does not work today (4 of 4)" in line for line in said)
    assert slept.count(back_off_s(3)) == 1


def test_a_gcloud_that_cannot_look_is_waited_for(tmp_path: Path):
    world = World(tmp_path, failing=["queued-resources describe", 50])
    code, said, _ = play(world)
    assert code == 0
    assert sum("does not work today" in line for line in said) == 1


def test_workers_that_do_not_answer_are_waited_for_once_they_have(tmp_path: Path):
    silent = World(tmp_path / "silent", failing=["status.sh", 10**9])
    code, said, _ = play(silent)
    assert code == 1
    assert "no worker could ever be reached by ssh" in said[-2]
    assert silent.count("start.sh") == 0

    class Deaf(Runner):
        """The workers answer, then not for long, then again."""

        def __init__(self):
            super().__init__(dry_run=False)
            self._inner = late.runner()
            self._looks = 0

        def run(self, argv, *, timeout_s=0.0):
            self._looks += "status.sh" in argv[-1]
            if 2 < self._looks < 200 and "status.sh" in argv[-1]:
                return "a line without meaning\n"
            return self._inner.run(argv, timeout_s=timeout_s)

    late = World(tmp_path / "late", runs=[["running", 0]])
    assert play(late, runner=Deaf())[0] == 0
    assert late.count("start.sh") == 1


def test_a_bucket_on_which_renaming_is_not_one_step_is_refused(tmp_path: Path):
    world = World(tmp_path, bucket="flat")
    with pytest.raises(InputError, match="gs://my-bucket has no hierarchical namespace"):
        play(world)
    assert world.count("queued-resources") == 0


def test_keep_leaves_the_pod(tmp_path: Path):
    world = World(tmp_path)
    _, said, _ = play(world, keep=True)
    assert world.count("delete") == 0
    assert "launch.delete" in said[-1]


class Killed(BaseException):
    """What stands for SIGKILL: no handler runs."""


class Mortal(Runner):
    """Ends after so many commands, before or after the last has been done."""

    def __init__(self, inner: Runner, *, commands: int, after: bool):
        super().__init__(dry_run=False)
        self._inner, self._left, self._after = inner, commands, after

    def run(self, argv, *, timeout_s=0.0):
        self._left -= 1
        if self._left < 0 and not self._after:
            raise Killed
        out = self._inner.run(argv, timeout_s=timeout_s)
        if self._left < 0:
            raise Killed
        return out


@pytest.mark.parametrize("after", [False, True])
def test_killed_at_any_command_and_started_again_it_goes_on(tmp_path: Path, after: bool):
    story = {"lives": [LOST, READY], "runs": [["running", 1], ["running", 42], ["running", 0]]}
    whole = World(tmp_path / "whole", **story)
    assert play(whole, poll_s=1)[0] == 0
    for kill_at in range(len(whole.calls()) - 3):  # but for the last, with which everything is gone, and is asked for
        world = World(tmp_path / str(kill_at), **story)
        with pytest.raises(Killed):
            play(world, runner=Mortal(world.runner(), commands=kill_at, after=after))
        assert play(world)[0] == 0, kill_at
        # A start may be repeated where the worker says that it runs already; no run is lost or doubled.
        assert json.loads((world.folder / "state.json").read_text())["run"] == 2, kill_at
        assert {call[-1].split(POD.workdir)[0][-5:] for call in world.calls() if "start.sh" in call[-1]} == {"base "}


def test_only_changes_are_said(tmp_path: Path):
    world = World(tmp_path, lives=[[*[["WAITING_FOR_RESOURCES", None]] * 50, *READY]], runs=[[*["running"] * 50, 0]])
    _, said, _ = play(world)
    assert actions(said) == ["create", "wait", "start", "wait", "done"]


def test_a_pod_that_is_there_and_running_is_not_started_again(tmp_path: Path):
    world = World(tmp_path, runs=[["running"]])

    def stop_after(_: float) -> None:
        if world.count("status.sh") > 3:
            raise Killed

    with pytest.raises(Killed):
        play(world, sleep=stop_after)
    with pytest.raises(Killed):
        play(world, sleep=stop_after)
    assert world.count("start.sh") == world.count("setup.sh") == world.count("queued-resources create") == 1


def test_a_bucket_that_cannot_be_asked_for_is_tried_again(tmp_path: Path):
    assert play(World(tmp_path / "passing", failing=["buckets describe", 3]))[0] == 0
    lasting = World(tmp_path / "lasting", failing=["buckets describe", 99])
    said: list[str] = []
    with pytest.raises(CommandError, match="does not work today"):
        babysit(lasting.runner(), POD, PAYLOAD, COMMAND, max_tries=3, sleep=lambda _: None, say=said.append)
    assert lasting.count("queued-resources") == 0
    assert "the pod base, if there is one, stays and costs: the same command goes on" in said[-1]


class Strange(Runner):
    """Answers one command in its own way, the others as the world does."""

    def __init__(self, world: World, words: str, answer: str | BaseException, *, times: int = 10**9):
        super().__init__(dry_run=False)
        self._inner, self._words, self._answer, self._left = world.runner(), words, answer, times

    def run(self, argv, *, timeout_s=0.0):
        if self._words in " ".join(argv) and self._left > 0:
            self._left -= 1
            if isinstance(self._answer, BaseException):
                raise self._answer
            return self._answer
        return self._inner.run(argv, timeout_s=timeout_s)


@pytest.mark.parametrize("answer", ["", "WARNING: nothing\n", "[]", "[" * 10**5, '{"state": ', "null", '"READY"'])
def test_an_answer_without_json_is_asked_for_again(tmp_path: Path, answer: str):
    for words in ("queued-resources describe", "tpu-vm describe", "buckets describe"):
        world = World(tmp_path / words.replace(" ", "_"))
        code, said, _ = play(world, runner=Strange(world, words, answer, times=2))
        assert code == 0 and any("expected JSON, and got: " in line for line in said)


@pytest.mark.parametrize(
    ("ending", "code", "line"),
    [
        (
            KeyboardInterrupt(),
            130,
            "interrupted; the pod base, if there is one, stays and costs: the same command goes on",
        ),
        (ZeroDivisionError(), 1, "babysit itself failed (ZeroDivisionError); the pod base, if there is one, stays"),
    ],
)
def test_whatever_ends_babysit_the_last_line_says_that_the_pod_costs(
    tmp_path: Path, ending: BaseException, code: int, line: str
):
    world = World(tmp_path)
    got, said, _ = play(world, runner=Strange(world, "status.sh", ending))
    assert got == code and world.count("queued-resources delete") == 0
    assert line in said[-1] and "python -m launch.delete --name=base --project=my-project --zone=us" in said[-1]


def test_a_pod_that_stays_after_it_was_deleted_is_said(tmp_path: Path):
    world = World(tmp_path, lasting=True)
    code, said, _ = play(world)
    assert code == 0 and "THE POD MAY STILL BE THERE, and cost: " in said[-1] and "(ACTIVE)" in said[-1]
