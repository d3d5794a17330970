"""Metrics of a run: WORKDIR/metrics.jsonl, TensorBoard events, and pictures as PNG."""

import io
import json
import math
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import logging
from PIL import Image

from imagen_jax import storage
from imagen_jax.errors import InputError
from imagen_jax.files import parse_json, sync, write_bytes

_FILE = "metrics.jsonl"
_EVENTS = "tensorboard"
# A line of numbers is far shorter; a damaged file may be one line of gigabytes.
_MAX_LINE_BYTES = 1 << 20

# What earlier versions called a number -> its name now.
_OLD_NAMES = {
    **{name: f"train/{name}" for name in ("loss", "grad_norm", "param_norm", "update_norm", "skipped_steps")},
    **{
        name: f"perf/{name}"
        for name in ("images_per_s", "step_s", "data_wait_s", "left_s", "slowest_host", "share_of_peak")
    },
}


class MetricWriter:
    """Appends to a workdir's metrics; of a resumed run, lines after `first_step` are dropped: they are made again.

    Everything is written before a method returns, in this thread, so that a disk's failure is raised where it happens.
    """

    def __init__(self, workdir: Path, *, first_step: int):
        """Opens the files, without the lines that can't be read, which one warning counts.

        Raises:
          StorageError: the disk is full, read-only or gone; from the other methods too.
        """
        self._workdir = workdir
        path = workdir / _FILE
        with storage.writing(path):
            workdir.mkdir(parents=True, exist_ok=True)
            if path.exists() and not path.is_file():
                _set_aside(path)
            if path.exists():
                _keep_lines_up_to(path, first_step)
            self._file = path.open("ab")
        with storage.writing(workdir / _EVENTS):
            self._board = _Board(workdir / _EVENTS, first_step=first_step)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Writes one JSON line {"step": step, name: value, ...}, with values that are not finite as null."""
        line = {name: value if math.isfinite(value) else None for name, value in values.items()}
        with storage.writing(self._workdir / _FILE):
            self._file.write(json.dumps({"step": step, **line}).encode() + b"\n")
            self._file.flush()
        with storage.writing(self._workdir / _EVENTS):
            self._board.scalars(step, values)

    def text(self, step: int, name: str, text: str) -> None:
        """Shows `text` in TensorBoard as it is, in lines of fixed width."""
        with storage.writing(self._workdir / _EVENTS):
            self._board.text(step, name, text)

    def image(self, step: int, name: str, image: np.ndarray) -> Path:
        """Writes uint8 [H,W,3] to WORKDIR/NAME/STEP.png and TensorBoard; returns the file."""
        path = self._workdir / name / f"{step:08d}.png"
        data = io.BytesIO()
        Image.fromarray(image).save(data, "PNG")
        write_bytes(path, data.getvalue())
        with storage.writing(self._workdir / _EVENTS):
            self._board.image(step, name, image)
        return path

    def close(self) -> None:
        """Closes the files, once what they hold has reached the disk."""
        with storage.writing(self._workdir / _FILE), self._file:
            sync(self._file)
        with storage.writing(self._workdir / _EVENTS):
            self._board.close()


class _Board:
    """TensorBoard's events, without the thread of tensorboardX's own writer, whose failures nobody sees."""

    def __init__(self, folder: Path, *, first_step: int):
        # Here, because it imports torch where that is installed, and importing imagen_jax must not.
        from tensorboardX import record_writer, summary
        from tensorboardX.proto import event_pb2 as protocol

        event_pb2: Any = protocol  # whose names are made when it is imported
        self._summary: Any = summary
        self._checksum: Callable[[bytes], int] = record_writer.masked_crc32c
        self._event = event_pb2.Event
        folder.mkdir(parents=True, exist_ok=True)
        # A file for each start, by name in the order of time, as TensorBoard reads them.
        nanoseconds = time.time_ns()
        name = f"events.out.tfevents.{nanoseconds // 10**9:010d}.{nanoseconds % 10**9:09d}.{socket.gethostname()}"
        self._file = (folder / name).open("xb")
        self._write(file_version="brain.Event:2")
        if first_step:
            # TensorBoard hides what an earlier start has written of these steps, which are made again.
            log = event_pb2.SessionLog
            self._write(step=first_step + 1, session_log=log(status=log.START))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            if math.isfinite(value):  # of another tensorboardX would warn at each
                self._write(step=step, summary=self._summary.scalar(name, value))

    def text(self, step: int, name: str, text: str) -> None:
        # Markdown, where four spaces make a block that is shown as it is.
        block = "\n".join(f"    {line}" for line in text.splitlines())
        self._write(step=step, summary=self._summary.text(name, block))

    def image(self, step: int, name: str, image: np.ndarray) -> None:
        self._write(step=step, summary=self._summary.image(name, image, dataformats="HWC"))

    def close(self) -> None:
        with self._file:
            sync(self._file)

    def _write(self, **event: Any) -> None:
        """Writes one record of the TFRecord format: length, its checksum, data, its checksum."""
        data = self._event(wall_time=time.time(), **event).SerializeToString()
        length = struct.pack("<Q", len(data))
        checksums = [struct.pack("<I", self._checksum(part)) for part in (length, data)]
        self._file.write(length + checksums[0] + data + checksums[1])
        self._file.flush()


class _Line(NamedTuple):
    data: bytes
    values: dict[str, Any]


def read_metrics(workdir: Path) -> list[dict[str, float]]:
    """Reads a workdir's metrics.jsonl: [{"step": step, name: value or None, ...}], in the order of the file.

    Names of earlier versions are given as they are now: "loss" as "train/loss". Lines that a kill cut off, or that are
    no such line, are left out, with one warning that counts them.

    Raises:
      InputError: there is no such file, or it can't be read.
    """
    path = workdir / _FILE
    if not path.is_file():
        raise InputError(f'no "{path}"; expected the --workdir of a training run')
    return [{_name_now(name): value for name, value in line.values.items()} for line in _read_lines(path)]


def _name_now(name: str) -> str:
    return f"eval/{name.removeprefix('eval_')}" if name.startswith("eval_") else _OLD_NAMES.get(name, name)


def _keep_lines_up_to(path: Path, step: int) -> None:
    kept = [line.data for line in _read_lines(path) if line.values["step"] <= step]
    write_bytes(path, b"".join(kept))


def _read_lines(path: Path) -> list[_Line]:
    lines, dropped, example = [], 0, ""
    with path.open("rb") as file:
        for number, data in enumerate(_split(file), start=1):
            try:
                lines.append(_Line(data, _parse(data)))
            except InputError as error:
                dropped += 1
                example = example or f"line {number}: {error}"
    if dropped:
        lines_are = "1 line is" if dropped == 1 else f"{dropped} lines are"
        logging.warning("%s: %s damaged and left out (%s)", path, lines_are, example)
    return lines


def _split(file: io.BufferedIOBase) -> Iterator[bytes]:
    """The lines of a file with their ends; of one that is too long only a part that is too long."""
    while data := file.readline(_MAX_LINE_BYTES):
        yield data
        while len(data) == _MAX_LINE_BYTES and not data.endswith(b"\n"):
            data = file.readline(_MAX_LINE_BYTES)


def _parse(data: bytes) -> dict[str, Any]:
    expected = '{"step": a whole number, name: number or null ...}'
    if not data.endswith(b"\n"):
        raise InputError("it is cut off" if len(data) < _MAX_LINE_BYTES else "it is too long")
    line = parse_json(data, where="it", expected=expected)
    if not (isinstance(line, dict) and _is_number(line.get("step")) and isinstance(line["step"], int)):
        raise InputError(f"expected {expected}")
    if not all(value is None or _is_number(value) for value in line.values()):
        raise InputError(f"expected {expected}")
    return line


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _set_aside(path: Path) -> None:
    """Renames what is no file, such as a folder, to what no run reads."""
    aside, number = path.with_name(f"{path.name}.aside"), 1
    while os.path.lexists(aside):
        number += 1
        aside = path.with_name(f"{path.name}.aside.{number}")
    path.rename(aside)
    logging.warning("%s is no file, where a run writes its metrics, and now called %s", path, aside.name)
