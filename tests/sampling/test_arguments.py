"""Every argument of `Cascade.sample` is checked, before anything is read or compiled."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from imagen_jax.errors import InputError
from imagen_jax.sampling.cascade import Cascade
from imagen_jax.sampling.settings import FOREIGN_NAMES, SamplingSettings
from tests.sampling.test_placement import params_of, stage_config, texts

CONFIGS = (
    stage_config(8, None, name="unet", channels=8, channel_mults=(1,), num_blocks=1, attention_levels=(False,)),
    stage_config(16, 8, name="efficient_unet", channels=8, channel_mults=(1,), num_blocks=(1,), attention=("none",)),
)


def no_encoder() -> Any:
    raise AssertionError("the encoder is asked for")


@pytest.fixture(scope="module")
def cascade() -> Cascade:
    return Cascade(CONFIGS, [lambda config=config: params_of(config) for config in CONFIGS], no_encoder)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": [1]}, r"seed must be a whole number in \[0, 4294967295\], such as 0 \(got \[1\]\)"),
        ({"seed": 1.5}, "seed must be a whole number"),
        ({"seed": True}, r"seed must be a whole number.*\(got True\)"),
        ({"seed": -1}, r"\(got -1\)"),
        ({"seed": 2**32}, r"\(got 4294967296\)"),
        ({"seed": "1"}, r"\(got '1'\)"),
        ({"batch_size": "8"}, r"batch_size must be a whole number at least 1, such as 8 \(got '8'\)"),
        ({"batch_size": 2.0}, r"batch_size .*\(got 2.0\)"),
        ({"batch_size": 0}, r"at least 1, such as 8 \(got 0\)"),
        ({"first_index": -1}, r"first_index must be a whole number at least 0.*\(got -1\)"),
        ({"first_index": 10**12}, "first_index"),
        ({"devices": "all"}, r"devices must be a whole number, at least 1 \(got 'all'\)"),
        ({"devices": True}, "devices must be a whole number"),
        ({"image_shards": 1.0}, "image_shards must be a whole number"),
        ({"image_shards": [1, "2"]}, "stage of 16 px: image_shards must be a whole number"),
        ({"stop_at": "8"}, r"stop_at must be the size of a stage: 8, 16 \(got '8'\)"),
        ({"stop_at": True}, "stop_at must be"),
        ({"negative_prompts": []}, "negative_prompts is empty"),
        ({"negative_prompts": [3]}, r"negative_prompts\[0\] must be a string \(got 3\)"),
        ({"negative_prompts": 3}, "negative_prompts must be a list of captions"),
        ({"weak": "folder"}, "weak must be a cascade, by load_cascade"),
        ({"steps": 4.5}, r"num_steps must be a whole number from 1 to 10,000 \(got 4.5\)"),
        ({"steps": "4"}, r"whole number .*\(got '4'\)"),
        ({"steps": True}, r"whole number .*\(got True\)"),
        ({"steps": float("nan")}, r"whole number .*\(got nan\)"),
        ({"steps": 10**9}, r"from 1 to 10,000 \(got 1000000000\)"),
        ({"times": ["1.0", "0.5"]}, r"times must be a tuple of .*\(got '1.0', which is no tuple\)"),
        ({"times": (1.0, 1.0 - 1e-9)}, "two of the noise levels are the same"),
        ({"guidance": True}, r"guidance_weight must be a number from 0 to 1,000 \(got True\)"),
        ({"guidance": "3"}, r"\(got '3'\)"),
        ({"guidance": 1e38}, r"from 0 to 1,000 \(got 1e\+38\)"),
        ({"guidance": 10**400}, "guidance_weight must be a number from 0"),
        ({"gamma": "0.5"}, r"gamma must be a number from 0 to 1 \(got '0.5'\)"),
        ({"sampler": 3}, r"sampler must be a text that is not empty \(got 3\)"),
        ({"threshold_cap": float("inf")}, "threshold_cap must be a number from 1 to 1,000, or 0"),
        ({"threshold_cap": 1e30}, "threshold_cap must be a number from 1 to 1,000"),
        ({"steps": 4, "num_steps": 4}, "are one setting; give one of them"),
        ({"guidance_scale": 3.0}, r'unknown sampling setting "guidance_scale";.* Did you mean "guidance"\?'),
        ({"num_inference_steps": 3}, 'Did you mean "steps"'),
        ({"negative_prompt": "x"}, 'Did you mean "negative_prompts"'),
        ({"generator": 3}, 'Did you mean "seed"'),
        ({"num_images": 3}, "Here one image is drawn for each prompt: give a prompt as often as you want images of it"),
        ({"height": 64}, "stop_at says after which stage to stop"),
        ({"guidence": 3.0}, 'Did you mean "guidance"'),
        ({"guidance_scale": None}, "unknown sampling setting"),
    ],
)
def test_a_wrong_argument_is_one_clear_line(cascade, arguments, message):
    with pytest.raises(InputError, match=message) as error:
        cascade.sample(["a"], **arguments)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ("red apple", r'prompts must be a list of captions, such as \["red apple"\] \(got one string'),
        ([], "prompts is empty"),
        (["a", 3], r"prompts\[1\] must be a string \(got 3\)"),
        ([None], r"prompts\[0\] must be a string"),
        (["a", " "], "a prompt is empty"),
        (3, "prompts must be a list"),
        ({"a": 1}, "prompts must be a list"),
        (b"red", "got one string"),
        (["\ud800"], "not valid Unicode"),
    ],
)
def test_wrong_prompts_are_one_clear_line(cascade, prompts, message):
    with pytest.raises(InputError, match=message):
        cascade.sample(prompts)


def test_numbers_and_lists_of_numpy_are_numbers_and_lists(cascade):
    settings = cascade.settings(steps=np.int64(3), guidance=np.array([3.0, 1.0]), times=np.array([1.0, 0.5]))
    assert [each.guidance_weight for each in settings] == [3.0, 1.0]
    assert {type(each.num_steps) for each in settings} == {int}
    assert {each.times for each in settings} == {(1.0, 0.5)}
    text = texts().take([0])
    given: dict[str, Any] = {"stop_at": np.int32(8), "batch_size": np.int64(1), "first_index": np.int16(0)}
    images = cascade.sample(text, seed=np.uint32(3), **given)
    np.testing.assert_array_equal(images[8], cascade.sample(text, seed=3, batch_size=1, stop_at=8)[8])


def test_every_foreign_name_leads_to_a_name_that_is_there(cascade):
    names = {"prompts", "seed", "stop_at", "negative_prompts", "batch_size", "devices"}
    settings = {"guidance", "steps", *SamplingSettings.__dataclass_fields__}
    assert set(FOREIGN_NAMES.values()) - {""} <= names | settings
    assert not set(FOREIGN_NAMES) & settings


def test_each_stage_is_said_with_what_comes_next(cascade, caplog):
    with caplog.at_level("INFO", logger="absl"):
        cascade.sample(texts().take([0]), log_stages=True)
        first, second = [record.getMessage() for record in caplog.records]
        assert first.startswith("stage 1 of 2: 8 px, 1 image, 2 steps; then 16 px (each stage's first batch compiles")
        assert second == "stage 2 of 2: 8 -> 16 px, 1 image, 2 steps"
        caplog.clear()
        cascade.sample(texts().take([0]), stop_at=8)
    assert not caplog.records


def test_a_number_of_steps_takes_the_place_of_times_where_it_is_given_and_nowhere_else():
    timed = [dataclasses.replace(config, sampling={"times": [1.0, 0.5]}) for config in CONFIGS]
    cascade = Cascade(timed, [{}, {}], no_encoder)
    for given, expected in (({"steps": [4, None]}, [(), (1.0, 0.5)]), ({"spacing": "karras"}, [(), ()])):
        assert [each.times for each in cascade.settings(**given)] == expected
