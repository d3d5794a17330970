"""A run that is interrupted at any moment ends with the same bits as one that isn't."""

import signal
import subprocess
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from imagen_jax.errors import EXIT_PREEMPTED
from imagen_jax.training.checkpoint import load_ema_params
from imagen_jax.training.metrics import read_metrics
from tests.mains import REPO, command, environment, last_step, prepare, run, run_folder

# As tests/tiny_config.py decays its learning rate.
STEPS = 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("resume")
    prepare(folder)
    run("train", *arguments(folder, "straight"), as_users_compile=True)
    return folder


def arguments(folder: Path, name: str) -> tuple[str, ...]:
    return (
        "--config=tests/tiny_config.py:base",
        f"--workdir={folder}/{name}",
        *run_folder(folder),
        f"--config.train.num_steps={STEPS}",
        "--config.train.checkpoint_every=7",
        "--config.train.log_every=1",
        "--config.prompts=()",
    )


def interrupt(folder: Path, name: str, number: signal.Signals, *, after_steps: int) -> int:
    """Starts the run, sends the signal once that many steps are logged, and returns the exit code."""
    with subprocess.Popen(
        command("train", *arguments(folder, name)), cwd=REPO, env=environment(as_users_compile=True),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        deadline = time.monotonic() + 200
        while process.poll() is None and last_step(folder / name) < after_steps:
            assert time.monotonic() < deadline, "the run does not get on"
            time.sleep(0.02)
        process.send_signal(number)
        return process.wait(timeout=100)


def assert_ends_as_the_straight_run(folder: Path, name: str) -> None:
    run("train", *arguments(folder, name), as_users_compile=True)
    straight, step, _ = load_ema_params(folder / "straight")
    resumed, resumed_step, _ = load_ema_params(folder / name)
    assert step == resumed_step == STEPS
    jax.tree.map(np.testing.assert_array_equal, resumed, straight)
    # Neither lost nor repeated, and the same losses.
    losses = [(line["step"], line["train/loss"]) for line in read_metrics(folder / "straight")]
    assert [(line["step"], line["train/loss"]) for line in read_metrics(folder / name)] == losses


def test_after_sigterm(folder):
    assert interrupt(folder, "sigterm", signal.SIGTERM, after_steps=16) == EXIT_PREEMPTED
    assert last_step(folder / "sigterm") < STEPS
    assert_ends_as_the_straight_run(folder, "sigterm")


def test_after_being_killed_twice(folder):
    assert interrupt(folder, "killed", signal.SIGKILL, after_steps=10) == -signal.SIGKILL
    assert interrupt(folder, "killed", signal.SIGKILL, after_steps=30) == -signal.SIGKILL
    assert_ends_as_the_straight_run(folder, "killed")
