"""Pixels are finite, or there is no picture."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax.conditions import Text
from imagen_jax.diffusion.samplers import SAMPLERS
from imagen_jax.errors import NotFiniteError
from imagen_jax.sampling.finite import label_image
from imagen_jax.sampling.settings import SamplingSettings
from imagen_jax.sampling.stage import Stage

MASK = np.ones((3, 3), bool)


class Breaks:
    """Predicts 0.25, and `value` in one pixel of the images whose text is 1, at noise levels in an interval alone."""

    def __init__(self, value: float, logsnr_min: float = -np.inf, logsnr_max: float = np.inf):
        self.value, self.logsnr_min, self.logsnr_max = value, logsnr_min, logsnr_max

    def apply(self, variables, z, logsnr, conditions):
        breaks = (conditions["text_emb"][:, 0, 0] == 1.0) & (logsnr >= self.logsnr_min) & (logsnr <= self.logsnr_max)
        x = jnp.full(z.shape, 0.25)
        return x.at[:, 0, 0, 0].set(jnp.where(breaks, self.value, 0.25))


def sample(network: Any, text: list[float], **settings: Any) -> np.ndarray:
    settings = {"num_steps": 4, "spacing": "karras", "guidance_weight": 1.0} | settings
    stage = Stage(
        network,
        conditions=(Text(3, 4),),
        shape=(4, 4, 3),
        schedule="cosine",
        prediction="x",
        settings=SamplingSettings(**settings),
    )
    text_emb = np.broadcast_to(np.array(text, np.float32)[:, None, None], (3, 3, 4))
    keys = jax.random.split(jax.random.key(0), 3)
    labels = [label_image(index, f"prompt {index}") for index in (7, 8, 9)]
    return stage.sample({}, {"text_emb": text_emb, "text_mask": MASK}, keys=keys, labels=labels)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("threshold", ["none", "static", "dynamic"])
def test_a_prediction_that_is_not_finite_names_stage_and_image(value, threshold):
    with pytest.raises(NotFiniteError, match=r'^stage of 4 px, image 8 \("prompt 8"\): .*no picture.*export'):
        sample(Breaks(value), [0.0, 1.0, 0.0], threshold=threshold)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_an_infinity_in_the_first_step_alone_is_not_forgotten(sampler):
    # A threshold clips it, and the network never looks at z again.
    with pytest.raises(NotFiniteError, match="image 9"):
        sample(Breaks(np.inf, logsnr_max=-6.0), [0.0, 0.0, 1.0], sampler=sampler, threshold="static")


def test_several_images_are_counted():
    with pytest.raises(NotFiniteError, match=r"image 7 .* and 2 more of its batch"):
        sample(Breaks(np.nan), [1.0, 1.0, 1.0])


def test_images_beside_a_finite_one_are_what_they_are():
    np.testing.assert_array_equal(sample(Breaks(np.inf), [0.0] * 3), 0.25)


@pytest.mark.parametrize(
    ("settings", "remedy"),
    [
        ({"guidance_weight": 30.0}, r"what helps: a lower guidance weight than 30 \(--guidance\), or a cascade"),
        ({"guidance_weight": 3.0}, "what helps: a cascade exported .*, or a lower guidance weight than 3"),
    ],
)
def test_guidance_that_overflows_is_named_as_what_to_lower(settings, remedy):
    # Far from float32's end: w x text + (1 - w) x null is beyond it.
    with pytest.raises(NotFiniteError, match=remedy):
        sample(Breaks(3e38), [0.0, 1.0, 0.0], **settings)


def test_a_label_is_one_line_and_short():
    assert label_image(3, "red\n apple") == 'image 3 ("red apple")'
    assert len(label_image(3, "word " * 1000)) < 80
