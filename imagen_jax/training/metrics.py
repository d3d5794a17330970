"""Metrics of a run: WORKDIR/metrics.jsonl, TensorBoard events, and pictures as PNG."""

import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from imagen_jax.files import write_text

_FILE = "metrics.jsonl"


class MetricWriter:
    """Appends to a workdir's metrics; of a resumed run, lines after `first_step` are dropped: they are made again."""

    def __init__(self, workdir: Path, *, first_step: int):
        # Here, because it imports torch where that is installed, and importing imagen_jax must not.
        from tensorboardX import SummaryWriter

        self._workdir = workdir
        workdir.mkdir(parents=True, exist_ok=True)
        path = workdir / _FILE
        if path.exists():
            _keep_lines_up_to(path, first_step)
        self._file = path.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(workdir / "tensorboard"), purge_step=first_step + 1 if first_step else None)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """One JSON line {"step": step, name: value, ...}, with values that are not finite as null."""
        line = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._file.write(json.dumps({"step": step, **line}) + "\n")
        self._file.flush()
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def image(self, step: int, name: str, image: np.ndarray) -> Path:
        """Writes uint8 [H,W,3] to WORKDIR/NAME/STEP.png and TensorBoard; returns the file."""
        path = self._workdir / name / f"{step:08d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
        self._board.add_image(name, image, step, dataformats="HWC")
        return path

    def close(self) -> None:
        """Writes what is still held."""
        self._file.close()
        self._board.close()


def read_metrics(workdir: Path) -> list[dict[str, float]]:
    """The lines of a workdir's metrics.jsonl, oldest first; a line that a kill cut off is left out."""
    lines = []
    for line in (workdir / _FILE).read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return lines


def _keep_lines_up_to(path: Path, step: int) -> None:
    kept = [line for line in read_metrics(path.parent) if line["step"] <= step]
    write_text(path, "".join(json.dumps(line) + "\n" for line in kept))
