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

from imagen_jax import hosts
from imagen_jax.errors import InputError
from imagen_jax.evaluation.base import Measure, Metric, Samples, measure
from imagen_jax.evaluation.bounds import check_count
from imagen_jax.evaluation.image_folder import ImageFolder
from imagen_jax.evaluation.output_folders import POINTS, SWEEP_FILE
from imagen_jax.evaluation.pages.run_folder import RUN_FILE, Run, image_path, read_run, write_run
from imagen_jax.evaluation.sweeps.grid import Point
from imagen_jax.files import read_json, write_bytes, write_json
from imagen_jax.json_values import WrongValue, get_list, get_number, get_object, is_text, shown

_RESULT = "result.json"
_REPORT_EVERY_S = 10.0
# Of a terminal, less one: a full line would be followed by an empty one.
_WIDTH = 79
_MEASURE = {field.name for field in dataclasses.fields(Measure)}

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

    Raises:
      InputError: no images, or batches of none.
    """

    out: Path
    points: Sequence[Point]
    sizes: Sequence[int]
    count: int
    batch_size: int

    def __post_init__(self) -> None:
        check_count("count", self.count, least=1)
        check_count("batch_size", self.batch_size, least=1)

    def folder(self, point: Point) -> Path:
        """Of a point."""
        return self.out / POINTS / point.name

    def begin(self, identity: Mapping[str, Any]) -> None:
        """Says in OUT what is swept, or checks that it is what was begun there. On several hosts all call it.

        Args:
          identity: what images depend on, and points share: by name, JSON values.

        Raises:
          InputError: OUT holds the sweep of something else; the message names what differs.
        """
        hosts.check_equal(dict(identity) | {"points": [point.name for point in self.points]})
        path = self.out / SWEEP_FILE
        begun = path.is_file()
        foreign = None if begun else what_else(self.out)
        hosts.gather("looked")  # before any of them writes
        if begun:
            before = _read_sweep(path)["identity"]
            # As JSON gives them back.
            now = json.loads(json.dumps(dict(identity)))
            differing = [key for key in now if before.get(key) != now[key]]
            if differing:
                named = "; ".join(f"{key} is {shown(now[key])}, and was {shown(before.get(key))}" for key in differing)
                raise InputError(
                    f'"{self.out}" has samples of another sweep: {named}. Choose another --out, or delete that folder'
                )
        elif foreign:
            raise InputError(
                f'"{self.out}" holds {foreign}, which is something else than a sweep; choose another --out'
            )
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
            self._check_settings(point, run(point))
            if hosts.is_first():
                write_run(self.folder(point), run(point))
            for first in missing[point.name][jax.process_index() :: jax.process_count()]:
                count = min(self.batch_size, self.count - first)
                for size, images in sample(point, first, count).items():
                    for row, image in enumerate(images):
                        _write_png(image_path(self.folder(point), size=size, index=first + row), image)
                place, state = f"point {number} of {len(self.points)}", f"{first + count} of {self.count} images"
                progress.step(place, point.name, state, batches=jax.process_count())
            hosts.gather(point.name)  # they wait for each other
            yield point

    def _check_settings(self, point: Point, run: Run) -> None:
        """Raises InputError where the point's folder has images of other settings, as another version may have had."""
        differing = []
        if (self.folder(point) / RUN_FILE).is_file():
            before, now = read_run(self.folder(point)).settings, json.loads(json.dumps(dict(run.settings)))
            differing = [
                size for size, own in now.get("settings", {}).items() if before.get("settings", {}).get(size) != own
            ]
        # As the first host sees it, before it writes; and all come here, whatever they see.
        if found := hosts.gather(", ".join(differing))[0]:
            raise InputError(
                f'"{self.folder(point)}" has images of other settings at {found} px; choose another --out, or delete '
                "that folder"
            )

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
        # As JSON gives it back, where tuples are lists.
        found = _kept_measures(path, json.loads(json.dumps(made_of)))
        if hosts.everywhere(found is not None) and found is not None:
            return found, fingerprint
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
    """Says now and then how far the sampling is, and how long it will take, in a line of a terminal."""

    def __init__(self, batches: int):
        self._left, self._done = batches, 0
        self._started = self._said = time.monotonic()

    def step(self, place: str, name: str, state: str, *, batches: int) -> None:
        self._done += batches
        now = time.monotonic()
        if now - self._said > _REPORT_EVERY_S:
            self._said = now
            minutes = (now - self._started) / self._done * max(0, self._left - self._done) / 60
            logging.info("%s", progress_line(place, name, f"{state}; {minutes:.1f} minutes left"))


