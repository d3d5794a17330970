import json

import numpy as np
from PIL import Image

from imagen_jax.training.metrics import MetricWriter, read_metrics


def test_what_is_written_is_read(tmp_path):
    writer = MetricWriter(tmp_path, first_step=0)
    writer.scalars(1, {"loss": 0.5})
    writer.scalars(2, {"loss": float("nan")})
    writer.close()
    assert read_metrics(tmp_path) == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": None}]


def test_a_resumed_run_repeats_no_line(tmp_path):
    writer = MetricWriter(tmp_path, first_step=0)
    for step in (1, 2, 3):
        writer.scalars(step, {"loss": float(step)})
    writer.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')  # a kill in the middle of a line
    writer = MetricWriter(tmp_path, first_step=2)
    writer.scalars(3, {"loss": 30.0})
    writer.close()
    assert [line["loss"] for line in read_metrics(tmp_path)] == [1.0, 2.0, 30.0]
    assert all(json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines())


def test_a_picture_is_saved_as_it_is(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    writer = MetricWriter(tmp_path, first_step=0)
    path = writer.image(7, "samples", image)
    writer.close()
    with Image.open(path) as saved:
        np.testing.assert_array_equal(np.asarray(saved), image)
    assert list((tmp_path / "tensorboard").iterdir())
