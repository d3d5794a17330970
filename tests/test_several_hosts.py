"""Several hosts on this machine train as one does, and end together."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest

from imagen_jax.errors import EXIT_BAD_INPUT, EXIT_PREEMPTED
from imagen_jax.training.checkpoint import load_ema_params
from imagen_jax.training.metrics import read_metrics
from launch.processes import host_environments
from tests.mains import REPO, command, environment, last_step, prepare, run, run_folder

STEPS = 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("several")
    prepare(folder)
    run("train", *arguments(folder, "straight"), "--profile_steps=3:5")
    return folder


def arguments(folder: Path, name: str) -> tuple[str, ...]:
    return (
        "--config=tests/tiny_config.py:base",
        f"--workdir={folder}/{name}",
        *run_folder(folder),
        f"--config.train.num_steps={STEPS}",
        "--config.train.checkpoint_every=5",
        "--config.train.log_every=1",
        "--config.train.sample_every=9",
    )


@contextlib.contextmanager
def two_hosts(folder: Path, name: str, *of_the_second: str) -> Iterator[list[subprocess.Popen]]:
    """Their processes, whose output is in FOLDER/NAME.0 and .1."""
    processes = []
    try:
        for number, host in enumerate(host_environments(2, 2)):
            with (folder / f"{name}.{number}").open("w") as out:
                flags = (*arguments(folder, name), *(of_the_second if number else ()))
                process = subprocess.Popen(
                    command("train", *flags), cwd=REPO, env=environment() | host, stdout=out, stderr=out
                )
                processes.append(process)
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()


def wait_for_step(folder: Path, name: str, step: int, processes: list[subprocess.Popen]) -> None:
    deadline = time.monotonic() + 200
    while last_step(folder / name) < step:
        assert time.monotonic() < deadline, "the run does not get on"
        for number, process in enumerate(processes):
            assert process.poll() is None, (folder / f"{name}.{number}").read_text()
        time.sleep(0.02)


def test_preempted_then_killed_and_at_last_on_one_host_a_run_ends_as_if_nothing_had_been(folder):
    # SIGTERM to one: both stop after the same step, which is saved.
    with two_hosts(folder, "run") as processes:
        wait_for_step(folder, "run", 7, processes)
        processes[1].send_signal(signal.SIGTERM)
        assert [process.wait(timeout=60) for process in processes] == [EXIT_PREEMPTED] * 2
    stopped = last_step(folder / "run")
    assert (folder / "run" / "checkpoints" / str(stopped)).is_dir()
    assert {"perf/slowest_host", "perf/data_wait_s"} <= read_metrics(folder / "run")[-1].keys()

    # kill -9 of one: the other ends by itself.
    with two_hosts(folder, "run") as processes:
        wait_for_step(folder, "run", stopped + 7, processes)
        processes[0].kill()
        assert processes[1].wait(timeout=60) != 0

    run("train", *arguments(folder, "run"), devices=1)
    straight, run_over = ({line["step"]: line["train/loss"] for line in read_metrics(folder / name)
                           if "train/loss" in line}
                          for name in ("straight", "run"))  # fmt: skip
    assert run_over.keys() == straight.keys() == set(range(1, STEPS + 1))
    np.testing.assert_allclose([run_over[s] for s in straight], list(straight.values()), rtol=1e-4)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4),
        *(load_ema_params(folder / name)[0] for name in ("run", "straight")),
    )


def test_the_steps_asked_for_were_traced(folder):
    assert list((folder / "straight" / "profile").rglob("*.xplane.pb"))
    text = run("train", *arguments(folder, "none"), "--profile_steps=5:3", expect=EXIT_BAD_INPUT)
    assert "error: --profile_steps=5:3: expected FROM:TO, such as 100:110" in text


def test_hosts_with_different_configs_refuse_to_start(folder):
    with two_hosts(folder, "differ", "--config.seed=1") as processes:
        assert [process.wait(timeout=60) for process in processes] == [EXIT_BAD_INPUT] * 2
    for number in (0, 1):
        assert (
            "error: the hosts differ: config.seed is '1' on host 1 and '0' on host 0"
            in (folder / f"differ.{number}").read_text()
        )
    assert not os.path.exists(folder / "differ")
