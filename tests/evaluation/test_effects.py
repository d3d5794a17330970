import dataclasses

import pytest

from imagen_jax.errors import InputError
from imagen_jax.evaluation.sweeps.effects import check_effects
from imagen_jax.sampling.settings import SamplingSettings


def stages(*changes):
    return {8 * 2**number: dataclasses.asdict(SamplingSettings(**each)) for number, each in enumerate(changes)}


@pytest.mark.parametrize(
    ("name", "without", "with_effect", "message"),
    [
        ("guidance_interval", {}, {"guidance_weight": 2.0}, "--guidance_interval does nothing without guidance"),
        ("guidance_rescale", {}, {"guidance_weight": 2.0}, "set --guidance above it, or leave it out"),
        ("gamma", {"sampler": "ddim"}, {"sampler": "ddpm"}, "--gamma does something with --sampler=ddpm only; leave"),
        ("eta", {"sampler": "ddpm"}, {"sampler": "ddim"}, "with --sampler=ddim only"),
        ("threshold_cap", {"threshold": "static"}, {"threshold": "dynamic"}, "with --threshold=dynamic only"),
        ("threshold_percentile", {"threshold": "none"}, {"threshold": "dynamic"}, "with --threshold=dynamic only"),
    ],
)
def test_a_setting_that_no_stage_of_any_point_uses_is_an_error(name, without, with_effect, message):
    with pytest.raises(InputError, match=message):
        check_effects([name], [stages(without, without), stages(without)])
    check_effects([name], [stages(without, without), stages(without, with_effect)])
    check_effects([], [stages(without)])


def test_an_augmentation_level_is_for_super_resolution():
    with pytest.raises(InputError, match="--aug_level does nothing in a base stage"):
        check_effects(["aug_level"], [stages({})])
    check_effects(["aug_level", "steps", "sampler"], [stages({}, {})])
