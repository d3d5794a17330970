"""What samplers are given, against diffusers: schedule, thresholding, rescaled guidance. Needs the extra `parity`."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax.diffusion.guidance import Branch, guide
from imagen_jax.diffusion.schedules import discrete_cosine
from imagen_jax.diffusion.spacings import at_times
from imagen_jax.diffusion.threshold import dynamic_threshold, quantile
from imagen_jax.types import Prediction

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
pytestmark = pytest.mark.parity

# Images in range, slightly and far out of it.
IMAGES = np.random.default_rng(0).normal(size=(4, 32, 32, 3)).astype(np.float32)
IMAGES *= np.array([0.1, 0.5, 1.0, 10.0], np.float32)[:, None, None, None]


def test_the_discrete_cosine_schedule_is_diffusers_at_all_timesteps():
    scheduler = diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2")
    logsnrs = at_times(discrete_cosine, np.arange(1, 1001) / 1000)
    alpha2, sigma2 = (np.asarray(jax.nn.sigmoid(sign * jnp.asarray(logsnrs))) for sign in (1, -1))
    expected = scheduler.alphas_cumprod.numpy()
    # A float32 product of 1000 factors, the last of which is 1 - 0.999.
    np.testing.assert_allclose(alpha2, expected, rtol=1e-4, atol=0)
    np.testing.assert_allclose(sigma2, 1 - expected, rtol=0, atol=1e-6)
    # The same product in float64, of the same float32 betas.
    log_alpha2 = np.cumsum(np.log1p(-scheduler.betas.double().numpy()))
    np.testing.assert_allclose(logsnrs, log_alpha2 - np.log(-np.expm1(log_alpha2)), rtol=0, atol=1e-4)


@pytest.mark.parametrize("percentile", [99.5, 95.0, 50.0])
@pytest.mark.parametrize("cap", [0.0, 1.0, 1.5, 5.0])
def test_dynamic_thresholding_is_diffusers(cap, percentile):
    scheduler = diffusers.DDPMScheduler(
        thresholding=True, dynamic_thresholding_ratio=percentile / 100, sample_max_value=cap or float("inf")
    )
    expected = scheduler._threshold_sample(torch.tensor(IMAGES)).numpy()
    thresholded = dynamic_threshold(lambda z, logsnr: Prediction(z), percentile=percentile, cap=cap)
    np.testing.assert_allclose(thresholded(jnp.asarray(IMAGES), jnp.zeros(len(IMAGES))).x, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("q", [0.0, 0.5, 0.95, 0.995, 1.0])
def test_the_quantile_is_torchs(q):
    values = np.abs(IMAGES)
    expected = torch.quantile(torch.tensor(values).flatten(1), q, dim=1).numpy()
    np.testing.assert_allclose(quantile(jnp.asarray(values), q), expected, rtol=1e-5)


@pytest.mark.parametrize("weight", [1.0, 3.0, 7.5])
@pytest.mark.parametrize("phi", [0.3, 0.7, 1.0])
def test_rescaled_guidance_is_diffusers(phi, weight):
    module = importlib.import_module("diffusers.guiders.guider_utils")
    good, bad = IMAGES, np.flip(IMAGES, axis=1) + np.float32(0.1)
    guided = torch.tensor(weight * good + (1 - weight) * bad)
    expected = module.rescale_noise_cfg(guided, torch.tensor(good), phi).numpy()
    branches = [Branch(weight, {}, {"x": jnp.asarray(good)}), Branch(1 - weight, {}, {"x": jnp.asarray(bad)})]
    guided_fn = guide(lambda params, _: lambda z, logsnr: Prediction((params or {})["x"]), branches, rescale=phi)
    actual = guided_fn(jnp.asarray(good), jnp.zeros(len(good))).x
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
