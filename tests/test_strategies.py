"""A run may go on with another strategy and on other devices than it began with, from another's parameters or not."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from imagen_jax.errors import EXIT_NO_CHECKPOINT
from imagen_jax.training.metrics import read_metrics
from tests.mains import prepare, run, run_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where "straight" has been trained in one go on one device, and exported as "cascade"."""
    folder = tmp_path_factory.mktemp("strategies")
    prepare(folder)
    train(folder, "straight", devices=1)
    run("export", f"--workdirs={folder}/straight", f"--out={folder}/cascade")
    return folder


def train(folder, name, *flags, devices, expect=0):
    config = ("--config=tests/tiny_config.py:base", f"--workdir={folder}/{name}", *run_folder(folder))
    return run("train", *config, "--config.prompts=()", *flags, devices=devices, expect=expect)


def losses(folder, name):
    lines = read_metrics(folder / name)
    return {line["step"]: line["train/loss"] for line in lines if "train/loss" in line}


def assert_same_losses(folder, name, other, *, last):
    a, b = losses(folder, name), losses(folder, other)
    common = sorted(a.keys() & b.keys())
    assert common[-1] == last
    np.testing.assert_allclose([a[step] for step in common], [b[step] for step in common], rtol=1e-5)


def test_a_run_goes_on_with_another_strategy_on_other_devices(folder):
    stages = [(4, "zero1", 4), (8, "fsdp", 2)]
    for num_steps, strategy, devices in stages:
        flags = (f"--config.train.num_steps={num_steps}", f"--config.train.strategy={strategy}")
        text = train(folder, "wandering", *flags, devices=devices)
        assert f"{strategy} on {devices} cpu device(s)" in text
    assert_same_losses(folder, "wandering", "straight", last=8)

    # All checkpoints damaged: nothing starts anew unasked.
    for path in (folder / "wandering" / "checkpoints").iterdir():
        if path.name.isdecimal():
            next(path.rglob("_METADATA")).unlink()
    text = train(folder, "wandering", "--config.train.num_steps=9", devices=1, expect=EXIT_NO_CHECKPOINT)
    assert "damaged checkpoints only" in text


def test_a_run_from_a_cascade_with_frozen_parameters_goes_on_is_exported_and_begun_from(folder):
    tuned = (
        f"--init_from={folder}/cascade/stage_8", "--config.train.trainable=('*attention*',)",
        "--config.data.held_out=2", "--config.train.sample_every=3",
    )  # fmt: skip
    steps = "--config.train.num_steps={}".format
    text = train(folder, "tuned", *tuned, steps(6), devices=1)
    assert f"Begins with the parameters of {folder}/cascade/stage_8, step 8" in text
    assert "0.1M parameters (0.1M of them frozen), pmap on 1" in text
    for num_steps, strategy, devices in ((3, "zero1", 4), (6, "fsdp", 2)):
        train(folder, "moving", *tuned, steps(num_steps), f"--config.train.strategy={strategy}", devices=devices)
    assert_same_losses(folder, "moving", "tuned", last=6)
    held_out = [[line["eval/held_out_loss"] for line in read_metrics(folder / name) if "eval/held_out_loss" in line]
                for name in ("moving", "tuned")]  # fmt: skip
    assert len(held_out[0]) == 2
    np.testing.assert_allclose(held_out[0], held_out[1], rtol=1e-4)

    # From another folder, whose frozen parameters are the same; but not with others trained.
    other = f"--init_from={folder}/moving"
    text = train(folder, "tuned", other, "--config.train.trainable=('*',)", *tuned[2:], steps(7), devices=1, expect=2)
    assert "config.train.trainable: ['*attention*'] there, ['*'] here" in text
    text = train(folder, "tuned", other, *tuned[1:], steps(7), devices=1)
    assert "Frozen parameters are those of" in text and "is a run, whose newest checkpoint is read again" in text
    assert "Going on from step 6" in text and "changed since this run was started: config.train.init_from" in text

    # Another start would come to nothing where all is in the checkpoint.
    text = train(folder, "straight", tuned[0], steps(9), devices=1, expect=2)
    assert "config.train.init_from: '' there, '" in text

    run("export", f"--workdirs={folder}/tuned", f"--out={folder}/tuned_cascade")
    before, after = (load_file(folder / name / "stage_8" / "ema.safetensors") for name in ("cascade", "tuned_cascade"))
    assert before.keys() == after.keys()
    for path in before:
        assert bool(np.any(before[path] != after[path])) == ("attention" in path), path
