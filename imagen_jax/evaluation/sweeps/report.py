"""The numbers of samples and sweeps, for people and programs: results.json, results.csv, the curve, a grid, lines.

Nothing here tells when or how fast it was made, so that the same sweep gives the same bytes.
"""

import csv
import io
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from imagen_jax.data.records import decode_image
from imagen_jax.evaluation.base import Measure, Metric
from imagen_jax.evaluation.pages.run_folder import Run, image_paths
from imagen_jax.evaluation.pages.sample_page import write_page
from imagen_jax.evaluation.reference import Reference
from imagen_jax.evaluation.sweeps import curve
from imagen_jax.files import write_bytes, write_json, write_text
from imagen_jax.sampling.images import labelled_grid

_GRID_IMAGES = 32
# Of a terminal, for sentences.
_WIDTH = 79


def entry(measures: Mapping[str, Measure], about: Mapping[str, Any]) -> dict[str, Any]:
    """One set of samples in results.json: numbers by the metrics' names, what they were measured on, and caveats."""
    numbers = {key: value for name, measure in measures.items() for key, value in measure.flat(name).items()}
    caveats = sorted({caveat for measure in measures.values() for caveat in measure.caveats})
    return {**numbers, **about, "caveats": caveats}


def about(metrics: Sequence[Metric], reference: Reference | None) -> dict[str, Any]:
    """Collects what numbers depend on besides the samples: what the metrics are made of, and the reference."""
    found = {key: value for metric in metrics for key, value in metric.made_of.items()}
    return found | ({"reference": reference.fingerprint} if reference else {})


def describe(measures: Mapping[str, Measure]) -> str:
    """Returns a line per number with what is known of it, and then the notes, wrapped."""
    lines = []
    for name, measure in measures.items():
        said = []
        if measure.low is not None and measure.high is not None:
            said.append(f"95%: {measure.low:.4g} to {measure.high:.4g}")
        if measure.deviation is not None:
            said.append(f"deviation {measure.deviation:.2g}")
        if measure.null is not None:
            said.append(f"null {measure.null:.4g}")
        if measure.real is not None:
            said.append(f"real images {measure.real:.4g}")
        lines.append(f"  {name} {measure.value:.5g}" + (f" ({', '.join(said)})" if said else ""))
    for caveat in sorted({text for each in measures.values() for text in each.caveats}):
        lines += textwrap.wrap(f"  note: {caveat}", _WIDTH, subsequent_indent="    ")
    return "\n".join(lines)


class Table:
    """OUT/results.json, results.csv and, where there is a distance or an alignment, curve.png and curve.svg."""

    def __init__(self, out: Path, *, title: str, varied: str):
        """`varied`: the settings whose values are the labels of the curve."""
        self._out, self._title, self._varied = out, title, varied
        self._entries: list[Mapping[str, Any]] = []
        self._settings: list[Mapping[int, Mapping[str, Any]]] = []
        self._measures: list[Mapping[str, Measure]] = []
        self._labels: list[str] = []

    def add(
        self,
        entry: Mapping[str, Any],
        measures: Mapping[str, Measure],
        *,
        settings: Mapping[int, Mapping[str, Any]],
        label: str,
    ) -> None:
        """Writes everything with one more point.

        Args:
          entry: see `entry`.
          settings: image size -> setting -> value.
        """
        self._entries.append(entry)
        self._settings.append(settings)
        self._measures.append(measures)
        self._labels.append(label)
        write_json(self._out / "results.json", self._entries)
        write_text(self._out / "results.csv", to_csv(self._entries, self._settings))
        axes = curve.axes_of(self._measures)
        if any(axes):
            pictures = curve.draw(
                self._measures,
                self._labels,
                alignment=axes[0],
                distance=axes[1],
                title=self._title,
                varied=self._varied,
            )
            for kind, data in pictures.items():
                write_bytes(self._out / f"curve.{kind}", data)


def to_csv(entries: Sequence[Mapping[str, Any]], settings: Sequence[Mapping[int, Mapping[str, Any]]]) -> str:
    """CSV, a column for every key of the entries, and for every setting of every stage."""
    lines = []
    for each, stages in zip(entries, settings, strict=True):
        flat = {f"{size}.{name}": value for size, stage in stages.items() for name, value in stage.items()}
        lines.append({key: _cell(value) for key, value in {**each, **flat}.items()})
    columns = dict.fromkeys(key for line in lines for key in line)
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, (list, tuple)):
        return " ".join(map(_cell, value))
    return str(value)


def show(folder: Path, run: Run) -> None:
    """FOLDER/grid.png of the first samples and, where a prompt has several, a page with all: FOLDER/index.html."""
    paths = image_paths(folder, run)
    first = [path for of_prompt in paths for path in of_prompt][:_GRID_IMAGES]
    captions = [prompt for prompt in run.prompts.prompts for _ in range(run.samples_per_prompt)][:_GRID_IMAGES]
    pictures = [np.asarray(decode_image(path.read_bytes())) for path in first]
    buffer = io.BytesIO()
    Image.fromarray(labelled_grid(pictures, captions, columns=8)).save(buffer, "png")
    write_bytes(folder / "grid.png", buffer.getvalue())
    if run.samples_per_prompt > 1:
        # The page says itself which prompts they are.
        facts = {key: value for key, value in run.settings.items() if not key.startswith(("prompts", "settings"))}
        stages = run.settings.get("settings", {})
        facts |= {f"{size} px": settings for size, settings in stages.items()}
        write_page(folder / "index.html", run.title, run.prompts, paths, facts)
