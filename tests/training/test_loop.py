from pathlib import Path
from typing import Any

import grain
import jax
import numpy as np
import pytest

from imagen_jax.training.clock import Clock
from imagen_jax.training.loop import NotFiniteError, train
from imagen_jax.training.metrics import read_metrics
from tests.training import tiny


def run(workdir: Path, *, bad_step: int = 0, num_steps: int = 6, evaluators: Any = ()) -> Any:
    """The loop with a step that only counts; its loss is NaN at `bad_step`."""

    def step_fn(state, batch, key) -> Any:
        step = int(state.step) + 1
        loss = float("nan") if step == bad_step else float(step)
        return state.replace(step=np.int32(step)), {"loss": loss, "grad_norm": 1.0}

    images = grain.MapDataset.range(8).map(lambda i: {"image": np.zeros((1, 2, 2, 3), np.float32)})
    return train(
        tiny.state(),
        step_fn,
        iter(images.repeat().to_iter_dataset()),
        jax.random.key(0),
        workdir=workdir,
        num_steps=num_steps,
        batch_size=1,
        log_every=2,
        checkpoint_every=2,
        keep_checkpoints=9,
        evaluate_every=3,
        evaluators=evaluators,
    )


def saved_steps(workdir: Path) -> list[int]:
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdecimal())


def test_a_loss_that_is_not_finite_ends_the_run_by_name_and_is_not_saved(tmp_path):
    with pytest.raises(NotFiniteError, match="loss is not finite at step 5"):
        run(tmp_path, bad_step=5)
    assert saved_steps(tmp_path) == [2, 4]
    state, done = run(tmp_path)
    assert done
    assert int(state.step) == 6
    assert saved_steps(tmp_path) == [2, 4, 6]


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


def test_images_that_are_not_scaled_are_refused(tmp_path):
    batches = iter(grain.MapDataset.range(8).map(lambda i: {"image": np.full((1, 2, 2, 3), 255.0)}).to_iter_dataset())
    settings: Any = {"num_steps": 2, "batch_size": 1, "log_every": 1, "checkpoint_every": 1, "keep_checkpoints": 1}
    with pytest.raises(AssertionError, match=r"must lie in \[-1, 1\]"):
        train(
            tiny.state(), lambda *_: pytest.fail("no step"), batches, jax.random.key(0),
            workdir=tmp_path, evaluate_every=1, evaluators=[], **settings,
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
