import contextlib
import fcntl
import logging
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import grain
import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from imagen_jax.errors import InputError, NotFiniteError
from imagen_jax.training.clock import Clock
from imagen_jax.training.loop import LoopSettings, train
from imagen_jax.training.metrics import read_metrics
from imagen_jax.training.parallel import Parallel
from imagen_jax.training.state import NOTHING_FROZEN
from tests.training import tiny


def on_one_device(step_fn: Any) -> Parallel:
    sharding = NamedSharding(Mesh(np.array(jax.devices()[:1]), ("batch",)), PartitionSpec("batch"))
    return Parallel(step_fn, jax.tree.map(lambda _: sharding, tiny.state()), {}, sharding, device_axis=False)


def run(
    workdir: Path,
    *,
    bad_steps: Any = (),
    num_steps: int = 6,
    evaluators: Any = (),
    check_claim: Any = lambda: None,
    **settings: Any,
) -> Any:
    """The loop with a step that only counts; its loss is NaN at `bad_steps`."""

    def step_fn(state, frozen, batch, key) -> Any:
        step = int(state.step) + 1
        bad = step in bad_steps
        skipped = np.int32(state.skipped_in_row + 1 if bad else 0)
        metrics = {"loss": float("nan") if bad else float(step), "grad_norm": 1.0, "skipped_in_row": skipped}
        return state.replace(step=np.int32(step), skipped_in_row=skipped), metrics

    images = grain.MapDataset.range(8).map(lambda i: {"image": np.zeros((1, 2, 2, 3), np.float32)})
    return train(
        tiny.task(),
        tiny.state(),
        NOTHING_FROZEN,
        on_one_device(step_fn),
        iter(images.repeat().to_iter_dataset()),
        jax.random.key(0),
        workdir=workdir,
        settings=LoopSettings(
            num_steps=num_steps, batch_size=1, log_every=2, checkpoint_every=2, keep_checkpoints=9, **settings
        ),
        evaluators=[(3, evaluator) for evaluator in evaluators or [lambda *_: iter(())]],
        check_claim=check_claim,
    )


def saved_steps(workdir: Path) -> list[int]:
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdecimal())


def test_steps_that_are_not_finite_are_left_out_of_the_means_and_counted(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, logger="absl"):
        _, done = run(tmp_path, bad_steps=(3, 5, 6))
    assert done
    lines = {line["step"]: line for line in read_metrics(tmp_path)}
    assert [lines[step]["train/skipped_steps"] for step in (2, 3, 4, 6)] == [0, 1, 0, 2]
    assert lines[4]["train/loss"] == 4
    for step in (3, 5):
        assert f"not finite at step {step}, which is skipped" in caplog.text
    assert "at step 6," not in caplog.text  # the second in a row


def test_twenty_in_a_row_end_the_run_and_the_last_good_state_stays(tmp_path):
    message = (
        "not finite for 20 steps, up to step 25; .* it goes on from the checkpoint of step 4, from before these steps"
    )
    with pytest.raises(NotFiniteError, match=message):
        run(tmp_path, bad_steps=range(6, 99), num_steps=60)
    # Nothing is saved or deleted among skipped steps, and the count starts anew: the advised remedy works.
    assert saved_steps(tmp_path) == [2, 4]
    with pytest.raises(NotFiniteError, match="for 20 steps, up to step 25"):
        run(tmp_path, bad_steps=range(6, 99), num_steps=60)
    state, done = run(tmp_path, num_steps=30)
    assert done
    assert int(state.step) == 30


def test_means_over_each_interval_are_logged_and_evaluators_see_the_average(tmp_path):
    seen = []

    def evaluator(params, step):
        seen.append((step, jax.tree.structure(params) == jax.tree.structure(tiny.state().ema_params)))
        yield "score", 0.5
        yield "picture", np.zeros((2, 2, 3), np.uint8)

    run(tmp_path, evaluators=[evaluator])
    assert seen == [(3, True), (6, True)]
    lines = read_metrics(tmp_path)
    assert [(line["step"], line["train/loss"]) for line in lines if "train/loss" in line] == [
        (2, 1.5),
        (3, 3),
        (4, 4),
        (6, 5.5),
    ]
    assert [line["step"] for line in lines if "score" in line] == [3, 6]
    assert (tmp_path / "picture" / "00000006.png").is_file()


def test_the_share_of_peak_is_of_each_intervals_steps(tmp_path):
    run(tmp_path, seconds_at_peak=1e-3)
    for line in read_metrics(tmp_path):
        np.testing.assert_allclose(line["perf/share_of_peak"] * line["perf/step_s"], 1e-3)
    run(tmp_path / "unknown")
    assert all("perf/share_of_peak" not in line for line in read_metrics(tmp_path / "unknown"))


def test_a_workdir_that_another_run_has_taken_is_not_written(tmp_path):
    def check_claim():
        raise InputError("another run has taken over")

    with pytest.raises(InputError, match="taken over"):
        run(tmp_path, check_claim=check_claim)
    assert saved_steps(tmp_path) == []


