"""A stage with a network whose answer is known: guidance, the null text and the low-resolution input reach it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax.diffusion.samplers import SAMPLERS
from imagen_jax.errors import InputError
from imagen_jax.evaluation.sample_grid import SampleGrid
from imagen_jax.sampling.settings import SamplingSettings
from imagen_jax.sampling.stage import Against, Stage

TEXT = np.full((2, 3, 4), 0.25, np.float32)
MASK = np.ones((2, 3), bool)


class MeanOfText:
    """Predicts x: everywhere the mean of the real tokens, plus a tenth of the low-resolution input if there is one.

    Times the parameter "strength", where there is one. Counts its evaluations, each by the size of its batch.
    """

    def __init__(self):
        self.images = 0

    def _count(self, batch):
        self.images += len(batch)

    def apply(self, variables, z, logsnr, *, text_emb, text_mask, low_res=None, aug_logsnr=None):
        assert (low_res is None) == (aug_logsnr is None)
        jax.debug.callback(self._count, logsnr)
        mean = jnp.mean(text_emb, axis=(1, 2), where=text_mask[..., None])
        mean = mean * variables["params"].get("strength", 1.0)
        x = jnp.broadcast_to(mean[:, None, None, None], z.shape)
        return x if low_res is None else x + 0.1 * low_res


def make_stage(*, low_res_size: int | None = None, **settings: Any) -> Stage:
    network: Any = MeanOfText()
    return Stage(
        network,
        image_size=8,
        low_res_size=low_res_size,
        schedule="cosine",
        prediction="x",
        settings=SamplingSettings(**{"num_steps": 2, "threshold": "none"} | settings),
    )


def sample(stage: Stage, params: Any = None, **arguments: Any) -> np.ndarray:
    keys = jax.random.split(jax.random.key(0), 2)
    return np.asarray(stage.sample(params or {}, jnp.asarray(TEXT), jnp.asarray(MASK), keys=keys, **arguments))


@pytest.mark.parametrize(("weight", "expected"), [(0.0, 0.0), (1.0, 0.25), (3.0, 0.75)])
def test_guidance_is_w_times_the_text_and_one_minus_w_times_the_null(weight, expected):
    np.testing.assert_allclose(sample(make_stage(guidance_weight=weight)), expected, atol=1e-6)


def test_a_negative_prompt_takes_the_place_of_the_null_text():
    against = Against(jnp.full((2, 3, 4), 0.125), jnp.asarray(MASK))
    x = sample(make_stage(guidance_weight=3.0), against=against)
    np.testing.assert_allclose(x, 3.0 * 0.25 - 2.0 * 0.125, atol=1e-6)


def test_autoguidance_leads_away_from_weaker_parameters_that_see_the_same_text():
    against = Against(params={"strength": jnp.float32(0.5)})
    x = sample(make_stage(guidance_weight=3.0), {"strength": jnp.float32(1.0)}, against=against)
    np.testing.assert_allclose(x, 3.0 * 0.25 - 2.0 * 0.125, atol=1e-6)


@pytest.mark.parametrize("weight", [1.0, 3.0])
def test_guidance_costs_only_where_the_interval_is(weight):
    # Levels t = 1, 3/4, 1/2, 1/4: two of the four are inside. Two images, twice where guided.
    stage = make_stage(guidance_weight=weight, num_steps=4, guidance_interval=(0.4, 0.8))
    sample(stage)
    jax.effects_barrier()
    assert stage.model.images == (8 if weight == 1 else 12)


def test_outside_the_interval_there_is_no_guidance():
    # The last level, whose x_hat is the image, is t = 1/4.
    outside, inside = (
        sample(make_stage(guidance_weight=3.0, num_steps=4, guidance_interval=interval))
        for interval in ((0.4, 0.8), (0.2, 0.8))
    )
    np.testing.assert_allclose(outside, 0.25, atol=1e-6)
    np.testing.assert_allclose(inside, 0.75, atol=1e-6)


def test_another_guidance_weight_is_the_same_program():
    stage = make_stage(guidance_weight=3.0)
    compiled: Any = stage._compiled
    for weight in (2.0, 3.0, 5.0):
        sample(stage, settings=SamplingSettings(num_steps=2, threshold="none", guidance_weight=weight))
    assert compiled._cache_size() == 1


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_draws_what_the_network_is_certain_of(name):
    np.testing.assert_allclose(sample(make_stage(sampler=name, num_steps=4, spacing="karras")), 0.25, atol=1e-5)


class HalfOfTheNoise:
    """Predicts x: half of z, and a tenth of the text's mean at every other row."""

    def apply(self, variables, z, logsnr, *, text_emb, text_mask):
        rows = (jnp.arange(z.shape[1]) % 2)[None, :, None, None]
        return 0.5 * z + 0.1 * rows * jnp.mean(text_emb, axis=(1, 2))[:, None, None, None]


