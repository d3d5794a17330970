import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax.diffusion import gaussian

LOGSNR = jnp.arange(-15.0, 15.1, 2.5)


@pytest.fixture(scope="module")
def draws():
    """x, eps, z and v at each of LOGSNR, [13,4,4,3]."""
    shape = (len(LOGSNR), 4, 4, 3)
    x = jax.random.uniform(jax.random.key(0), shape, minval=-1.0)
    eps = jax.random.normal(jax.random.key(1), shape)
    z = gaussian.diffuse(x=x, eps=eps, logsnr=LOGSNR)
    return x, eps, z, gaussian.v_from_x_eps(x=x, eps=eps, logsnr=LOGSNR)


def alphas_sigmas():
    logsnr = np.asarray(LOGSNR, np.float64)[:, None, None, None]
    return np.sqrt(1 / (1 + np.exp(-logsnr))), np.sqrt(1 / (1 + np.exp(logsnr)))


def test_alpha_and_sigma_preserve_variance_and_hold_logsnr(draws):
    alpha, sigma = gaussian.alpha_sigma(LOGSNR, draws[0])
    assert alpha.shape == sigma.shape == (len(LOGSNR), 1, 1, 1)
    np.testing.assert_allclose(jnp.square(alpha) + jnp.square(sigma), 1, rtol=1e-6)
    np.testing.assert_allclose(2 * jnp.log(alpha / sigma).ravel(), LOGSNR, rtol=0, atol=1e-5)


# Dividing by alpha (sigma) enlarges z's rounding, 1e-7, by exp(15 / 2) = 1800 at most.
def test_x_to_eps_to_x(draws):
    x, _, z, _ = draws
    eps = gaussian.eps_from_x(z=z, x=x, logsnr=LOGSNR)
    _, sigma = alphas_sigmas()
    alpha, _ = alphas_sigmas()
    error = np.abs(gaussian.x_from_eps(z=z, eps=eps, logsnr=LOGSNR) - x)
    assert (error < 1e-6 / alpha).all()
    assert (np.abs(eps - draws[1]) < 1e-6 / sigma).all()


def test_eps_to_x_to_eps(draws):
    x, eps, z, _ = draws
    alpha, sigma = alphas_sigmas()
    x_again = gaussian.x_from_eps(z=z, eps=eps, logsnr=LOGSNR)
    assert (np.abs(x_again - x) < 1e-6 / alpha).all()
    error = np.abs(gaussian.eps_from_x(z=z, x=x_again, logsnr=LOGSNR) - eps)
    assert (error < 1e-6 / sigma).all()


def test_v_to_x_needs_no_division(draws):
    x, _, z, v = draws
    np.testing.assert_allclose(gaussian.x_from_v(z=z, v=v, logsnr=LOGSNR), x, rtol=0, atol=2e-6)


def test_z_and_v_are_x_and_eps_turned_by_an_angle(draws):
    x, eps, z, v = draws
    np.testing.assert_allclose(jnp.square(z) + jnp.square(v), jnp.square(x) + jnp.square(eps), rtol=1e-5, atol=1e-6)


# From far to near, at both ends and in the middle: (logsnr_t, logsnr_s).
STEPS = [(-15.0, -14.0), (-8.0, -2.0), (-3.0, -1.0), (0.0, 0.5), (1.0, 1.01), (5.0, 9.0), (14.0, 15.0)]


def reference_step(z, x, logsnr_t, logsnr_s):
    """q(z_s | z_t, x) from q(z_s | x) q(z_t | z_s), in float64: mean, variance, and the variance of q(z_t | z_s)."""
    alpha_t, alpha_s = (np.sqrt(1 / (1 + np.exp(-logsnr))) for logsnr in (logsnr_t, logsnr_s))
    var_t, var_s = (1 / (1 + np.exp(logsnr)) for logsnr in (logsnr_t, logsnr_s))
    alpha_ts = alpha_t / alpha_s
    var_ts = var_t - alpha_ts**2 * var_s
    precision = 1 / var_s + alpha_ts**2 / var_ts
    return (alpha_s * x / var_s + alpha_ts * z / var_ts) / precision, 1 / precision, var_ts


def test_a_reverse_step_is_the_product_of_the_gaussians_it_comes_from():
    logsnr_t, logsnr_s = np.array(STEPS).T
    rng = np.random.default_rng(0)
    z, x = rng.normal(size=(2, len(STEPS), 2, 2, 3))
    mean, log_small, log_large = gaussian.reverse_step(
        z=jnp.asarray(z, jnp.float32),
        x=jnp.asarray(x, jnp.float32),
        logsnr_t=jnp.asarray(logsnr_t, jnp.float32),
        logsnr_s=jnp.asarray(logsnr_s, jnp.float32),
    )
    for k in range(len(STEPS)):
        expected_mean, small, large = reference_step(z[k], x[k], logsnr_t[k], logsnr_s[k])
        np.testing.assert_allclose(mean[k], expected_mean, rtol=0, atol=1e-5)
        # 1 - r of the closest pair, 0.01, has the rounding of logsnr's difference.
        np.testing.assert_allclose(log_small[k].ravel(), [np.log(small)], rtol=0, atol=2e-4)
        np.testing.assert_allclose(log_large[k].ravel(), [np.log(large)], rtol=0, atol=2e-4)
        assert small < large


def test_a_reverse_step_of_no_length_stays():
    z, x = jnp.ones((1, 2, 2, 3)), jnp.zeros((1, 2, 2, 3))
    mean, log_small, log_large = gaussian.reverse_step(z=z, x=x, logsnr_t=jnp.ones(1), logsnr_s=jnp.ones(1))
    np.testing.assert_array_equal(mean, z)
    assert np.exp(log_small).item() == np.exp(log_large).item() == 0
