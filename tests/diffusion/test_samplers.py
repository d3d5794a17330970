"""Samplers on independent pixels ~ N(m, s^2), whose best denoiser E[x | z] is a line: they must draw N(m, s^2)."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax.diffusion import gaussian
from imagen_jax.diffusion.samplers import SAMPLERS, ddim, ddpm
from imagen_jax.diffusion.schedules import cosine

MEAN, STD = 0.3, 0.5
B = 4
KEYS = jax.random.split(jax.random.key(0), B)
# 49,152 pixels: the standard error of their mean is 0.0023, and of their standard deviation 0.0016.
Z_INIT = jax.random.normal(jax.random.key(1), (B, 64, 64, 3))


def denoise_fn(z, logsnr, *, std=STD):
    """x_hat = m + alpha s^2 / (alpha^2 s^2 + sigma^2) (z - alpha m)."""
    alpha, sigma = gaussian.alpha_sigma(logsnr, z)
    return MEAN + alpha * std**2 / (alpha**2 * std**2 + sigma**2) * (z - alpha * MEAN)


def sample(sampler, num_steps, *, keys=KEYS, z_init=Z_INIT, denoise_fn=denoise_fn, **settings):
    draw = partial(sampler, denoise_fn, schedule=cosine, num_steps=num_steps, **settings)
    return np.asarray(jax.jit(draw)(keys, z_init))


@pytest.mark.parametrize("name", SAMPLERS)
def test_draws_the_datas_distribution_and_better_with_more_steps(name):
    errors = []
    for num_steps in (4, 16, 256):
        x = sample(SAMPLERS[name], num_steps)
        assert x.shape == Z_INIT.shape and x.dtype == np.float32
        assert x.mean() == pytest.approx(MEAN, abs=0.01)
        errors.append(abs(x.std() - STD))
    assert errors[1] < 0.5 * errors[0] and errors[2] < 0.5 * errors[1]
    assert errors[2] < 0.01
    # A normal distribution, not only its first two moments.
    assert np.mean((x - MEAN) ** 3) == pytest.approx(0, abs=0.01)
    assert np.mean((x - MEAN) ** 4) == pytest.approx(3 * STD**4, rel=0.08)


@pytest.mark.parametrize("name", SAMPLERS)
def test_data_of_one_point_is_drawn_exactly(name):
    x = sample(SAMPLERS[name], 4, denoise_fn=partial(denoise_fn, std=0.0))
    np.testing.assert_allclose(x, MEAN, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", SAMPLERS)
def test_one_step_is_the_denoisers_first_estimate(name):
    x = sample(SAMPLERS[name], 1)
    np.testing.assert_allclose(x, denoise_fn(Z_INIT, jnp.full(B, cosine(jnp.float32(1.0)))), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", SAMPLERS)
def test_an_image_follows_its_key_and_noise_and_not_its_batch(name):
    small = Z_INIT[:, :8, :8]
    whole = sample(SAMPLERS[name], 4, z_init=small)
    np.testing.assert_allclose(sample(SAMPLERS[name], 4, keys=KEYS[2:3], z_init=small[2:3]), whole[2:3], atol=1e-6)
    order = np.array([2, 0, 3, 1])
    np.testing.assert_allclose(
        sample(SAMPLERS[name], 4, keys=KEYS[order], z_init=small[order]), whole[order], atol=1e-6
    )


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_noise_level_falls_from_one_to_just_above_zero(name):
    seen = []

    def recording(z, logsnr):
        jax.debug.callback(lambda value: seen.append(float(value)), logsnr[0], ordered=True)
        return denoise_fn(z, logsnr)

    sample(SAMPLERS[name], 4, z_init=Z_INIT[:, :8, :8], denoise_fn=recording)
    jax.effects_barrier()
    assert seen[0] == pytest.approx(-20, abs=0.01) and 0 < seen[-1] < 20
    assert len(seen) == 4
    assert (np.diff(seen) > 0).all()


def test_ddim_is_deterministic():
    small = Z_INIT[:, :8, :8]
    np.testing.assert_array_equal(sample(ddim, 4, z_init=small), sample(ddim, 4, z_init=small, keys=KEYS[::-1]))


def test_ddpm_draws_by_its_keys_and_with_more_noise_for_a_higher_gamma():
    small = Z_INIT[:, :8, :8]
    default = sample(ddpm, 8, z_init=small)
    assert np.abs(default - sample(ddpm, 8, z_init=small, keys=KEYS[::-1])).mean() > 0.1
    stds = [sample(ddpm, 8, gamma=gamma).std() for gamma in (0.0, 0.3, 1.0)]
    assert stds[0] + 0.01 < stds[1] < stds[2] - 0.01
