import json

import numpy as np
import pytest
from PIL import Image

from benchmarks import recipes_report


def write_points(folder, recipe, samplers, steps):
    (folder / recipe / "points").mkdir(parents=True)
    for sampler in samplers:
        for count in steps:
            point = {
                "sampler": sampler,
                "num_steps": count,
                "evaluations": 2 * count - 1 if sampler == "heun" else count,
                "names_right": 0.5 + count / 1000,
                "colour_distance": 1.0 / count,
            }
            (folder / recipe / "points" / f"{sampler}_{count}.json").write_text(json.dumps(point))
    pictures = {"captions": ["a", "b"], "images": np.full((2, 16, 16, 3), 200).tolist()}
    (folder / recipe / "grid.json").write_text(json.dumps(pictures))


@pytest.fixture
def report(tmp_path):
    for recipe in ("paper", "modern"):
        write_points(tmp_path, recipe, ["ddpm", "heun"], (4, 64, 256))
    (tmp_path / "paper" / "points" / "heun_256.json").unlink()
    write_points(tmp_path, "demo", ["ddpm"], (4, 64, 256))
    recipes_report.write(tmp_path, tmp_path / "docs", null=0.123, num_samples=128)
    return tmp_path / "docs"


def test_the_page_has_a_row_for_each_recipe_and_sampler_and_a_column_for_each_number_of_steps(report):
    page = (report / "recipes.md").read_text("utf-8")
    assert "| recipe | sampler | 4 | 64 | 256 |" in page
    assert "| modern | ddpm | 50.4 | 56.4 | 75.6 |" in page
    assert "| modern | ddpm | 250.0 | 15.6 | 3.9 |" in page
    # What wasn't measured is left empty.
    assert "| paper | heun | 50.4 | 56.4 |  |" in page
    assert "two halves of\nthe data it is 123.0" in page
    for name in ("recipes.png", "recipes_grid.png"):
        assert f"({name})" in page


def test_plot_and_pictures_are_written(report):
    with Image.open(report / "recipes.png") as plot:
        assert plot.width > 1000
    with Image.open(report / "recipes_grid.png") as grid:
        assert np.asarray(grid).min() < 100  # captions