@pytest.mark.parametrize(
    ("common", "one", "other"),
    [
        ({"sampler": "ddpm"}, {"gamma": 0.0}, {"gamma": 1.0}),
        ({"sampler": "ddim"}, {"eta": 0.0}, {"eta": 1.0}),
        ({}, {"sampler": "ddim"}, {"sampler": "dpmpp_2m"}),
        ({}, {"spacing": "uniform"}, {"spacing": "karras"}),
        ({}, {"num_steps": 4}, {"times": (1.0, 0.6, 0.2)}),
        ({"guidance_weight": 8.0}, {"guidance_rescale": 0.0}, {"guidance_rescale": 1.0}),
        ({"guidance_weight": 8.0}, {"guidance_interval": (0.0, 1.0)}, {"guidance_interval": (0.0, 0.3)}),
    ],
)
def test_every_setting_reaches_the_image(common, one, other):
    network: Any = HalfOfTheNoise()

    def image(changed):
        settings = SamplingSettings(**{"sampler": "ddim", "num_steps": 4, "threshold": "none"} | common | changed)
        stage = Stage(network, image_size=8, low_res_size=None, schedule="cosine", prediction="x", settings=settings)
        return sample(stage)

    assert np.abs(image(one) - image(other)).max() > 1e-3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sampler": "unipc", "num_steps": 1}, r'"unipc" needs at least 2 sampling steps \(got 1\)'),
        ({"sampler": "dpmpp_2m", "times": (1.0,)}, r'"dpmpp_2m" needs at least 2 sampling steps \(got 1\)'),
        ({"spacing": "if_fast27", "num_steps": 16}, r"list of 27 steps; use that many \(got 16\)"),
        ({"times": (0.5, 0.1)}, r"almost pure noise.*begin the times at 1"),
        (
            {"guidance_weight": 2.0, "guidance_interval": (0.8, 0.9), "num_steps": 4},
            r"guidance_interval = \(0.8, 0.9\) holds none of the 4 noise levels",
        ),
    ],
)
def test_settings_that_do_not_fit_each_other_or_the_schedule_are_an_error(settings, message):
    with pytest.raises(InputError, match=message):
        make_stage(**settings).noise_levels()


def test_an_interval_without_a_level_is_no_error_where_nothing_is_guided():
    assert len(make_stage(guidance_interval=(0.8, 0.9), num_steps=4).noise_levels()) == 4


def test_explicit_times_are_the_levels():
    stage = make_stage(times=(1.0, 0.5, 0.2), num_steps=99)
    sample(stage)
    jax.effects_barrier()
    assert len(stage.noise_levels()) == 3 and stage.model.images == 6


@pytest.mark.parametrize(
    ("settings", "darker"), [({"threshold_percentile": 100.0}, 1.25), ({"threshold_percentile": 0.0}, 1.0)]
)
def test_a_threshold_takes_its_percentile(settings, darker):
    # Half an image is 1.25, out of range, and half 0.25.
    low_res = jnp.zeros((2, 2, 2, 3)).at[:, :, 0].set(10.0)
    x = sample(make_stage(low_res_size=2, threshold="dynamic", **settings), low_res=low_res)
    np.testing.assert_allclose(x[:, :, 0], 1.0, atol=1e-3)
    np.testing.assert_allclose(x[:, :, -1], 0.25 / darker, atol=1e-3)
    capped = sample(make_stage(low_res_size=2, threshold="dynamic", threshold_cap=1.0, **settings), low_res=low_res)
    np.testing.assert_allclose(capped[:, :, -1], 0.25, atol=1e-3)


def test_samples_are_clipped_to_the_range():
    np.testing.assert_array_equal(sample(make_stage(guidance_weight=8.0)), 1.0)


@pytest.mark.parametrize("weight", [1.0, 2.0])
def test_the_low_resolution_input_reaches_the_network_enlarged(weight):
    low_res = jnp.asarray(np.full((2, 2, 2, 3), 0.5, np.float32))
    stage = make_stage(low_res_size=2, guidance_weight=weight)
    # Guidance leaves alone what text and null text share.
    np.testing.assert_allclose(sample(stage, low_res=low_res), weight * 0.25 + 0.05, atol=1e-4)


def test_noise_is_added_to_the_low_resolution_input_at_the_level_asked_for():
    low_res = jnp.zeros((2, 2, 2, 3))
    quiet, noisy = (sample(make_stage(low_res_size=2, aug_level=level), low_res=low_res) for level in (0.0, 0.5))
    assert quiet.std() < 1e-4
    # A tenth of noise of variance 1/2 (the cosine schedule in the middle).
    assert noisy.std() == pytest.approx(0.1 * 0.5**0.5, rel=0.15)


def test_an_unknown_prediction_type_is_an_error():
    network: Any = MeanOfText()
    with pytest.raises(InputError, match="eps, v, x"):
        Stage(network, image_size=8, low_res_size=None, schedule="cosine", prediction="y", settings=SamplingSettings())


def test_a_grid_shows_each_sample_beside_its_input():
    low_res = np.zeros((2, 2, 2, 3), np.float32)
    grid = SampleGrid(
        make_stage(low_res_size=2), text_emb=TEXT, text_mask=MASK, captions=["a", "b"], low_res=low_res, seed=1
    )
    ((name, image),) = grid.run({}, step=3)
    assert name == "samples"
    # Two pairs of 8 x 16 pixels, enlarged to at least 128 rows.
    assert image.shape[1] > 2 * 256
    colours = {int(value) for value in np.unique(image[60, :, 0])}
    assert {128, 159} <= colours  # the input's 0 and the sample's 0.25
