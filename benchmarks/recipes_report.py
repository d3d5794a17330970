"""docs/recipes.md, its plot and its pictures, from what benchmarks.recipes measured."""

import json
from pathlib import Path
from typing import Any

import matplotlib.figure
import numpy as np

from imagen_jax.files import write_text
from imagen_jax.sampling.images import labelled_grid, save_png

GRID_COLUMNS = 8
RECIPES = ("paper", "modern", "demo")
_INTRODUCTION = """# Two recipes and their samplers

Written by `make recipes` (two CPU cores). It trains configs/emoji_base.py with the variants `:paper`, `:modern`
(configs/recipes.py) and `:demo`, which predicts x, for 2,200 steps of 32 images each, and samples {num_samples}
training captions (16 px) with the same noise at every point.

*Names right*: the sample's nearest training image has the caption's own name. *Colour distance*: the Frechet distance,
times 1000, of the mean colours of 4 x 4 cells between the samples and their captions' own images; between two halves of
the data it is {null:.1f}. Steps of Heun's method are two evaluations each, but the last; Euler's method is DDIM.
"""
_METRICS = {"names_right": "names right, %", "colour_distance": "colour distance x 1000"}


def write(work: Path, docs: Path, *, null: float, num_samples: int) -> None:
    """Writes all three files and prints where they are."""
    points = {recipe: _read_points(work / recipe / "points") for recipe in RECIPES}
    docs.mkdir(parents=True, exist_ok=True)
    _plot(points, null, docs / "recipes.png")
    grids = {recipe: json.loads((work / recipe / "grid.json").read_text("utf-8")) for recipe in RECIPES}
    pictures = [np.array(image, np.uint8) for recipe in RECIPES for image in grids[recipe]["images"]]
    captions = [f"{recipe}: {text}" for recipe in RECIPES for text in grids[recipe]["captions"]]
    save_png(labelled_grid(pictures, captions, columns=GRID_COLUMNS), docs / "recipes_grid.png")
    write_text(docs / "recipes.md", _page(points, null, num_samples))
    print(f"report: {docs}/recipes.md, recipes.png, recipes_grid.png")


def _read_points(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text("utf-8")) for path in folder.glob("*.json")]


def _shown(metric: str, value: float) -> float:
    return 100.0 * value if metric == "names_right" else 1000.0 * value


def _curve(points: list[dict[str, Any]], sampler: str, x: str, metric: str) -> list[tuple[int, float]]:
    return sorted((point[x], _shown(metric, point[metric])) for point in points if point["sampler"] == sampler)


def _samplers(points: list[dict[str, Any]]) -> list[str]:
    return sorted({point["sampler"] for point in points})


def _plot(points: dict[str, list[dict[str, Any]]], null: float, path: Path) -> None:
    figure = matplotlib.figure.Figure(figsize=(12, 7), layout="constrained")
    axes = figure.subplots(2, len(RECIPES), sharex=True, sharey="row")
    everywhere = _samplers([point for recipe in RECIPES for point in points[recipe]])
    colours = {name: f"C{number}" for number, name in enumerate(everywhere)}
    for row, (metric, label) in zip(axes, _METRICS.items(), strict=True):
        for axis, recipe in zip(row, RECIPES, strict=True):
            for sampler in _samplers(points[recipe]):
                x, y = zip(*_curve(points[recipe], sampler, "evaluations", metric), strict=True)
                axis.plot(x, y, marker="o", markersize=4, color=colours[sampler], label=sampler)
            axis.set_xscale("log", base=2)
            axis.set_xticks([4, 8, 16, 32, 64, 128, 256], ["4", "8", "16", "32", "64", "128", "256"])
            axis.grid(alpha=0.3)
            if metric == "colour_distance":
                axis.set_yscale("log")
                axis.axhline(_shown(metric, null), color="black", linestyle=":", label="two halves of the data")
                axis.set_xlabel("network evaluations (levels)")
            else:
                axis.set_title(f":{recipe}")
        row[0].set_ylabel(label)
        row[0].legend(fontsize=8)
    figure.savefig(path, dpi=110)


def _page(points: dict[str, list[dict[str, Any]]], null: float, num_samples: int) -> str:
    lines = [
        _INTRODUCTION.format(num_samples=num_samples, null=_shown("colour_distance", null)),
        "![Both metrics against network evaluations](recipes.png)",
        "",
        *(line for metric, label in _METRICS.items() for line in _table(points, metric, label)),
        "## The same captions by all, each with its own sampler",
        "",
        "![A row a recipe, 16 px enlarged](recipes_grid.png)",
        "",
    ]
    return "\n".join(lines)


def _table(points: dict[str, list[dict[str, Any]]], metric: str, label: str) -> list[str]:
    steps = sorted({point["num_steps"] for point in points["paper"]})
    lines = [f"## {label[0].upper()}{label[1:]}", "", f"| recipe | sampler | {' | '.join(map(str, steps))} |"]
    lines.append("|---|---|" + "---|" * len(steps))
    for recipe in RECIPES:
        for sampler in _samplers(points[recipe]):
            values = dict(_curve(points[recipe], sampler, "num_steps", metric))
            cells = [f"{values[count]:.1f}" if count in values else "" for count in steps]
            lines.append(f"| {recipe} | {sampler} | {' | '.join(cells)} |")
    return [*lines, ""]
