import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax.diffusion.schedules import SCHEDULES, cosine, discrete_cosine, linear, make_schedule, shifted_cosine
from imagen_jax.errors import InputError

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
    steps = np.diff(np.asarray(make_schedule(name, image_size=256)(T)))
    assert (steps < 0).all()
    # Within a hundredth of the ends logsnr falls fast, as log t does; elsewhere a thousandth of t is a small step.
    assert np.abs(steps[10:-10]).max() < 0.25


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_scalar_and_a_vector_give_the_same_float32(name):
    schedule = make_schedule(name, image_size=256)
    vector, scalar = schedule(jnp.array([0.25, 0.5])), schedule(jnp.float32(0.5))
    assert vector.dtype == scalar.dtype == jnp.float32 and scalar.shape == ()
    np.testing.assert_allclose(vector[1], scalar, rtol=1e-6, atol=1e-6)


def test_a_shifted_schedule_gives_an_averaged_image_the_noise_of_64_px():
    # Averaging 4 x 4 pixels divides sigma by 4, and adds log 16 to logsnr.
    np.testing.assert_allclose(shifted_cosine(T, image_size=256) + np.log(16.0), cosine(T), rtol=0, atol=1e-5)
    for image_size in (16, 64):
        np.testing.assert_array_equal(shifted_cosine(T, image_size=image_size), cosine(T))


def test_the_discrete_cosine_follows_the_continuous_one_until_its_betas_are_cut():
    # By 0.008 in t, which keeps the first steps from being too small, and beta < 0.999 at the other end.
    middle = T[200:950]
    np.testing.assert_allclose(discrete_cosine(middle), cosine((middle + 0.008) / 1.008), rtol=0, atol=0.05)


def test_an_unknown_schedule_lists_the_choices():
    with pytest.raises(InputError, match=r'unknown schedule "cosin"; choose from: cosine.*Did you mean "cosine"'):
        make_schedule("cosin", image_size=64)


@pytest.mark.parametrize("image_size", [0, -64, 64.0, None, "64", 10**9])
def test_a_size_that_no_image_has_is_refused(image_size):
    with pytest.raises(InputError, match="image_size must be a whole number from 1 to 8,192"):
        make_schedule("cosine", image_size=image_size)
