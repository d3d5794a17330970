"""A network without levels, a condition, a data set, a sampler and a metric, all from a module of the user's own."""

import json
import sys
from functools import partial

import numpy as np
import pytest
from PIL import Image

from imagen_jax import build, evaluators
from imagen_jax.conditions import find_condition
from imagen_jax.data.sources import open_source
from imagen_jax.diffusion.samplers import find_sampler
from imagen_jax.errors import InputError
from imagen_jax.models import make_model
from imagen_jax.sampling import load_cascade
from imagen_jax.training.metrics import read_metrics
from tests import own_project
from tests.mains import run

MODULE = "tests.own_project"
DATA = f"{MODULE}:open_squares"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    data = (f"--data={DATA}", f"--data_dir={folder}/datasets")
    run("untrained_encoder", *data, f"--out={folder}/encoder", "--width=16", "--num_heads=2", "--vocab_size=60")
    run("precompute_text", *data, f"--encoder={folder}/encoder", f"--out={folder}/text", "--max_length=8")
    return folder


@pytest.fixture(scope="module")
def trained(folder):
    for strategy in ("pmap", "zero1"):
        run(
            "train", "--config=tests/own_project.py", f"--workdir={folder}/{strategy}",
            f"--config.train.strategy={strategy}", f"--config.data.data_dir={folder}/datasets",
            f"--config.data.text_store={folder}/text", f"--config.data.text_encoder={folder}/encoder", devices=2,
        )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def cascade_folder(trained):
    output = run("export", f"--workdirs={trained}/pmap", f"--out={trained}/cascade", expect=2)
    assert f"--allow_modules={MODULE}" in output
    run("export", f"--workdirs={trained}/pmap", f"--out={trained}/cascade", f"--allow_modules={MODULE}")
    return trained / "cascade"


def test_it_trains_the_same_with_two_strategies_and_is_measured_meanwhile(trained):
    pmap, zero1 = (read_metrics(trained / strategy) for strategy in ("pmap", "zero1"))
    losses = [[line["train/loss"] for line in lines if "train/loss" in line] for lines in (pmap, zero1)]
    assert len(losses[0]) == 5 and losses[0][-1] < losses[0][0]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)
    assert 0 <= pmap[-1]["eval/brightness"] <= 255


def test_samples_in_training_are_given_what_the_records_say(folder):
    config = own_project.get_config()
    config.data.update(data_dir=f"{folder}/datasets", text_store=f"{folder}/text")
    source, text_store = own_project.open_squares("", ""), build.open_text_store(config)
    stage = build.stage_config(config, text_store=text_store)
    grid = evaluators.sample_grid(config, stage=stage, source=source, text_store=text_store)
    # A red square of 6 pixels a side in 16, and black.
    red = 2 * 36 / 256 - 1
    np.testing.assert_allclose(grid._given["mean_colour"], [[red, -1, -1]], atol=1e-6)
    metrics = evaluators.sample_metrics(config, stage=stage, source=source, text_store=text_store)
    assert metrics._given["mean_colour"].shape == (8, 3)
    assert len(np.unique(metrics._given["mean_colour"], axis=0)) == 8


def test_sampling_and_evaluating_with_them(cascade_folder, trained):
    allowed = (f"--cascade={cascade_folder}", f"--allow_modules={MODULE}")
    run("sample", *allowed, "--prompt=a small red square", f"--out={trained}/pictures")
    with Image.open(trained / "pictures/000_16.png") as picture:
        assert picture.size == (16, 16)
    record = json.loads((trained / "pictures/samples.json").read_text())
    assert record["settings"]["16"]["sampler"] == f"{MODULE}:straight"
    run(
        "evaluate", *allowed, f"--data={DATA}", f"--data_dir={trained}/datasets", "--num_samples=8",
        f"--sampler=ddim,{MODULE}:straight", f"--metrics={MODULE}:brightness", f"--out={trained}/sweep",
    )  # fmt: skip
    results = json.loads((trained / "sweep/results.json").read_text())
    assert [result["sampler"] for result in results] == ["ddim", f"{MODULE}:straight"]
    # Its own sampler is DDIM, written as a loop.
    assert results[0]["brightness"] == pytest.approx(results[1]["brightness"], abs=0.1)


