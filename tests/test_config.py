import json
from typing import Any

import pytest
from ml_collections import ConfigDict

from imagen_jax import build
from imagen_jax.config import base_config, check_resumes, choose_variant, to_json, validate
from imagen_jax.errors import InputError


def make_config(**overrides: Any) -> Any:
    """A valid super-resolution run; `overrides` by dotted key, written with __ ("data__batch_size")."""
    config = base_config()
    config.seed, config.ema_decay, config.prompts = 0, 0.999, ("red apple, twemoji style",)
    config.data.update(source="emoji/food:train", image_size=64, low_res_size=16, batch_size=16, max_tokens=32)
    config.model.update(
        name="efficient_unet", channels=16, channel_mults=(1, 2, 4), num_blocks=(1, 1, 1), num_heads=2,
        attention=("none", "none", "cross"),
    )  # fmt: skip
    config.diffusion.update(prediction="v", weighting="min_snr", max_aug_level=0.5)
    config.optimizer.update(warmup_steps=10, decay_steps=100)
    config.train.update(num_steps=100, log_every=10, checkpoint_every=50, sample_every=50, stall_minutes=1.0)
    config.sampling.update(num_steps=8, guidance_weight=3.0, aug_level=0.1)
    tree: Any = {name: value.to_dict() if isinstance(value, ConfigDict) else value for name, value in config.items()}
    for key, value in overrides.items():
        *groups, field = key.split("__")
        node = tree[groups[0]] if groups else tree
        node[field] = value
    return ConfigDict(tree)


def error_of(num_devices: int = 8, **overrides: Any) -> str:
    def check() -> None:
        config = make_config(**overrides)
        validate(config, num_devices=num_devices)
        build.check(config)

    with pytest.raises(InputError) as error:
        check()
    return str(error.value)


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"data__low_res_size": 0},
        {"data__crop_size": 32},
        {"optimizer__decay_steps": 0},
        {"train__accumulate_steps": 2},
        {"model__name": "unet", "model__num_blocks": 2, "data__image_size": 16, "data__low_res_size": 4},
    ],
)
def test_valid_configs_pass(overrides: dict[str, Any]):
    validate(make_config(**overrides), num_devices=8)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("data__batch_size", -5, "config.data.batch_size must be a whole number from 1 to 1,048,576 (got -5)"),
        ("data__max_tokens", 0, "config.data.max_tokens must be a whole number from 1 to 4,096 (got 0)"),
        ("train__log_every", 4.5, "config.train.log_every must be a whole number from 1 to 1,000,000,000 (got 4.5)"),
        (
            "train__num_steps",
            100.0,
            "config.train.num_steps must be a whole number from 1 to 1,000,000,000 (got 100.0); write 100",
        ),
        (
            "optimizer__learning_rate",
            0.0,
            "config.optimizer.learning_rate must be a number above 0, up to 10 (got 0.0)",
        ),
        (
            "optimizer__learning_rate",
            float("nan"),
            "config.optimizer.learning_rate must be a number above 0, up to 10 (got nan)",
        ),
        ("ema_decay", 1.0, "config.ema_decay must be a number between 0 and 1, both excluded (got 1.0)"),
        (
            "sampling__guidance_weight",
            -1.0,
            "config.sampling.guidance_weight must be a number from 0 to 1,000 (got -1.0)",
        ),
        ("diffusion__stratified_times", 1, "config.diffusion.stratified_times must be True or False (got 1)"),
        ("data__source", None, "config.data.source must be a text (got None)"),
        ("seed", [1], "config.seed must be a whole number from 0 to below 4,294,967,296 (got [1])"),
        (
            "seed",
            True,
            "config.seed must be a whole number from 0 to below 4,294,967,296 (got True); write 1 for the number",
        ),
        (
            "train__stall_minutes",
            1e30,
            "config.train.stall_minutes must be a number from 0 to 525,600 (got 1e+30)",
        ),
        (
            "prompts",
            "red apple",
            "config.prompts must be a tuple of up to 1,024 entries, each a text that is not empty, such as "
            '("red apple", "blue heart") (got \'red apple\', which is no tuple)',
        ),
        ("model__num_heads", 0, "config.model.num_heads must be a whole number from 1 to 1,024 (got 0)"),
    ],
)
def test_a_value_out_of_range_is_named_with_its_range(key: str, value: Any, message: str):
    assert error_of(**{key: value}) == message


@pytest.mark.parametrize(("batch_size", "nearest"), [(12, "8 or 16"), (5, "8")])
def test_a_batch_that_the_devices_do_not_divide_names_the_nearest(batch_size: int, nearest: str):
    message = error_of(data__batch_size=batch_size)
    assert message == f"config.data.batch_size = {batch_size} can't be divided among 8 devices; use {nearest}"


