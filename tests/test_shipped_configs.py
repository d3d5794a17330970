"""The files in configs/: each is valid as it stands, and the commands that name them work."""

import importlib

import jax
import jax.numpy as jnp
import pytest

from configs import recipes
from imagen_jax import build
from imagen_jax.config import to_json, validate
from imagen_jax.errors import InputError
from imagen_jax.resolve import AUTO_PROMPTS, resolve
from imagen_jax.training import parallel
from tests.mains import REPO, run

EMOJI = [f"emoji_{stage}" for stage in ("base", "sr1", "sr2")]
PAPER = ["imagen_base64", "imagen_sr256", "imagen_sr1024"]
OWN = [f"{machine}_{stage}" for machine in ("laptop", "gpu", "pod") for stage in ("base", "sr")]
RECIPES = ("paper", "modern")
ALL = [
    *((name, variant) for name in EMOJI for variant in ("demo", "full", *RECIPES)),
    *((name, variant) for name in PAPER for variant in RECIPES),
    *(("own_data", variant) for variant in OWN),
]


def load(name, variant):
    return importlib.import_module(f"configs.{name}").get_config(variant)


def test_every_file_is_listed_here():
    # recipes.py is what the others start from.
    assert {path.stem for path in (REPO / "configs").glob("*.py")} == {name for name, _ in ALL} | {"recipes"}


@pytest.mark.parametrize(("name", "variant"), ALL)
def test_it_is_valid_on_one_device_and_on_eight(name, variant):
    config = load(name, variant)
    build.check(config)
    for num_devices in (1, 8):
        validate(config, num_devices=num_devices)


@pytest.mark.parametrize("name", PAPER)
def test_a_paper_sized_config_is_the_papers_unless_asked_otherwise(name):
    get_config = importlib.import_module(f"configs.{name}").get_config
    assert to_json(get_config()) == to_json(load(name, "paper"))


@pytest.mark.parametrize("name", [*EMOJI, *PAPER])
def test_a_recipe_is_more_than_a_name(name):
    paper, modern = load(name, "paper"), load(name, "modern")
    assert (paper.diffusion.prediction, paper.diffusion.weighting, paper.sampling.sampler) == ("eps", "plain", "ddpm")
    assert (modern.diffusion.prediction, modern.diffusion.weighting) == ("v", "min_snr")
    assert (modern.diffusion.schedule, modern.optimizer.name) == ("shifted_cosine", "adamw")
    assert modern.sampling.sampler == "dpmpp_2m" and modern.sampling.guidance_interval != (0.0, 1.0)
    is_base = not paper.data.low_res_size
    assert paper.optimizer.name == ("adafactor" if is_base else "adam")
    assert paper.diffusion.schedule == ("linear" if name in ("imagen_sr1024", "emoji_sr2") else "cosine")
    # The same network, data and number of images.
    for group in ("model", "data", "train"):
        assert paper[group].to_dict() == modern[group].to_dict()


@pytest.mark.parametrize("variant", ["demo", "paper", "modern", "full"])
def test_the_emoji_stages_chain(variant):
    stages = [load(f"emoji_{stage}", variant) for stage in ("base", "sr1", "sr2")]
    sizes = [(config.data.low_res_size, config.data.image_size) for config in stages]
    assert sizes == ([(0, 16), (16, 64), (64, 256)] if variant != "full" else [(0, 64), (64, 256), (256, 1024)])


@pytest.mark.parametrize("machine", ["laptop", "gpu", "pod"])
def test_the_stages_on_own_data_chain_and_take_their_prompts_from_it(machine):
    base, sr = load("own_data", f"{machine}_base"), load("own_data", f"{machine}_sr")
    assert (base.data.low_res_size, sr.data.low_res_size) == (0, base.data.image_size)
    assert sr.data.image_size == 4 * base.data.image_size
    for config in (base, sr):
        assert config.prompts == AUTO_PROMPTS and config.data.source == ""
        assert config.data.text_store == base.data.text_store and config.data.max_tokens == base.data.max_tokens


@pytest.mark.parametrize("variant", [variant for variant in OWN if "laptop" not in variant])
def test_the_recipe_on_own_data_is_the_modern_one(variant):
    config, again = load("own_data", variant), load("own_data", variant)
    recipes.modern(again, guidance_weight=config.sampling.guidance_weight)
    assert to_json(again) == to_json(config)


