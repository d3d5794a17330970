"""A sweep over sampling settings: a folder a point, images that are written once, and a table that is always the same.

OUT/sweep.json                        what all points share; another command's is refused
OUT/points/POINT/SIZE/000017.png      image 17 of a stage, from the same noise at every point
OUT/points/POINT/run.json             its prompts and settings, as `run_folder` has them
OUT/points/POINT/result.json          what was measured, and with what
OUT/results.json, .csv, curve.*       of all points so far: see `table` and `curve`

Each file is written whole or not at all, so that after a kill the same command goes on with what is missing.
"""

import dataclasses
import io
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging
from PIL import Image

from imagen_jax.errors import InputError
from imagen_jax.evaluation.base import Measure, Metric, Samples, measure
from imagen_jax.evaluation.image_folder import ImageFolder
from imagen_jax.evaluation.pages.run_folder import Run, image_path, write_run
from imagen_jax.evaluation.sweeps.grid import Point
from imagen_jax.files import read_json, write_bytes, write_json
from imagen_jax.training import hosts

_SWEEP, _RESULT = "sweep.json", "result.json"
_REPORT_EVERY_S = 10.0
_IMAGE_FILE = re.compile(r"(\d{6,})\.png")

# (point, first index, number of images) -> uint8 [n,H,W,3] by size, ascending.
Sample = Callable[[Point, int, int], Mapping[int, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Sweep:
    """What a sweep is of.

    Attributes:
      out: OUT.
      points: in the order of the table.
      sizes: of the images, ascending.
      count: images a point and size.
      batch_size: images that are sampled together, and lost together by a kill.
    """

    out: Path
    points: Sequence[Point]
    sizes: Sequence[int]
    count: int
    batch_size: int

    def folder(self, point: Point) -> Path:
        """Of a point."""
        return self.out / "points" / point.name

    def begin(self, identity: Mapping[str, Any]) -> None:
        """Says in OUT what is swept, or checks that it is what was begun there. On several hosts all call it.

        Args:
          identity: what images depend on, and points share: by name, JSON values.

        Raises:
          InputError: OUT holds the sweep of something else; the message names what differs.
        """
        hosts.check_equal(dict(identity) | {"points": [point.name for point in self.points]})
        path = self.out / _SWEEP
        begun, there = path.is_file(), list(self.out.iterdir()) if self.out.is_dir() else []
        hosts.gather("looked")  # before any of them writes
        if begun:
            before = read_json(path, expected="a sweep that was begun")["identity"]
            differing = [key for key in identity if before.get(key) != identity[key]]
            if differing:
                named = "; ".join(f"{key} is {identity[key]!r}, and was {before.get(key)!r}" for key in differing)
                raise InputError(
                    f'"{self.out}" has samples of another sweep: {named}. Choose another --out, or delete that folder'
                )
        elif not all(each.name.startswith(_SWEEP) for each in there):  # or a kill's half-written one
            raise InputError(f'"{self.out}" holds something else than a sweep; choose another --out')
        if hosts.is_first():
            points = [point.name for point in self.points]
            shared = {"points": points, "sizes": list(self.sizes), "count": self.count}
            write_json(path, {"identity": dict(identity), **shared})

    def sample(self, sample: Sample, run: Callable[[Point], Run]) -> Iterator[Point]:
        """Samples what is missing, and yields each point when all of its images are there.

        On several hosts all call it, and each samples some batches into the folder that they share.
        """
        # As the first host sees it, since another's view of a shared folder may be older.
        found = hosts.gather(json.dumps({point.name: self._missing(point) for point in self.points}))[0]
        missing: dict[str, list[int]] = json.loads(found)
        progress = _Progress(sum(map(len, missing.values())))
        for number, point in enumerate(self.points, 1):
            if hosts.is_first():
                write_run(self.folder(point), run(point))
            for first in missing[point.name][jax.process_index() :: jax.process_count()]:
                count = min(self.batch_size, self.count - first)
                for size, images in sample(point, first, count).items():
                    for row, image in enumerate(images):
                        _write_png(image_path(self.folder(point), size=size, index=first + row), image)
                place = f"point {number} of {len(self.points)}, {point.name}: {first + count} of {self.count} images"
                progress.step(place, batches=jax.process_count())
            hosts.gather(point.name)  # they wait for each other
            yield point

    def score(
        self, point: Point, metrics: Sequence[Metric], samples: Samples, of_real: Mapping[str, Measure]
    ) -> tuple[dict[str, Measure], str]:
        """Measures a point, if it hasn't been measured so. On several hosts all call it.

        Args:
          samples: their prompts and names; its images aren't used.
          of_real: measures of real images with the same prompts, of metrics of alignment.

        Returns:
          Its measures, and the fingerprint of its images of the last size.

        Raises:
          InputError: images are broken, or gone.
        """
        path = self.folder(point) / _RESULT
        images = self.images(point)
        made_of = {
            "images": [each.fingerprint for each in images.values()],
            "metrics": [{"metric": type(metric).__name__, **metric.made_of} for metric in metrics],
            "real": {name: each.value for name, each in of_real.items()},
        }
        fingerprint = list(images.values())[-1].fingerprint
        found = read_json(path, expected="a point's result") if path.is_file() else {}
        if hosts.everywhere(found.get("made_of") == made_of):
            return {name: _restored(fields) for name, fields in found["measures"]}, fingerprint
        measures = measure(metrics, dataclasses.replace(samples, images=images))
        for name, of_one in of_real.items():
            measures[name] = dataclasses.replace(measures[name], real=of_one.value)
        if hosts.is_first():
            # A list, because JSON's names are sorted, and the table's columns are in the metrics' order.
            fields = [[name, dataclasses.asdict(each)] for name, each in measures.items()]
            write_json(path, {"made_of": made_of, "measures": fields})
        return measures, fingerprint

    def images(self, point: Point) -> dict[int, ImageFolder]:
        """All of a point, by size.

        Raises:
          InputError: some are missing or broken.
        """
        images = {size: ImageFolder(self.folder(point) / str(size)) for size in self.sizes}
        for size, folder in images.items():
            if len(folder) != self.count:
                broken = f" ({folder.bad[0][0]} and {len(folder.bad) - 1} more are broken)" if folder.bad else ""
                raise InputError(
                    f"{self.folder(point) / str(size)} has {len(folder)} images in place of {self.count}{broken}; "
                    "delete those that are broken or none of its own, and start again"
                )
        return images

    def _missing(self, point: Point) -> list[int]:
        """The first images of batches that aren't whole."""
        complete = _present(self.folder(point), self.sizes)
        starts = range(0, self.count, self.batch_size)
        ends = (min(start + self.batch_size, self.count) for start in starts)
        return [start for start, end in zip(starts, ends, strict=True) if not complete.issuperset(range(start, end))]


class _Progress:
    """Says now and then how far the sampling is, and how long it will take."""

    def __init__(self, batches: int):
        self._left, self._done = batches, 0
        self._started = self._said = time.monotonic()

    def step(self, place: str, *, batches: int) -> None:
        self._done += batches
        now = time.monotonic()
        if now - self._said > _REPORT_EVERY_S:
            self._said = now
            minutes = (now - self._started) / self._done * max(0, self._left - self._done) / 60
            logging.info("%s; %.1f minutes left for sampling all", place, minutes)


def _present(folder: Path, sizes: Sequence[int]) -> set[int]:
    """The images that are there in every size."""
    each = []
    for size in sizes:
        files = (folder / str(size)).iterdir() if (folder / str(size)).is_dir() else ()
        found = (_IMAGE_FILE.fullmatch(path.name) for path in files)
        each.append({int(match[1]) for match in found if match})
    return set.intersection(*each)


def _restored(fields: Mapping[str, Any]) -> Measure:
    return Measure(**{**fields, "caveats": tuple(fields["caveats"])})


def _write_png(path: Path, image: np.ndarray) -> None:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "png")
    write_bytes(path, buffer.getvalue())


def describe_status(out: Path) -> str:
    """How far a sweep is: a line a point.

    Raises:
      InputError: there is none in `out`.
    """
    sweep = read_json(out / _SWEEP, expected="a folder that --cascade=... --out=FOLDER wrote")
    lines, total = [], 0
    for name in sweep["points"]:
        folder = out / "points" / name
        there = len(_present(folder, sweep["sizes"]))
        total += there
        measured = "measured" if (folder / _RESULT).is_file() else "not measured"
        lines.append(f"{name}: {there} of {sweep['count']} images, {measured}")
    whole = sweep["count"] * len(sweep["points"])
    return "\n".join([*lines, f"in all {total} of {whole} images ({total / whole:.0%})"])
