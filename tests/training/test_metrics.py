import json
import logging
import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tensorboardX.proto import event_pb2 as protocol

from imagen_jax.errors import StorageError
from imagen_jax.training.metrics import MetricWriter, read_metrics

event_pb2: Any = protocol


def test_what_is_written_is_read(tmp_path):
    writer = MetricWriter(tmp_path, first_step=0)
    writer.scalars(1, {"train/loss": 0.5})
    writer.scalars(2, {"train/loss": float("nan")})
    writer.close()
    assert read_metrics(tmp_path) == [{"step": 1, "train/loss": 0.5}, {"step": 2, "train/loss": None}]


def test_a_resumed_run_repeats_no_line(tmp_path):
    writer = MetricWriter(tmp_path, first_step=0)
    for step in (1, 2, 3):
        writer.scalars(step, {"train/loss": float(step)})
    writer.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')  # a kill in the middle of a line
    writer = MetricWriter(tmp_path, first_step=2)
    writer.scalars(3, {"train/loss": 30.0})
    writer.close()
    assert [line["train/loss"] for line in read_metrics(tmp_path)] == [1.0, 2.0, 30.0]
    assert all(json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines())


def test_a_picture_is_saved_as_it_is(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    writer = MetricWriter(tmp_path, first_step=0)
    path = writer.image(7, "samples", image)
    writer.close()
    with Image.open(path) as saved:
        np.testing.assert_array_equal(np.asarray(saved), image)
    assert list((tmp_path / "tensorboard").iterdir())


@pytest.mark.parametrize(
    "strange",
    [
        b'{"step": 4, "lo',
        b"[1, 2]\n",
        b"{}\n",
        b'{"step": "4"}\n',
        b'{"step": 1.5}\n',
        b'{"step": 3, "train/loss": "low"}\n',
        b"\0\0\0\0\n",
        b"\xff\xfe\n",
        b"[" * 100_000 + b"\n",
        b"x" * 3_000_000 + b"\n",
    ],
    ids=lambda data: repr(data[:12]),
)
def test_a_torn_or_strange_line_is_dropped_and_said_and_the_run_goes_on(tmp_path, caplog, strange):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1, "train/loss": 1.0}\n' + (strange if strange.endswith(b"\n") else b""))
    with path.open("ab") as file:
        file.write(b'{"step": 2, "train/loss": 2.0}\n' + (b"" if strange.endswith(b"\n") else strange))
    with caplog.at_level(logging.WARNING, logger="absl"):
        writer = MetricWriter(tmp_path, first_step=9)
    assert caplog.text.count("1 line is damaged and left out (line") == 1
    writer.scalars(10, {"train/loss": 3.0})
    writer.close()
    assert [line["train/loss"] for line in read_metrics(tmp_path)] == [1.0, 2.0, 3.0]


def test_names_of_earlier_versions_are_read_as_they_are_now(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 1.0, "images_per_s": 2.0, "eval_names": 0.5}\n')
    assert read_metrics(tmp_path) == [{"step": 1, "train/loss": 1.0, "perf/images_per_s": 2.0, "eval/names": 0.5}]


def test_tensorboard_reads_what_is_written(tmp_path):
    writer = MetricWriter(tmp_path, first_step=0)
    writer.text(0, "config", '{\n  "seed": 0\n}')
    writer.scalars(1, {"train/loss": 0.5, "train/loss_t/0.0-0.2": float("nan")})
    writer.image(1, "samples", np.zeros((4, 5, 3), np.uint8))
    writer.close()
    (path,) = (tmp_path / "tensorboard").iterdir()
    data, found = path.read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        found.append(event_pb2.Event.FromString(data[12 : 12 + length]))
        data = data[16 + length :]
    tags = [value.tag for event in found for value in event.summary.value]
    assert found[0].file_version == "brain.Event:2"
    assert tags == ["config/text_summary", "train/loss", "samples"]


def test_a_full_disk_is_said_where_it_is_met(tmp_path):
    writer = MetricWriter(tmp_path, first_step=0)
    board: Any = writer._board
    board._file.close()
    message = r'can\'t write ".*tensorboard": No space left on device'
    with open("/dev/full", "wb", buffering=0) as board._file, pytest.raises(StorageError, match=message):
        writer.scalars(1, {"train/loss": 0.5})
    writer._file.close()