def test_its_condition_is_given_or_its_default_is_taken(cascade_folder):
    cascade = load_cascade(cascade_folder, allow_modules=[MODULE])
    prompts = ["a small red square"] * 2
    plain = cascade(prompts)
    np.testing.assert_array_equal(cascade(prompts, given={"mean_colour": np.zeros((2, 3), np.float32)}), plain)
    coloured = cascade(prompts, given={"mean_colour": np.full((2, 3), 0.9, np.float32)})
    assert np.abs(coloured.astype(int) - plain).max() > 0
    for wrong in ("mean_color", "text_emb"):
        with pytest.raises(InputError, match=f'"{wrong}" is of no condition of any stage; there are: mean_colour$'):
            cascade(prompts, given={wrong: np.zeros((2, 3), np.float32)})
    with pytest.raises(InputError, match=r"one row a prompt, 2 \(got \[3, 3\]\)"):
        cascade(prompts, given={"mean_colour": np.zeros((3, 3), np.float32)})


def test_a_folder_imports_nothing_unless_its_module_is_allowed(cascade_folder, monkeypatch):
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    with pytest.raises(InputError, match=f"the module {MODULE} is imported, which runs it.*--allow_modules={MODULE}"):
        load_cascade(cascade_folder)
    with pytest.raises(InputError, match=f"--allow_modules={MODULE}"):
        load_cascade(cascade_folder, allow_modules=["tests"])
    with pytest.raises(InputError, match=f"--allow_modules={MODULE}"):
        load_cascade(cascade_folder, allow_modules=f"{MODULE}.more")
    assert MODULE not in sys.modules
    output = run("sample", f"--cascade={cascade_folder}", "--prompt=a", f"--out={cascade_folder}/no", expect=2)
    assert f"--allow_modules={MODULE}" in output and len(output.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("find", "name", "message"),
    [
        (make_model, "no_project.nets:Net", 'model "no_project.nets:Net": there is no module "no_project"'),
        (make_model, f"{MODULE}:Transformr", f'{MODULE} has no "Transformr". Did you mean "Transformer"'),
        (make_model, f"{MODULE}:straight", "is no network, a subclass of flax.linen.Module"),
        (find_sampler, f"{MODULE}:Brightness", "is no diffusion.samplers.Sampler"),
        (find_condition, f"{MODULE}:Brightness", 'has no method "given"'),
        (find_condition, "MeanColour", "is no condition of your own; expected MODULE:NAME"),
        (
            partial(open_source, data_dir="datasets"),
            f"{MODULE}:COLOURS",
            "is no function that opens a data set",
        ),
        (make_model, "tests.broken_project:Net", "importing tests.broken_project failed: ZeroDivisionError"),
    ],
)
def test_what_is_not_there_is_one_clear_error(find, name, message, tmp_path, monkeypatch):
    package = tmp_path / "broken_project.py"
    package.write_text("1 / 0\n")
    tests = sys.modules["tests"]
    monkeypatch.setattr(tests, "__path__", [*tests.__path__, str(tmp_path)])
    with pytest.raises(InputError) as error:
        find(name)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_condition_that_the_network_does_not_know_is_refused_before_anything_is_compiled(folder):
    output = run(
        "train", "--config=tests/tiny_config.py:base", f"--workdir={folder}/refused", "--dry_run",
        f"--config.conditions=('{MODULE}:MeanColour',)", expect=2,
    )  # fmt: skip
    assert 'the network UNet is given the condition "mean_colour", which it doesn\'t know' in output
    output = run(
        "train", "--config=tests/own_project.py", f"--workdir={folder}/refused", "--dry_run", "--config.conditions=()",
        expect=2,
    )  # fmt: skip
    assert 'needs the condition "mean_colour", which it isn\'t given' in output
