"""Attention and other layers of a real network read and changed while it samples."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import jax
import numpy as np
import pytest

from imagen_jax.conditions import Text
from imagen_jax.conditions.inputs import network_shapes
from imagen_jax.errors import InputError
from imagen_jax.models import make_model
from imagen_jax.sampling.control import layer_paths
from imagen_jax.sampling.settings import SamplingSettings
from imagen_jax.sampling.stage import Stage
from tests.randomised import randomised

SHAPE, COUNT = (8, 8, 3), 2
GIVEN = {
    "text_emb": np.random.default_rng(0).normal(size=(COUNT, 3, 8)).astype(np.float32),
    "text_mask": np.ones((COUNT, 3), bool),
}
MIDDLE = "middle_attention/attend"


@cache
def stage() -> Stage:
    network = make_model(
        "unet", channels=8, channel_mults=[1], num_blocks=1, attention_levels=[True], head_channels=8, dtype="float32"
    )
    about = {"schedule": "cosine", "prediction": "v", "settings": SamplingSettings(num_steps=2)}
    return Stage(network, conditions=(Text(3, 8),), shape=SHAPE, **about)


def shapes() -> dict[str, Any]:
    return network_shapes(stage().conditions, SHAPE)


@cache
def params() -> Any:
    model = stage().model
    return randomised(jax.eval_shape(lambda **told: model.init(jax.random.key(0), **told), **shapes())["params"])


def sample(control: Any = None) -> np.ndarray:
    return stage().sample(params(), GIVEN, keys=jax.random.split(jax.random.key(0), COUNT), control=control)


class Scale:
    """Multiplies the output of layers by a factor. Two of the same factor and layers are equal."""

    def __init__(self, factor: float, *layers: str):
        self.factor, self.layers = factor, layers
        self.paths: list[str] = []

    def __call__(self, call: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], path: str) -> Any:
        self.paths.append(path)
        return self.factor * call(*args, **kwargs)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Scale) and (self.factor, self.layers) == (other.factor, other.layers)

    def __hash__(self) -> int:
        return hash((self.factor, self.layers))


def test_a_control_changes_what_is_drawn_after_the_program_without_it_was_compiled():
    plain = sample()
    np.testing.assert_array_equal(sample(Scale(1.0, MIDDLE)), plain)
    assert np.abs(sample(Scale(0.0, MIDDLE)) - plain).max() > 1e-3
    np.testing.assert_array_equal(sample(), plain)


def test_an_equal_control_is_the_same_program_and_another_is_not():
    compiled: Any = stage()._compiled
    sample(Scale(0.5, MIDDLE))
    before = compiled._cache_size()
    sample(Scale(0.5, MIDDLE))
    assert compiled._cache_size() == before
    sample(Scale(0.25, MIDDLE))
    assert compiled._cache_size() == before + 1


def test_only_the_named_layers_are_controlled_by_path_or_with_wildcards():
    named, all_of_them = Scale(0.75, MIDDLE), Scale(0.75, "*attention*/attend")
    sample(named)
    sample(all_of_them)
    assert set(named.paths) == {MIDDLE}
    paths = {"down0_attention0/attend", "up0_attention0/attend", "up0_attention1/attend", MIDDLE}
    assert set(all_of_them.paths) == paths <= set(layer_paths(stage().model, shapes()))


def test_a_layer_that_is_not_there_is_one_clear_error_before_anything_is_compiled():
    compiled: Any = stage()._compiled
    before = compiled._cache_size()
    with pytest.raises(InputError, match='UNet has no layer "middle_atention/attend" to control; the nearest: middle'):
        sample(Scale(0.0, "middle_atention/attend"))
    assert compiled._cache_size() == before
