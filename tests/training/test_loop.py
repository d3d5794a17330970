import logging
from pathlib import Path
from typing import Any

import grain
import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from imagen_jax.errors import InputError, NotFiniteError
from imagen_jax.training.clock import Clock
from imagen_jax.training.loop import train
from imagen_jax.training.metrics import read_metrics
from imagen_jax.training.parallel import Parallel
from tests.training import tiny


def on_one_device(step_fn: Any) -> Parallel:
    sharding = NamedSharding(Mesh(np.array(jax.devices()[:1]), ("batch",)), PartitionSpec("batch"))
    return Parallel(step_fn, jax.tree.map(lambda _: sharding, tiny.state()), sharding, device_axis=False)


def run(workdir: Path, *, bad_steps: Any = (), num_steps: int = 6, evaluators: Any = (), **more: Any) -> Any:
    """The loop with a step that only counts; its loss is NaN at `bad_steps`."""

    def step_fn(state, batch, key) -> Any:
        step = int(state.step) + 1
        bad = step in bad_steps
        skipped = np.int32(state.skipped_in_row + 1 if bad else 0)
        metrics = {"loss": float("nan") if bad else float(step), "grad_norm": 1.0, "skipped_in_row": skipped}
        return state.replace(step=np.int32(step), skipped_in_row=skipped), metrics

    images = grain.MapDataset.range(8).map(lambda i: {"image": np.zeros((1, 2, 2, 3), np.float32)})
    return train(
        tiny.state(),
        on_one_device(step_fn),
        iter(images.repeat().to_iter_dataset()),
        jax.random.key(0),
        workdir=workdir,
        num_steps=num_steps,
        batch_size=1,
        log_every=2,
        checkpoint_every=2,
        keep_checkpoints=9,
        evaluators=[(3, evaluator) for evaluator in evaluators or [lambda *_: iter(())]],
        **more,
    )


def saved_steps(workdir: Path) -> list[int]:
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdecimal())


def test_steps_that_are_not_finite_are_left_out_of_the_means_and_counted(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, logger="absl"):
        _, done = run(tmp_path, bad_steps=(3, 5, 6))
    assert done
    lines = {line["step"]: line for line in read_metrics(tmp_path)}
    assert [lines[step]["skipped_steps"] for step in (2, 3, 4, 6)] == [0, 1, 0, 2]
    assert lines[4]["loss"] == 4
    for step in (3, 5):
        assert f"not finite at step {step}, which is skipped" in caplog.text
    assert "at step 6," not in caplog.text  # the second in a row


def test_twenty_in_a_row_end_the_run_and_the_last_good_state_stays(tmp_path):
    with pytest.raises(NotFiniteError, match="not finite for 20 steps, up to step 25"):
        run(tmp_path, bad_steps=range(6, 99), num_steps=60)
    assert saved_steps(tmp_path)[-1] == 24
    # The count goes on where it was.
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
    assert [(line["step"], line["loss"]) for line in lines if "loss" in line] == [(2, 1.5), (3, 3), (4, 4), (6, 5.5)]
    assert [line["step"] for line in lines if "score" in line] == [3, 6]
    assert (tmp_path / "picture" / "00000006.png").is_file()


def test_the_share_of_peak_is_of_each_intervals_steps(tmp_path):
    run(tmp_path, seconds_at_peak=1e-3)
    for line in read_metrics(tmp_path):
        np.testing.assert_allclose(line["share_of_peak"] * line["step_s"], 1e-3)
    run(tmp_path / "unknown")
    assert all("share_of_peak" not in line for line in read_metrics(tmp_path / "unknown"))


def test_a_workdir_that_another_run_has_taken_is_not_written(tmp_path):
    def check_claim():
        raise InputError("another run has taken over")

    with pytest.raises(InputError, match="taken over"):
        run(tmp_path, check_claim=check_claim)
    assert saved_steps(tmp_path) == []


def test_images_that_are_not_scaled_are_refused(tmp_path):
    batches = iter(grain.MapDataset.range(8).map(lambda i: {"image": np.full((1, 2, 2, 3), 255.0)}).to_iter_dataset())
    settings: Any = {"num_steps": 2, "batch_size": 1, "log_every": 1, "checkpoint_every": 1, "keep_checkpoints": 1}
    with pytest.raises(AssertionError, match=r"must lie in \[-1, 1\]"):
        train(
            tiny.state(), on_one_device(lambda *_: pytest.fail("no step")), batches, jax.random.key(0),
            workdir=tmp_path, evaluators=[], **settings,
        )  # fmt: skip


def test_the_clock_counts_each_interval_anew():
    clock = Clock(first_step=10, num_steps=30, batch_size=4)
    for _ in range(5):
        clock.tick(waited_s=0.5)
    rates = clock.interval(15)
    assert rates["data_wait_s"] == 0.5
    assert rates["images_per_s"] == pytest.approx(4 / rates["step_s"])
    assert rates["left_s"] == pytest.approx(15 * rates["step_s"])
    clock.tick(waited_s=0.0)
    assert clock.interval(16)["data_wait_s"] == 0.0
    clock.close()
