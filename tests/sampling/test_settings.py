import dataclasses
import json

import jax
import pytest

from imagen_jax.errors import InputError
from imagen_jax.sampling.settings import BY_FLAG, SETTINGS, SamplingSettings, without_effect


def test_settings_read_back_from_json_are_the_same_and_hashable():
    settings = SamplingSettings(times=(1.0, 0.5), guidance_interval=(0.2, 0.8))
    read = SamplingSettings(**json.loads(json.dumps(settings.__dict__)))
    assert read == settings and hash(read) == hash(settings)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sampler": "plms"}, r'unknown sampler "plms"; choose from: ddim, ddpm, dpmpp_2m, dpmpp_2m_sde, euler, heun'),
        ({"spacing": "quadratic"}, r'unknown step spacing "quadratic"'),
        ({"threshold": "soft"}, r'unknown threshold "soft"; choose from: dynamic, none, static'),
        ({"num_steps": 0}, r"num_steps must be a whole number from 1 to 10,000 \(got 0\)"),
        ({"times": (0.2, 0.8)}, r"times must fall, from 1 \(noise\) towards 0.*\(got \(0.2, 0.8\)\)"),
        ({"times": "fast"}, r"times must be a tuple of up to 10,000 entries, .*\(got 'fast', which is no tuple\)"),
        ({"guidance_interval": (0.8, 0.2)}, r"0 <= from < to <= 1.*\(got \(0.8, 0.2\)\)"),
        ({"guidance_interval": (0.5, 0.5)}, r"0 <= from < to <= 1"),
        (
            {"guidance_interval": (-0.1, 0.5)},
            r"from 0 to 1, .* \(got \(-0.1, 0.5\), -0.1 among them",
        ),
        ({"guidance_interval": (0.2, 1.5)}, r"a number from 0 to 1, .*1.5 among them"),
        ({"guidance_interval": (0.2,)}, r"a tuple of 2 entries"),
        ({"guidance_weight": -1.0}, r"guidance_weight must be a number from 0 to 1,000 \(got -1.0\)"),
        ({"guidance_weight": float("nan")}, r"guidance_weight must be a number from 0 to 1,000 \(got nan\)"),
        ({"gamma": 1.5}, r"gamma must be a number from 0 to 1 \(got 1.5\)"),
        ({"eta": -0.5}, r"eta must be a number from 0 to 1 \(got -0.5\)"),
        ({"guidance_rescale": 2.0}, r"guidance_rescale must be a number from 0 to 1 \(got 2.0\)"),
        ({"aug_level": 2.0}, r"aug_level must be a number from 0 to 1 \(got 2.0\)"),
        ({"threshold_percentile": 101.0}, r"threshold_percentile must be a number from 0 to 100 \(got 101.0\)"),
        ({"threshold_cap": 0.5}, r"threshold_cap must be a number from 1 to 1,000, or 0 \(got 0.5\)"),
    ],
)
def test_a_wrong_setting_is_one_line(values, message):
    with pytest.raises(InputError, match=message):
        SamplingSettings(**values)


def stages(*changes):
    return {8 * 2**number: dataclasses.asdict(SamplingSettings(**each)) for number, each in enumerate(changes)}


@pytest.mark.parametrize(
    ("name", "without", "with_effect", "message"),
    [
        (
            "guidance_interval",
            {},
            {"guidance_weight": 2.0},
            "guidance_interval has no effect without guidance",
        ),
        ("guidance_rescale", {}, {"guidance_weight": 2.0}, "; set that, or leave guidance_rescale out"),
        (
            "gamma",
            {"sampler": "ddim"},
            {"sampler": "ddpm"},
            "gamma has no effect without a sampler that has it",
        ),
        ("eta", {"sampler": "ddpm"}, {"sampler": "ddim"}, 'such as "ddim"'),
        ("threshold_cap", {"threshold": "static"}, {"threshold": "dynamic"}, 'without the threshold "dynamic"'),
        ("threshold_percentile", {"threshold": "none"}, {"threshold": "dynamic"}, 'without the threshold "dynamic"'),
        ("steps", {"times": (1.0, 0.5)}, {}, "steps has no effect where times are given"),
        ("spacing", {"times": (1.0, 0.5)}, {}, "spacing has no effect where times are given"),
    ],
)
def test_a_setting_that_no_stage_of_any_point_uses_is_said(name, without, with_effect, message):
    (said,) = without_effect([name], [stages(without, without), stages(without)])
    assert message in said
    assert without_effect([name], [stages(without, without), stages(without, with_effect)]) == []
    assert without_effect([], [stages(without)]) == []


def test_an_augmentation_level_is_for_super_resolution():
    (said,) = without_effect(["aug_level"], [stages({})])
    assert said.startswith("aug_level has no effect without a super-resolution stage")
    assert without_effect(["aug_level", "steps", "sampler"], [stages({}, {})]) == []


def test_a_compiled_program_is_the_same_for_other_values_of_what_is_traced_and_for_those_alone():
    weights = [SamplingSettings(guidance_weight=weight, aug_level=level) for weight, level in ((2.0, 0.1), (3.0, 0.2))]
    assert jax.tree.structure(weights[0]) == jax.tree.structure(weights[1])
    assert jax.tree.leaves(weights[1]) == [3.0, 0.2]
    assert [type(leaf) for leaf in jax.tree.leaves(SamplingSettings(guidance_weight=3, aug_level=0))] == [float, float]
    # Without guidance there is another program, and so there is for every other value.
    assert jax.tree.structure(weights[0]) != jax.tree.structure(SamplingSettings())
    for name, value in {"sampler": "ddim", "num_steps": 8, "gamma": 0.4, "times": (1.0, 0.5)}.items():
        changed = dataclasses.replace(weights[0], **{name: value})
        assert jax.tree.structure(changed) != jax.tree.structure(weights[0]), name
    assert jax.tree.map(lambda x: x, weights[0]) == weights[0]


def test_every_setting_says_what_it_is_and_has_a_flag_of_its_own():
    assert len(BY_FLAG) == len(SETTINGS) == len(dataclasses.fields(SamplingSettings))
    for name, setting in SETTINGS.items():
        assert setting.field.help.endswith(".") and "\n" not in setting.field.help, name
        setting.field.check(name, getattr(SamplingSettings(), name))
