"""Values of sampling settings as they are typed, and as Python has them."""

from typing import Any

import numpy as np
import pytest

from imagen_jax.errors import InputError
from imagen_jax.sampling.setting_values import one_each, parse_setting
from imagen_jax.sampling.settings import BY_FLAG


@pytest.mark.parametrize(
    ("flag", "text", "value"),
    [
        ("steps", "8", 8),
        ("steps", "8/4", [8, 4]),
        ("guidance", "1.5/1/1", [1.5, 1.0, 1.0]),
        ("guidance", "3/", [3.0, None]),
        ("guidance", "/3/", [None, 3.0, None]),
        ("guidance", " 3 / 1 ", [3.0, 1.0]),
        ("sampler", "ddim/unipc", ["ddim", "unipc"]),
        ("times", "1:0.5", (1.0, 0.5)),
        ("times", "1:0.5/1:0.2", [(1.0, 0.5), (1.0, 0.2)]),
        ("times", "1/1", [(1.0,), (1.0,)]),
        ("guidance_interval", "0.2:0.8", (0.2, 0.8)),
    ],
)
def test_slashes_separate_stages_and_colons_numbers(flag: str, text: str, value: Any):
    assert parse_setting(BY_FLAG[flag], text) == value


@pytest.mark.parametrize(
    ("flag", "text", "message"),
    [
        ("times", "1,0.7", "expected levels falling from 1 (noise) .*; numbers are separated by ':', --times=1:0.7"),
        ("times", "0.2:0.7", "expected levels falling from 1 (noise) towards 0 (clean), separated by colons"),
        ("times", "1:nan", "expected levels falling"),
        ("times", "1 0.7", "expected levels falling"),
        ("times", "", "expected levels falling"),
        ("guidance_interval", "0.8:0.2", "expected FROM:TO, two times with 0 <= FROM < TO <= 1"),
        ("guidance_interval", "0.8", "expected FROM:TO"),
        ("steps", "4.5", "expected a whole number from 1 to 10,000; slashes separate stages"),
        ("steps", "1e3", "expected a whole number"),
        ("steps", "0", "expected a whole number from 1"),
        ("steps", "9" * 5000, "expected a whole number"),
        ("guidance", "nan", "expected a number from 0 to 1,000"),
        ("guidance", "inf", "expected a number"),
        ("guidance", "-1", "expected a number from 0"),
        ("guidance", "3,1,1", "; slashes separate stages; stages are separated by '/', --guidance=3/1/1"),
        ("guidance", "", "expected a number"),
        ("guidance", "/", "expected a number"),
        ("times", "1:0.5,1:0.2", "stages are separated by '/', --times=1:0.5/1:0.2"),
        ("sampler", "ddim,unipc", "stages are separated by '/', --sampler=ddim/unipc"),
        ("sampler", "plms", 'unknown sampler "plms"; choose from'),
        ("sampler", "", "expected a text that is not empty"),
    ],
)
def test_a_wrong_value_is_said_in_the_language_of_the_flag(flag: str, text: str, message: str):
    start, _, end = message.partition(" .*")
    with pytest.raises(InputError) as error:
        parse_setting(BY_FLAG[flag], text)
    assert start in str(error.value) and end in str(error.value)
    assert "got (" not in str(error.value)


OWN = [1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("guidance_weight", 5.0, [5.0, 5.0, 5.0]),
        ("guidance_weight", [5.0, 6.0, 7.0], [5.0, 6.0, 7.0]),
        ("guidance_weight", [5.0, None, 7.0], [5.0, 2.0, 7.0]),
        ("guidance_weight", [5.0, None], [5.0, 2.0, 3.0]),
        ("guidance_weight", [5.0, 6.0, 7.0, None], [5.0, 6.0, 7.0]),
        ("guidance_weight", np.array([5.0, 6.0, 7.0]), [5.0, 6.0, 7.0]),
        # Of super-resolution alone.
        ("aug_level", 0.5, [1.0, 0.5, 0.5]),
        ("aug_level", [0.1, 0.2, 0.3], [0.1, 0.2, 0.3]),
        ("times", (1.0, 0.5), [(1.0, 0.5)] * 3),
        ("times", [(1.0,), (1.0, 0.5), None], [(1.0,), (1.0, 0.5), 3.0]),
        ("image_shards", 2, [2, 2, 2]),
        ("sampler", "ddim", ["ddim"] * 3),
    ],
)
def test_one_value_is_for_all_stages_and_a_list_has_one_a_stage(name: str, value: Any, expected: list[Any]):
    assert one_each(name, value, OWN) == expected


@pytest.mark.parametrize("value", [[1.0, 2.0], [1.0, 2.0, 3.0, 4.0], [], [1.0, 2.0, 3.0, 4.0, None]])
def test_a_list_of_another_length_is_an_error(value: list[Any]):
    with pytest.raises(InputError, match=r"one value for all stages, or one for each of the 3 \(got \d\)"):
        one_each("guidance_weight", value, OWN)
