"""Conditions keep to their contract, and what a network is called with is put together from them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax.conditions import LowRes, Text, inputs
from imagen_jax.conditions.keys import sampling_keys, training_keys
from imagen_jax.errors import InputError
from imagen_jax.sampling.settings import SamplingSettings

SHAPE, B = (8, 8, 3), 2
CONDITIONS = (Text(max_tokens=4, width=6, drop_rate=0.5), LowRes(4))
KEYS = jax.random.split(jax.random.key(0), B)


def given(conditions=CONDITIONS):
    shapes = inputs.batch_shapes(conditions, SHAPE, batch_size=B)
    return {name: jnp.ones(array.shape, array.dtype) for name, array in shapes.items() if name != "image"}


def describe(tree):
    return jax.tree.map(lambda array: (array.shape, array.dtype), dict(tree))


@pytest.mark.parametrize("conditions", [CONDITIONS, CONDITIONS[:1], ()], ids=["both", "text", "none"])
def test_what_the_network_sees_is_of_the_shapes_that_the_conditions_say(conditions):
    expected = inputs.network_shapes(conditions, SHAPE, batch_size=B)
    in_training = inputs.for_training(conditions, given(conditions), KEYS, shape=SHAPE)
    settings = SamplingSettings(aug_level=0.3)
    in_sampling = inputs.for_sampling(conditions, given(conditions), KEYS, shape=SHAPE, settings=settings)
    assert describe(in_training) == describe(in_sampling) == describe(expected["conditions"])
    assert describe(inputs.null(conditions, in_sampling)) == describe(in_sampling)
    assert expected["z"].shape == (B, *SHAPE) and expected["logsnr"].shape == (B,)


def test_a_batch_holds_the_image_and_what_the_conditions_are_given():
    shapes = inputs.batch_shapes(CONDITIONS, SHAPE, batch_size=B)
    assert {name: array.shape for name, array in shapes.items()} == {
        "image": (B, 8, 8, 3),
        "text_emb": (B, 4, 6),
        "text_mask": (B, 4),
        "low_res": (B, 2, 2, 3),
    }


def test_guidance_takes_the_text_away_and_leaves_the_low_resolution_input():
    seen = inputs.for_sampling(CONDITIONS, given(), KEYS, shape=SHAPE, settings=SamplingSettings())
    null = inputs.null(CONDITIONS, seen)
    assert not np.asarray(null["text_emb"]).any()
    for name in ("low_res", "aug_logsnr"):
        np.testing.assert_array_equal(null[name], seen[name])


def test_every_purpose_has_keys_of_its_own():
    for keys_of, purposes in (
        (training_keys, ("drop_text", "aug_level", "augment", "loss", "mine", "yours")),
        (sampling_keys, ("start", "augment", "sampler", "mine", "yours")),
    ):
        data = [np.asarray(jax.random.key_data(keys_of(KEYS, purpose))) for purpose in purposes]
        assert len({row.tobytes() for each in data for row in each}) == B * len(purposes)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"low_res": None}, 'LowRes needs "low_res", which isn\'t given; there are: text_emb, text_mask'),
        ({"style": np.zeros((B, 3))}, '"style" is of no condition of this stage; .* low_res, text_emb, text_mask'),
        ({"low_res": np.zeros((B, 4, 4, 3))}, r'"low_res" must be \[B,2,2,3\] \(got \[2, 4, 4, 3\]\)'),
    ],
)
def test_what_is_given_wrongly_is_one_clear_error(changed, message):
    wrong = {name: array for name, array in (given() | changed).items() if array is not None}
    with pytest.raises(InputError, match=message):
        inputs.check_given(CONDITIONS, wrong, shape=SHAPE)


def test_a_batch_that_lacks_something_is_an_error_before_anything_is_computed():
    with pytest.raises(InputError, match='Text needs "text_mask"'):
        inputs.for_training(CONDITIONS, {"text_emb": np.zeros((B, 4, 6))}, KEYS, shape=SHAPE)