def test_every_run_decays_to_its_end_or_not_at_all():
    # The numbers of the runs that README and docs report.
    decay_steps = {case: resolve(load(*case)).optimizer.decay_steps for case in ALL}
    assert {variant: decay_steps["emoji_base", variant] for variant in ("demo", *RECIPES, "full")} == {
        "demo": 2_200, "paper": 2_200, "modern": 2_200, "full": 60_000,
    }  # fmt: skip
    assert [decay_steps[name, "demo"] for name in EMOJI] == [2_200, 1_700, 1_200]
    assert [decay_steps[name, "full"] for name in EMOJI] == [60_000, 40_000, 40_000]
    assert [decay_steps[name, "paper"] for name in PAPER] == [2_500_000, 2_500_000, 0]
    for case, steps in decay_steps.items():
        config = load(*case)
        assert steps in (0, config.train.num_steps)
        assert resolve(config).optimizer.warmup_steps == config.optimizer.warmup_steps


@pytest.mark.parametrize("name", ["emoji_base", "emoji_sr2"])
def test_every_part_of_a_full_size_emoji_run_is_made_without_memory(name):
    config = load(name, "full")
    state, _ = build.shapes(config, text_width=64)
    assert sum(leaf.size for leaf in jax.tree.leaves(state.params)) > 1e7


def test_what_a_config_says_of_a_step_reaches_it():
    config = load("emoji_base", "modern")
    config.train.accumulate_steps = 4
    given = build.step(config).keywords["settings"]
    assert given.stratified_times is True and given.accumulate_steps == 4
    assert given.compute_dtype == jnp.dtype(config.model.dtype)
    assert build.step(load("emoji_base", "paper")).keywords["settings"].stratified_times is False


def uses(jaxpr, var):
    """The equations that read `var`, in the programs that it is handed on to as well."""
    for equation in jaxpr.eqns:
        for index, read in enumerate(equation.invars):
            if read is not var:
                continue
            inner = [getattr(value, "jaxpr", value) for value in equation.params.values()]
            inner = [program for program in inner if hasattr(program, "eqns")]
            if inner:
                yield from uses(inner[0], inner[0].invars[index])
            else:
                yield equation


@pytest.mark.parametrize("name", ["imagen_base64", "imagen_sr256"])
def test_a_large_kernel_is_cast_before_anything_else(name):
    """As fsdp has it, which casts them before it sends them."""
    config = load(name, "paper")
    config.data.batch_size = 1
    params = build.shapes(config, text_width=64)[0].params
    batch = build.batch_shapes(config, text_width=64)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 1))
    t = jax.ShapeDtypeStruct((1,), jnp.float32)
    loss = build.task(config).loss
    program = jax.make_jaxpr(lambda params, *examples: loss(params, {}, *examples))(params, batch, keys, t).jaxpr
    large = [
        var
        for var, leaf in zip(program.invars, jax.tree.leaves(params), strict=False)  # the batch and keys follow
        if leaf.ndim > 1 and leaf.size >= parallel._SMALL
    ]
    assert len(large) > 100
    for var in large:
        assert {use.primitive.name for use in uses(program, var)} == {"convert_element_type"}
        assert {use.params["new_dtype"] for use in uses(program, var)} == {jnp.dtype(config.model.dtype)}


@pytest.mark.parametrize(
    ("prediction", "weighting", "unbounded"),
    [("x", "eps", True), ("eps", "x", True), ("x", "v", True), ("v", "eps", False), ("x", "edm", False)],
)
def test_weights_that_one_end_of_the_noise_levels_would_own_are_refused(prediction, weighting, unbounded):
    config = load("emoji_base", "demo")
    config.diffusion.update(prediction=prediction, weighting=weighting)
    if not unbounded:
        build.check(config)
        return
    with pytest.raises(InputError, match="weights of up to"):
        build.check(config)


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
        ("--config.data.batch_size=-8", "must be a whole number from 1 to 1,048,576 (got -8)"),
        ("--config.model.chanels=3", "Did you mean --config.model.channels?"),
        ("--config.diffusion.prediction=epsilon", 'unknown prediction type "epsilon"'),
        ("--config.diffusion.schedule=cosin", 'Did you mean "cosine"?'),
        ("--config.diffusion.weighting=min_snrr", 'Did you mean "min_snr"?'),
        ("--config.diffusion.weighting=eps", "weights of up to"),
        ("--config.model.attention_levels=(True,)", "one per level"),
        ("--config.optimizer.name=lion", "adafactor, adam, adamw"),
        ("--config.optimizer.weight_decay=0.1", "weight_decay = 0.1 is for adamw"),
        ("--config.train.strategy=zero3", "fsdp, pmap, zero1"),
        ("--config.train.accumulate_steps=3", "config.train.accumulate_steps = 3 parts each; use 24 or 48"),
        ("--config.sampling.sampler=plms", "config.sampling: unknown sampler"),
        ("--config.sampling.guidance_interval=(0.8,0.2)", "0 <= from < to <= 1"),
        ("--config.sampling.spacing=if_fast27", "list of 27 steps; use that many (got 16)"),
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
