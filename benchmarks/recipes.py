"""The paper's recipe and a modern one, trained on the emoji demo for the same number of images.

python -m benchmarks.recipes            2 hours on two cores; interrupted, it goes on where it stopped

Trains configs/emoji_base.py:paper and :modern, samples both with every sampler at 4 to 256 steps, and writes tables,
a plot and pictures: docs/recipes.md, recipes.png and recipes_grid.png. For each point: how many of the samples' nearest
training images have the caption's own name, and the Frechet distance of the colours of 4 x 4 cells between samples and
their captions' own images. Beside them the demo's own recipe, with two samplers.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags, logging

from benchmarks import recipes_report
from imagen_jax import cli, evaluators
from imagen_jax.data.sources import open_source
from imagen_jax.evaluation.base import Samples
from imagen_jax.evaluation.frechet import cell_colours, frechet_distance
from imagen_jax.evaluation.image_sets import ArrayImages
from imagen_jax.evaluation.retrieval import NameAlignment
from imagen_jax.files import write_json
from imagen_jax.sampling import load_cascade
from imagen_jax.sampling.cascade import Cascade
from imagen_jax.sampling.images import to_uint8

_WORK = flags.DEFINE_string("work", "runs/recipes", "Folder of the trainings, and of what was measured.")
_RECIPES = flags.DEFINE_list("recipes", list(recipes_report.RECIPES), "Which to train and measure.")
_DOCS = flags.DEFINE_string("docs", "docs", "Folder of the report.")

SOURCE = "emoji/food:train"
ENCODER, TEXT = "demo/encoder", "demo/text"  # where the configs look for them
STEPS = (4, 8, 16, 32, 64, 256)
# Each with the spacing that suits it. Euler's method is DDIM. Heun's 64 steps are 127 evaluations.
SAMPLERS: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "ddpm": ({"spacing": "uniform"}, STEPS),
    "ddim": ({"spacing": "uniform"}, STEPS),
    "heun": ({"spacing": "karras"}, STEPS[:-1]),
    "dpmpp_2m": ({"spacing": "uniform_logsnr"}, STEPS),
    "dpmpp_2m_sde": ({"spacing": "uniform_logsnr"}, STEPS),
    "unipc": ({"spacing": "uniform_logsnr"}, STEPS),
}
OF_DEMO = ("ddpm", "dpmpp_2m")
BASE_SIZE = 16
NUM_SAMPLES = 128  # captions a point


def main() -> None:
    """Trains, measures and writes the report."""
    work = Path(_WORK.value)
    data = open_source(SOURCE, data_dir="datasets")
    real = to_uint8(evaluators.source_images(data, range(len(data)), image_size=BASE_SIZE))
    for recipe in _RECIPES.value:
        cascade = load_cascade(_train(recipe, work / recipe))
        grid = work / recipe / "grid.json"
        if not grid.is_file():
            write_json(grid, _pictures(cascade, data))
        for sampler, (settings, steps) in SAMPLERS.items():
            for num_steps in steps if recipe != "demo" or sampler in OF_DEMO else ():
                path = work / recipe / "points" / f"{sampler}_{num_steps}.json"
                if not path.is_file():
                    point = {"sampler": sampler, "num_steps": num_steps, **settings}
                    write_json(path, _measure(cascade, data, real, **point))
                logging.info("%s: %s", recipe, " ".join(path.read_text(encoding="utf-8").split()))
    if all((work / recipe / "points").is_dir() for recipe in recipes_report.RECIPES):
        recipes_report.write(work, Path(_DOCS.value), null=_null(real), num_samples=NUM_SAMPLES)


def _train(recipe: str, folder: Path) -> Path:
    """The cascade's folder; what is there already is not made again."""
    cascade = folder / "cascade"
    if cascade.is_dir():
        return cascade
    if not Path(TEXT).is_dir():
        _run("untrained_encoder", f"--data={SOURCE}", f"--out={ENCODER}")
        _run("precompute_text", f"--encoder={ENCODER}", f"--data={SOURCE}", "--max_length=24", f"--out={TEXT}")
    _run("train", f"--config=configs/emoji_base.py:{recipe}", f"--workdir={folder / 'base'}")
    _run("export", f"--workdirs={folder / 'base'}", f"--out={cascade}")
    return cascade


def _run(command: str, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", f"imagen_jax.{command}", *arguments], check=True)


def _chosen(data: Any) -> np.ndarray:
    """The same captions at every point."""
    return np.sort(np.random.default_rng(0).permutation(len(data))[:NUM_SAMPLES])


def _measure(cascade: Cascade, data: Any, real: np.ndarray, **settings: Any) -> dict[str, Any]:
    chosen, captions = _chosen(data), data.captions()
    names = [data[index]["name"] for index in range(len(data))]
    prompts = [captions[index] for index in chosen]
    images = cascade(prompts, seed=0, batch_size=NUM_SAMPLES, **settings)
    # Nothing of a point's program is of use to the next one.
    jax.clear_caches()
    return {
        "sampler": settings["sampler"],
        "num_steps": settings["num_steps"],
        "evaluations": settings["num_steps"] * 2 - 1 if settings["sampler"] == "heun" else settings["num_steps"],
        "names_right": _names_right(images, [names[index] for index in chosen], real, names),
        "colour_distance": frechet_distance(cell_colours(images), cell_colours(real[chosen])),
    }


def _names_right(images: np.ndarray, asked: list[str], real: np.ndarray, names: list[str]) -> float:
    found = NameAlignment(real, names, seed=0)(Samples({images.shape[1]: ArrayImages(images)}, names=asked))
    return found["name_accuracy"].value


def _null(real: np.ndarray) -> float:
    """Between two halves of the real images: samples that follow their captions are nearer to these captions' own."""
    order = np.random.default_rng(1).permutation(len(real))
    half = len(real) // 2
    return frechet_distance(cell_colours(real[order[:half]]), cell_colours(real[order[half : 2 * half]]))


def _pictures(cascade: Cascade, data: Any) -> dict[str, Any]:
    """Some captions and their samples with the recipe's own settings, enlarged."""
    captions = data.captions()
    prompts = [captions[index] for index in _chosen(data)[: recipes_report.GRID_COLUMNS]]
    return {"captions": prompts, "images": cascade(prompts, seed=0).tolist()}


if __name__ == "__main__":
    cli.run(main)
