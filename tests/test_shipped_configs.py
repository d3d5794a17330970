"""The files in configs/: each is valid as it stands, and the commands that name them work."""

import importlib

import jax
import pytest

from imagen_jax import build
from imagen_jax.config import validate
from imagen_jax.errors import InputError
from tests.mains import REPO, run

RUNS = [(f"emoji_{stage}", variant) for stage in ("base", "sr1", "sr2") for variant in ("demo", "full")]
PAPER = ["imagen_base64", "imagen_sr256", "imagen_sr1024"]
ALL = [*RUNS, *((name, None) for name in PAPER)]


def load(name, variant):
    get_config = importlib.import_module(f"configs.{name}").get_config
    return get_config(variant) if variant else get_config()


def test_every_file_is_listed_here():
    assert {path.stem for path in (REPO / "configs").glob("*.py")} == {name for name, _ in ALL}


@pytest.mark.parametrize(("name", "variant"), ALL)
def test_it_is_valid_on_one_device_and_on_eight(name, variant):
    for num_devices in (1, 8):
        validate(load(name, variant), num_devices=num_devices)


@pytest.mark.parametrize("variant", ["demo", "full"])
def test_the_emoji_stages_chain(variant):
    stages = [load(f"emoji_{stage}", variant) for stage in ("base", "sr1", "sr2")]
    sizes = [(config.data.low_res_size, config.data.image_size) for config in stages]
    assert sizes == ([(0, 16), (16, 64), (64, 256)] if variant == "demo" else [(0, 64), (64, 256), (256, 1024)])


@pytest.mark.parametrize("name", ["emoji_base", "emoji_sr2"])
def test_every_part_of_a_full_size_emoji_run_is_made_without_memory(name):
    config = load(name, "full")
    state = jax.eval_shape(build.create(config, text_width=64), jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(state.params)) > 1e7


def test_the_residual_on_the_low_resolution_input_is_for_predicting_x():
    config = load("emoji_sr1", "demo")
    build.check(config)
    config.diffusion.update(prediction="v", weighting="v")
    with pytest.raises(InputError, match="stages that predict x"):
        build.check(config)


def test_dry_run_prints_config_and_parameters_and_makes_nothing(tmp_path):
    output = run("train", "--config=configs/emoji_sr1.py:demo", "--dry_run", f"--config.data.data_dir={tmp_path}/data")
    assert '"image_size": 64' in output
    assert "conv_in/kernel" in output
    assert "total" in output
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--config.data.bach_size=8", "Did you mean --config.data.batch_size?"),
        ("--config.data.batch_size=12", "8 devices; use 8 or 16"),
        ("--config.data.image_size=63", "multiples of 4, such as 60 or 64"),
        ("--config.data.batch_size=-8", "must be > 0 (got -8)"),
        ("--config.model.chanels=3", "Did you mean --config.model.channels?"),
        ("--config.diffusion.prediction=epsilon", 'unknown prediction type "epsilon"'),
        ("--config.diffusion.schedule=cosin", 'Did you mean "cosine"?'),
        ("--config.diffusion.weighting=p2", 'unknown loss weighting "p2"'),
        ("--config.diffusion.weighting=eps", "weights of up to"),
        ("--config.model.attention_levels=(True,)", "one a level"),
        ("--config.optimizer.name=adamw", "adafactor, adam"),
        ("--config.sampling.sampler=euler", "ddim, ddpm"),
        ("--config.model.dtype=float16", "bfloat16, float32"),
        ("--config.data.text_store=absent", "python -m imagen_jax.precompute_text"),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_made(tmp_path, argument, message):
    arguments = ("--config=configs/emoji_base.py:demo", f"--workdir={tmp_path}/run", argument)
    output = run("train", *arguments, expect=2, devices=8)
    assert message in output
    assert "Traceback" not in output
    assert not (tmp_path / "run").exists()
