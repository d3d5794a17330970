"""A stage with a network whose answer is known: guidance, the null text and the low-resolution input reach it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from imagen_jax.conditions import Condition, LowRes, Text
from imagen_jax.diffusion import gaussian
from imagen_jax.diffusion.guidance import Branch
from imagen_jax.diffusion.samplers import SAMPLERS
from imagen_jax.diffusion.schedules import cosine
from imagen_jax.errors import InputError
from imagen_jax.evaluation.sample_grid import SampleGrid
from imagen_jax.sampling.settings import SamplingSettings
from imagen_jax.sampling.stage import Stage, Start
from imagen_jax.types import Prediction

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

    def apply(self, variables, z, logsnr, conditions):
        low_res = conditions.get("low_res")
        assert (low_res is None) == ("aug_logsnr" not in conditions)
        jax.debug.callback(self._count, logsnr)
        mean = jnp.mean(conditions["text_emb"], axis=(1, 2), where=conditions["text_mask"][..., None])
        mean = mean * variables["params"].get("strength", 1.0)
        x = jnp.broadcast_to(mean[:, None, None, None], z.shape)
        return x if low_res is None else x + 0.1 * low_res


def make_stage(*, low_res_size: int | None = None, **settings: Any) -> Stage:
    return stage_of(
        MeanOfText(),
        *([LowRes(8 // low_res_size)] if low_res_size else []),
        settings=SamplingSettings(**{"num_steps": 2, "threshold": "none"} | settings),
    )


def stage_of(network: Any, *conditions: Condition, **changed: Any) -> Stage:
    """A stage of 8 px with a caption and other conditions."""
    about = {"schedule": "cosine", "prediction": "x", "settings": SamplingSettings()} | changed
    return Stage(network, conditions=(Text(3, 4), *conditions), shape=(8, 8, 3), **about)


def sample(stage: Stage, params: Any = None, *, low_res: Any = None, **arguments: Any) -> np.ndarray:
    given = {"text_emb": jnp.asarray(TEXT), "text_mask": jnp.asarray(MASK)}
    given |= {} if low_res is None else {"low_res": low_res}
    keys = jax.random.split(jax.random.key(0), 2)
    return np.asarray(stage.sample(params or {}, given, keys=keys, **arguments))


@pytest.mark.parametrize(("weight", "expected"), [(0.0, 0.0), (1.0, 0.25), (3.0, 0.75)])
def test_guidance_is_w_times_the_text_and_one_minus_w_times_the_null(weight, expected):
    np.testing.assert_allclose(sample(make_stage(guidance_weight=weight)), expected, atol=1e-6)


def test_a_negative_prompt_takes_the_place_of_the_null_text():
    against = {"text_emb": jnp.full((2, 3, 4), 0.125), "text_mask": jnp.asarray(MASK)}
    x = sample(make_stage(guidance_weight=3.0), against=against)
    np.testing.assert_allclose(x, 3.0 * 0.25 - 2.0 * 0.125, atol=1e-6)


def test_autoguidance_leads_away_from_weaker_parameters_that_see_the_same_text():
    weak = {"strength": jnp.float32(0.5)}
    x = sample(make_stage(guidance_weight=3.0), {"strength": jnp.float32(1.0)}, weak_params=weak)
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

    def apply(self, variables, z, logsnr, conditions):
        rows = (jnp.arange(z.shape[1]) % 2)[None, :, None, None]
        return 0.5 * z + 0.1 * rows * jnp.mean(conditions["text_emb"], axis=(1, 2))[:, None, None, None]


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
    def image(changed):
        settings = SamplingSettings(**{"sampler": "ddim", "num_steps": 4, "threshold": "none"} | common | changed)
        return sample(stage_of(HalfOfTheNoise(), settings=settings))

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
    with pytest.raises(InputError, match="eps, v, x"):
        stage_of(MeanOfText(), prediction="y")


def test_a_grid_shows_each_sample_beside_its_input():
    low_res = np.zeros((2, 2, 2, 3), np.float32)
    given = {"text_emb": TEXT, "text_mask": MASK, "low_res": low_res}
    grid = SampleGrid(make_stage(low_res_size=2), given=given, captions=["a", "b"], seed=1)
    ((name, image),) = grid.run({}, step=3)
    assert name == "samples"
    # Two pairs of 8 x 16 pixels, enlarged to at least 128 rows.
    assert image.shape[1] > 2 * 256
    colours = {int(value) for value in np.unique(image[60, :, 0])}
    assert {128, 159} <= colours  # the input's 0 and the sample's 0.25


def branch(value: float, weight: float) -> Branch:
    return Branch(weight, {"text_emb": jnp.full((2, 3, 4), value)})


def test_branches_of_any_number_take_the_place_of_text_and_null():
    stage = make_stage()
    x = sample(stage, branches=[Branch(2.0, {}), branch(0.125, -0.5), Branch(-0.5, None)])
    np.testing.assert_allclose(x, 2.0 * 0.25 - 0.5 * 0.125, atol=1e-6)
    # Other weights are the same program.
    sample(stage, branches=[Branch(3.0, {}), branch(0.125, -1.0), Branch(-1.0, None)])
    compiled: Any = stage._compiled
    assert compiled._cache_size() == 1


def test_branches_whose_weights_do_not_sum_to_one_are_an_error():
    with pytest.raises(InputError, match=r"sum 1 \(got 2 \+ -0.5 = 1.5\)"):
        sample(make_stage(), branches=[Branch(2.0, {}), branch(0.125, -0.5)])


def test_what_is_given_must_be_what_the_conditions_are_made_of():
    with pytest.raises(InputError, match='LowRes needs "low_res"'):
        sample(make_stage(low_res_size=2))
    with pytest.raises(InputError, match='"low_res" is of no condition of this stage'):
        sample(make_stage(), low_res=jnp.zeros((2, 2, 2, 3)))


IMAGE = np.linspace(-0.9, 0.9, 2 * 8 * 8 * 3, dtype=np.float32).reshape(2, 8, 8, 3)


class Remembers:
    """Predicts z / alpha, so that nothing is changed where there is no noise."""

    def apply(self, variables, z, logsnr, conditions):
        alpha, _ = gaussian.alpha_sigma(logsnr, z)
        return z / alpha


def test_a_start_from_an_image_keeps_more_of_it_the_later_it_is():
    stage = stage_of(Remembers(), settings=SamplingSettings(sampler="ddim", num_steps=10, threshold="none"))
    differences = []
    for time in (0.1, 0.5, 1.0):
        differences.append(np.abs(sample(stage, start=Start(IMAGE, time)) - np.clip(IMAGE, -1, 1)).mean())
        # The levels are the settings' own, from the start's time on.
        levels = stage.noise_levels(start_time=time)
        np.testing.assert_array_equal(levels, stage.noise_levels()[-len(levels) :])
        assert len(levels) == round(10 * time)
    assert differences[0] < 0.15 and differences[0] < 0.5 * differences[1] < 0.5 * differences[2]


def test_a_start_adds_noise_of_its_first_level():
    stage = stage_of(Remembers(), settings=SamplingSettings(sampler="ddim", num_steps=10, threshold="none"))
    # One level, t = 0.1: the image is z / alpha = image + sigma / alpha * noise.
    x = sample(stage, start=Start(0.2 * IMAGE, 0.1))
    logsnr = cosine(jnp.float32(0.1))
    noise = (x - 0.2 * IMAGE) * np.exp(0.5 * float(logsnr))
    assert noise.std() == pytest.approx(1.0, rel=0.1) and noise.mean() == pytest.approx(0.0, abs=0.15)


@pytest.mark.parametrize("time", [0.0, 1.5, float("nan")])
def test_a_start_at_no_time_is_an_error(time):
    with pytest.raises(InputError, match="time of a start must be above 0 and at most 1"):
        sample(make_stage(), start=Start(IMAGE, time))


def test_a_start_that_leaves_a_sampler_too_few_levels_is_an_error():
    with pytest.raises(InputError, match=r"at least 2 sampling steps \(got 1\)"):
        sample(make_stage(sampler="dpmpp_2m", num_steps=10), start=Start(IMAGE, 0.1))


class Known(struct.PyTreeNode):
    """Pixels that are known, where the mask is 1."""

    image: Any
    mask: Any
    after_threshold: bool = struct.field(pytree_node=False, default=True)

    def __call__(self, denoise_fn):
        def known(z, logsnr):
            prediction = denoise_fn(z, logsnr)
            return prediction._replace(x=jnp.where(self.mask > 0, self.image, prediction.x))

        return known


def test_known_pixels_are_kept_and_the_others_are_drawn():
    mask = np.zeros((2, 8, 8, 1), np.float32)
    mask[:, :4] = 1.0
    x = sample(make_stage(guidance_weight=3.0), wrappers=[Known(IMAGE, mask)])
    np.testing.assert_array_equal(x[:, :4], IMAGE[:, :4])
    np.testing.assert_allclose(x[:, 4:], 0.75, atol=1e-6)


@pytest.mark.parametrize(("after_threshold", "expected"), [(True, 1.5), (False, 1.0)])
def test_wrappers_stand_before_or_after_the_threshold(after_threshold, expected):
    seen = []

    class Brighter(struct.PyTreeNode):
        after_threshold: bool = struct.field(pytree_node=False)

        def __call__(self, denoise_fn):
            def brighter(z, logsnr):
                return Prediction(denoise_fn(z, logsnr).x + 0.5)

            return brighter

    class Watches(struct.PyTreeNode):
        after_threshold: bool = struct.field(pytree_node=False, default=True)

        def __call__(self, denoise_fn):
            def watched(z, logsnr):
                prediction = denoise_fn(z, logsnr)
                jax.debug.callback(lambda x: seen.append(float(x.max())), prediction.x)
                return prediction

            return watched

    # 8 * 0.25 is cut to 1.
    stage = make_stage(guidance_weight=8.0, threshold="static")
    sample(stage, wrappers=[Brighter(after_threshold=after_threshold), Watches()])
    jax.effects_barrier()
    assert seen and max(seen) == pytest.approx(expected)


def test_a_stage_may_draw_other_shapes_than_square_images():
    class Flat:
        def apply(self, variables, z, logsnr, conditions):
            return 0.5 * jnp.ones_like(z)

    network: Any = Flat()
    settings = SamplingSettings(num_steps=2)
    stage = Stage(network, conditions=(), shape=(4, 8, 8, 2), schedule="cosine", prediction="x", settings=settings)
    x = stage.sample({}, {}, keys=jax.random.split(jax.random.key(0), 3))
    assert x.shape == (3, 4, 8, 8, 2)
    np.testing.assert_allclose(x, 0.5, atol=1e-6)


def test_what_guidance_leads_away_from_must_be_what_the_network_sees():
    with pytest.raises(InputError, match='the network sees no "text_embb"; it sees text_emb, text_mask'):
        sample(make_stage(guidance_weight=3.0), against={"text_embb": jnp.zeros((2, 3, 4))})
    with pytest.raises(InputError, match=r'"text_emb" must be \[B,3,4\], as the network sees it \(got \[2, 3, 5\]\)'):
        sample(make_stage(guidance_weight=3.0), against={"text_emb": jnp.zeros((2, 3, 5))})


def test_branches_of_the_same_parameters_are_one_evaluation():
    class Sizes(MeanOfText):
        def __init__(self):
            self.sizes = set()

        def _count(self, batch):
            self.sizes.add(len(batch))

    weak = {"strength": jnp.float32(0.5)}
    stage = stage_of(Sizes(), settings=SamplingSettings(num_steps=2, threshold="none"))
    branches = [Branch(3.0, {}), Branch(-1.0, {}, weak), Branch(-1.0, None, weak)]
    x = sample(stage, {"strength": jnp.float32(1.0)}, branches=branches)
    jax.effects_barrier()
    network: Any = stage.model
    assert network.sizes == {2, 4}
    np.testing.assert_allclose(x, 3.0 * 0.25 - 0.5 * 0.25, atol=1e-6)
