import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax.diffusion.schedules import SCHEDULES, cosine, linear

T = jnp.linspace(0.0, 1.0, 1000)


# float32: next to pi / 2, the tangent of t = 1 has three digits.
@pytest.mark.parametrize(("logsnr_min", "logsnr_max"), [(-20, 20), (-15, 5)])
def test_cosine_runs_from_logsnr_max_to_logsnr_min(logsnr_min, logsnr_max):
    ends = cosine(jnp.array([0.0, 1.0]), logsnr_min=logsnr_min, logsnr_max=logsnr_max)
    np.testing.assert_allclose(ends, [logsnr_max, logsnr_min], atol=0.01)


def test_cosine_is_the_squared_cosine():
    alpha_squared = jax.nn.sigmoid(cosine(T))
    # The ends are moved by exp(-10) = 4.5e-5, so that logsnr is finite there.
    np.testing.assert_allclose(alpha_squared, jnp.cos(0.5 * jnp.pi * T) ** 2, rtol=0, atol=1e-4)
    assert float(cosine(jnp.float32(0.5))) == pytest.approx(0, abs=1e-5)


def test_linear_is_the_limit_of_the_discrete_betas_of_ddpm():
    alpha_squared = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    logsnr = linear(T)
    # -log(1 - beta) = beta + beta^2 / 2 + ...: over 1000 steps the second term adds 0.067 to the noise end.
    np.testing.assert_allclose(logsnr, np.log(alpha_squared / (1 - alpha_squared)), rtol=0, atol=0.07)
    assert float(logsnr[0]) == pytest.approx(np.log((1 - 1e-4) / 1e-4), abs=1e-3)


@pytest.mark.parametrize("name", SCHEDULES)
def test_falls_strictly_without_jumps(name):
    steps = np.diff(np.asarray(SCHEDULES[name](T)))
    assert (steps < 0).all()
    # Within a hundredth of the ends logsnr falls fast, as log t does; elsewhere a thousandth of t is a small step.
    assert np.abs(steps[10:-10]).max() < 0.25


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_scalar_and_a_vector_give_the_same_float32(name):
    vector = SCHEDULES[name](jnp.array([0.25, 0.5]))
    scalar = SCHEDULES[name](jnp.float32(0.5))
    assert vector.dtype == scalar.dtype == jnp.float32 and scalar.shape == ()
    np.testing.assert_allclose(vector[1], scalar, rtol=1e-6, atol=1e-6)