def progress_line(place: str, name: str, state: str, *, width: int = _WIDTH) -> str:
    """Returns "place, name: state", the name shortened in its middle so that all of it fits into `width` characters."""
    room = max(8, width - len(place) - len(state) - len(", : "))
    if len(name) > room:
        kept = room - len("...")
        name = f"{name[: kept - kept // 2]}...{name[len(name) - kept // 2 :]}"
    return f"{place}, {name}: {state}"


def _present(folder: Path, sizes: Sequence[int]) -> set[int]:
    """The images that are there in every size."""
    each = []
    for size in sizes:
        files = (folder / str(size)).iterdir() if (folder / str(size)).is_dir() else ()
        found = (_IMAGE_FILE.fullmatch(path.name) for path in files)
        each.append({int(match[1]) for match in found if match})
    return set.intersection(*each)


def _kept_measures(path: Path, made_of: Mapping[str, Any]) -> dict[str, Measure] | None:
    """What a point was measured to be, of the same and with the same; None where there is nothing that can be used."""
    if not path.exists():
        return None
    try:
        found = read_json(path, expected="a point's result")
        if found.get("made_of") != made_of:
            return None
        return read_measures(found)
    except (InputError, WrongValue) as error:
        logging.warning("a point's result can't be used, and is measured again: %s", error)
        return None


def read_measures(result: Mapping[str, Any]) -> dict[str, Measure]:
    """Reads the measures of a point's result.json. Raises WrongValue if they are something else."""
    measures: dict[str, Measure] = {}
    for entry in get_list(result, "measures"):
        if not isinstance(entry, list) or len(entry) != 2 or not isinstance(entry[0], str):
            raise WrongValue(f"measures holds {shown(entry)}; expected pairs of a name and its numbers")
        name, fields = entry
        if not isinstance(fields, dict) or set(fields) != _MEASURE:
            raise WrongValue(f"{name[:80]} is {shown(fields)}; expected {', '.join(sorted(_MEASURE))}")
        numbers = [fields[key] for key in _MEASURE - {"kind", "caveats"}]
        caveats = fields["caveats"]
        if (
            isinstance(fields["value"], bool | None)
            or not all(number is None or type(number) in (int, float) for number in numbers)
            or fields["kind"] not in ("distance", "alignment", "")
            or not isinstance(caveats, list)
            or not all(isinstance(text, str) for text in caveats)
        ):
            raise WrongValue(f"{name[:80]} has values of other types than a measure's")
        measures[name] = Measure(**{**fields, "caveats": tuple(caveats)})
    return measures


def _write_png(path: Path, image: np.ndarray) -> None:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "png")
    write_bytes(path, buffer.getvalue())


def _read_sweep(path: Path) -> dict[str, Any]:
    """sweep.json, with all that `Sweep.begin` writes."""
    content = read_json(path, expected="a folder that --cascade=... --out=FOLDER wrote")
    try:
        get_object(content, "identity")
        count = get_number(content, "count", least=1, most=2**31)
        points, sizes = get_list(content, "points"), get_list(content, "sizes")
        if not all(isinstance(name, str) and is_text(name) and _is_file_name(name) for name in points):
            raise WrongValue(f"points is {shown(points)}; expected names")
        if not all(type(size) is int and 0 < size <= 65_536 for size in sizes):
            raise WrongValue(f"sizes is {shown(sizes)}; expected sizes in pixels")
    except WrongValue as error:
        raise InputError(f'"{path}" is damaged ({error}); choose another --out, or delete that folder') from None
    return content | {"count": count}


def _is_file_name(name: str) -> bool:
    return name not in ("", ".", "..") and not set(name) & set("/\0") and len(name.encode()) <= 255


def what_else(out: Path, *, own: str = SWEEP_FILE) -> str | None:
    """Says what a folder holds besides the file `own`, whole or half-written: "a.txt, ..."; None if nothing."""
    there = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
    others = [name for name in there if not name.startswith(own)]
    return f"{others[0]}{', ...' if len(others) > 1 else ''}" if others else None


def describe_status(out: Path) -> str:
    """Says how far a sweep is: one line per point.

    Raises:
      InputError: there is none in `out`, or its sweep.json is damaged.
    """
    sweep = _read_sweep(out / SWEEP_FILE)
    lines, total = [], 0
    for name in sweep["points"]:
        folder = out / POINTS / name
        there = len(_present(folder, sweep["sizes"]))
        total += there
        measured = "measured" if (folder / _RESULT).is_file() else "not measured"
        lines.append(f"{name}: {there} of {sweep['count']} images, {measured}")
    whole = sweep["count"] * len(sweep["points"])
    return "\n".join([*lines, f"in all {total} of {whole} images ({total / whole:.0%})"])