@pytest.mark.parametrize(("batch_size", "nearest"), [(24, "16 or 32"), (8, "16")])
def test_a_batch_that_the_parts_do_not_divide_names_both_fields_and_the_nearest(batch_size: int, nearest: str):
    assert error_of(data__batch_size=batch_size, train__accumulate_steps=2) == (
        f"config.data.batch_size = {batch_size} can't be divided among 8 devices in config.train.accumulate_steps = 2 "
        f"parts each; use {nearest}"
    )


@pytest.mark.parametrize(
    ("name", "num_blocks", "attention", "nearest"),
    # Three levels: the U-Net halves twice, the Efficient U-Net three times.
    [
        ("unet", 2, {"attention_levels": (False,) * 3}, "multiples of 4, such as 60 or 64"),
        ("efficient_unet", (1, 1, 1), {"attention": ("none",) * 3}, "multiples of 8, such as 56 or 64"),
    ],
)
def test_an_image_that_cannot_be_halved_names_the_sizes_it_can_take(
    name: str, num_blocks: Any, attention: Any, nearest: str
):
    config = make_config(data__image_size=63, data__low_res_size=21)
    config.model = {"name": name, "channels": 16, "channel_mults": (1, 2, 4), "num_blocks": num_blocks} | attention
    config.model.update(dtype="float32", remat=False)
    with pytest.raises(InputError) as error:
        build.check(config)
    message = str(error.value)
    assert "config.data.image_size = 63" in message
    assert nearest in message


@pytest.mark.parametrize(
    ("overrides", "names"),
    [
        ({"data__low_res_size": 24}, ["image_size = 64", "low_res_size = 24", "16 or 32"]),
        ({"data__low_res_size": 64}, ["image_size = 64", "low_res_size = 64", "16 or 32"]),
        ({"data__crop_size": 72}, ["crop_size = 72", "image_size = 64"]),
        ({"data__crop_size": 20}, ["crop_size = 20", "16 or 24"]),
        ({"data__crop_size": 32, "data__low_res_size": 0}, ["crop_size = 32", "low_res_size = 0"]),
        ({"sampling__aug_level": 0.8}, ["aug_level = 0.8", "max_aug_level = 0.5"]),
        ({"model__num_blocks": (1, 1)}, ["num_blocks = (1, 1) has 2", "channel_mults has 3"]),
        ({"optimizer__warmup_steps": 200}, ["warmup_steps = 200", "decay_steps = 100"]),
    ],
)
def test_fields_that_do_not_fit_are_both_named(overrides: dict[str, Any], names: list[str]):
    message = error_of(**overrides)
    assert all(name in message for name in names), message


def test_a_missing_field_is_named():
    config = make_config()
    del config.train.log_every
    with pytest.raises(InputError, match=r"config\.train\.log_every is missing"):
        validate(config, num_devices=1)


def test_choose_variant_lists_the_variants_and_the_closest():
    assert choose_variant("demo", {"demo": 1, "full": 2}) == 1
    with pytest.raises(InputError, match=r'no variant "dmo".*:demo, :full.*Did you mean "demo"'):
        choose_variant("dmo", {"demo": 1, "full": 2})


def test_the_written_form_depends_on_values_only():
    config = make_config()
    same = make_config()
    same.copy_of_seed = config.get_ref("seed")
    del same["copy_of_seed"]
    assert to_json(config) == to_json(same) != to_json(make_config(seed=1))


def test_a_run_goes_on_with_another_length_but_not_with_another_network():
    saved = json.loads(to_json(make_config()))
    check_resumes(make_config(train__num_steps=10**6, model__remat=True), saved, where="runs/x")
    other_training = {
        "train__accumulate_steps": 2,
        "diffusion__stratified_times": True,
        "diffusion__weighting": "plain",
        "optimizer__weight_decay": 0.1,
    }
    check_resumes(make_config(**other_training), saved, where="runs/x")
    with pytest.raises(InputError, match=r"config\.optimizer\.name: 'adam' there, 'adamw' here"):
        check_resumes(make_config(optimizer__name="adamw"), saved, where="runs/x")
    with pytest.raises(InputError, match=r"config\.model\.channels: \d+ there, 96 here"):
        check_resumes(make_config(model__channels=96), saved, where="runs/x")
    with pytest.raises(InputError, match=r'"runs/x" holds a run with another config'):
        check_resumes(make_config(diffusion__prediction="eps"), saved, where="runs/x")