def test_images_that_are_not_scaled_are_refused(tmp_path):
    batches = iter(grain.MapDataset.range(8).map(lambda i: {"image": np.full((1, 2, 2, 3), 255.0)}).to_iter_dataset())
    settings = LoopSettings(num_steps=2, batch_size=1, log_every=1, checkpoint_every=1, keep_checkpoints=1)
    with pytest.raises(AssertionError, match=r"must lie in \[-1, 1\]"):
        train(
            tiny.task(), tiny.state(), NOTHING_FROZEN, on_one_device(lambda *_: pytest.fail("no step")), batches,
            jax.random.key(0), workdir=tmp_path, settings=settings,
        )  # fmt: skip


def test_the_clock_counts_each_interval_anew():
    clock = Clock(first_step=10, num_steps=30, batch_size=4)
    clock.tick(waited_s=9.0)
    assert clock.interval(11) == {}  # the step that is compiled is left out, and so is a time left that contained it
    clock.started()
    for _ in range(4):
        clock.tick(waited_s=0.5)
    rates = clock.interval(15)
    assert rates["data_wait_s"] == 0.5
    assert rates["images_per_s"] == pytest.approx(4 / rates["step_s"])
    assert rates["left_s"] == pytest.approx(15 * rates["step_s"])
    clock.tick(waited_s=0.0)
    assert clock.interval(16)["data_wait_s"] == 0.0
    clock.close()


@pytest.mark.parametrize(
    ("number", "ending"), [(signal.SIGTERM, "terminated"), (signal.SIGINT, "interrupted")], ids=["SIGTERM", "Ctrl-C"]
)
def test_a_signal_saves_after_the_step_and_says_how_to_go_on(tmp_path, caplog, number, ending):
    def evaluator(params, step):
        if step == 3:
            signal.raise_signal(number)
        yield "score", 0.5

    with caplog.at_level(logging.WARNING, logger="absl"):
        state, found = run(tmp_path, num_steps=60, evaluators=[evaluator])
    assert found == ending
    assert saved_steps(tmp_path)[-1] == int(state.step) == 4
    assert "after step 4; the same command goes on from the checkpoint of step 4." in caplog.text
    state, found = run(tmp_path, num_steps=6)
    assert (found, int(state.step)) == ("done", 6)


def test_a_stop_among_skipped_steps_saves_nothing_and_says_so(tmp_path, caplog):
    def evaluator(params, step):
        if step == 6:
            signal.raise_signal(signal.SIGTERM)
        yield "score", 0.5

    with caplog.at_level(logging.WARNING, logger="absl"):
        run(tmp_path, bad_steps=range(6, 99), num_steps=60, evaluators=[evaluator])
    assert saved_steps(tmp_path) == [2, 4]
    assert "step 7 is not saved, because the last 2 steps were skipped; a restart takes the checkpoint of step 4" in (
        caplog.text
    )


def test_an_evaluation_that_is_not_finite_costs_no_training(tmp_path, caplog):
    def evaluator(params, step):
        yield "score", 0.5
        raise NotFiniteError("stage of 8 px, image 0: no picture")

    with caplog.at_level(logging.ERROR, logger="absl"):
        _, ending = run(tmp_path, evaluators=[evaluator])
    assert ending == "done"
    assert "step 3: stage of 8 px, image 0: no picture; training goes on without this evaluation" in caplog.text


def test_on_a_terminal_of_80_columns_no_line_is_broken_or_shared_with_the_bar():
    """Through a pseudo-terminal, of which what its screen shows is what is looked at."""
    program = """
from absl import logging
from imagen_jax import cli
from imagen_jax.training.clock import Clock

def main():
    clock = Clock(first_step=0, num_steps=40, batch_size=32)
    for step in range(1, 41):
        clock.tick(waited_s=0.0)
        if step == 1:
            clock.started()
        if step % 10 == 0:
            logging.warning("step %d/40  loss 0.1234  %s", step, clock.interval(step)["images_per_s"] > 0)
    clock.close()

cli.run(main)
"""
    main, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    # A test's cache and number of devices are as good as any.
    with subprocess.Popen([sys.executable, "-c", program], stdin=terminal, stdout=terminal, stderr=terminal) as process:
        os.close(terminal)
        written = b""
        with contextlib.suppress(OSError):  # how a terminal ends whose last process has gone
            while data := os.read(main, 4096):
                written += data
        os.close(main)
        assert process.wait() == 0
    lines = screen(written.decode())
    logged = [line for line in lines if "loss" in line]
    assert logged == [f"warning: step {step}/40  loss 0.1234  True" for step in (10, 20, 30, 40)]
    bars = [line for line in lines if "%|" in line]
    assert len(bars) == 1 and "step 40/40" in bars[0]
    assert all(len(line) <= 80 for line in lines)


def screen(written: str) -> list[str]:
    """The lines that a terminal shows: carriage returns go back, and what is written there replaces what was."""
    lines = [""]
    column = 0
    for part in re.split(r"(\r|\n|\x1b\[[0-9;]*[A-Za-z])", written):
        if part == "\n":
            lines.append("")
            column = 0
        elif part == "\r":
            column = 0
        elif part.startswith("\x1b"):
            assert part in ("\x1b[K", "\x1b[A"), part
            if part == "\x1b[K":
                lines[-1] = lines[-1][:column]
        else:
            lines[-1] = lines[-1][:column].ljust(column) + part + lines[-1][column + len(part) :]
            column += len(part)
    return [line.rstrip() for line in lines]
