"""A run may go on with another strategy and on other devices than it began with."""

import numpy as np

from imagen_jax.errors import EXIT_NO_CHECKPOINT
from imagen_jax.training.metrics import read_metrics
from tests.mains import prepare, run, run_folder


def train(folder, name, *flags, devices, expect=0):
    config = ("--config=tests/tiny_config.py:base", f"--workdir={folder}/{name}", *run_folder(folder))
    return run("train", *config, "--config.prompts=()", *flags, devices=devices, expect=expect)


def test_a_run_goes_on_with_another_strategy_on_other_devices(tmp_path):
    prepare(tmp_path)
    train(tmp_path, "straight", devices=1)
    stages = [(4, "zero1", 4), (8, "fsdp", 2)]
    for num_steps, strategy, devices in stages:
        flags = (f"--config.train.num_steps={num_steps}", f"--config.train.strategy={strategy}")
        text = train(tmp_path, "wandering", *flags, devices=devices)
        assert f"{strategy} on {devices} cpu device(s)" in text
    straight = {line["step"]: line["train/loss"] for line in read_metrics(tmp_path / "straight")}
    wandering = {line["step"]: line["train/loss"] for line in read_metrics(tmp_path / "wandering")}
    common = sorted(straight.keys() & wandering.keys())
    assert common[-1] == 8
    np.testing.assert_allclose([wandering[s] for s in common], [straight[s] for s in common], rtol=1e-5)

    # All checkpoints damaged: nothing starts anew unasked.
    for path in (tmp_path / "wandering" / "checkpoints").iterdir():
        if path.name.isdecimal():
            next(path.rglob("_METADATA")).unlink()
    text = train(tmp_path, "wandering", "--config.train.num_steps=9", devices=1, expect=EXIT_NO_CHECKPOINT)
    assert "damaged checkpoints only" in text
