import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax.diffusion.threshold import THRESHOLDS, dynamic_threshold, quantile, static_threshold
from imagen_jax.types import Prediction

Z, LOGSNR = jnp.zeros((3, 4, 4, 3)), jnp.zeros(3)
# One image in range, one out of it, one far out.
X_HAT = (
    jax.random.uniform(jax.random.key(2), (3, 8, 8, 3), minval=-1.0) * jnp.array([1.0, 1.5, 20.0])[:, None, None, None]
)


def constant(x):
    return lambda z, logsnr: Prediction(x)


@pytest.mark.parametrize("name", ["static", "dynamic"])
def test_thresholded_images_lie_in_range(name):
    x = THRESHOLDS[name](constant(X_HAT))(Z, LOGSNR).x
    assert x.shape == X_HAT.shape and float(jnp.abs(x).max()) <= 1


@pytest.mark.parametrize("name", THRESHOLDS)
def test_an_image_in_range_is_not_changed_by_thresholding(name):
    x = THRESHOLDS[name](constant(X_HAT[:1]))(Z[:1], LOGSNR[:1]).x
    np.testing.assert_array_equal(x, X_HAT[:1])


def test_no_threshold_changes_nothing():
    np.testing.assert_array_equal(THRESHOLDS["none"](constant(X_HAT))(Z, LOGSNR).x, X_HAT)


def test_static_thresholding_clips():
    np.testing.assert_array_equal(static_threshold(constant(X_HAT))(Z, LOGSNR).x, np.clip(X_HAT, -1, 1))


@pytest.mark.parametrize("percentile", [99.5, 80.0])
def test_dynamic_thresholding_takes_each_images_own_percentile(percentile):
    x = dynamic_threshold(constant(X_HAT), percentile=percentile)(Z, LOGSNR).x
    for image, result in zip(np.asarray(X_HAT), np.asarray(x), strict=True):
        s = max(1.0, np.percentile(np.abs(image), percentile))
        np.testing.assert_allclose(result, np.clip(image, -s, s) / s, rtol=1e-5, atol=1e-6)


def test_a_cap_limits_the_range_that_is_brought_back():
    x = dynamic_threshold(constant(X_HAT), cap=1.2)(Z, LOGSNR).x
    np.testing.assert_allclose(x[2], np.clip(X_HAT[2], -1.2, 1.2) / 1.2, rtol=1e-6)
    np.testing.assert_array_equal(
        dynamic_threshold(constant(X_HAT), cap=1.0)(Z, LOGSNR).x, static_threshold(constant(X_HAT))(Z, LOGSNR).x
    )


@pytest.mark.parametrize("q", [0.0, 0.3, 0.95, 0.995, 1.0])
@pytest.mark.parametrize("size", [1, 2, 7, 3000])
def test_the_quantile_is_numpys(size, q):
    values = np.random.default_rng(size).exponential(size=(3, size)).astype(np.float32)
    np.testing.assert_allclose(
        jax.jit(quantile, static_argnums=1)(values, q), np.quantile(values, q, axis=1), rtol=1e-6, atol=1e-7
    )


def test_the_quantile_knows_ties_zeros_and_tiny_and_huge_values():
    rows = [[0.0] * 8, [1.0] * 8, [0, 0, 0, 0, 1, 1, 1, 1], [1e-30, 1e-20, 1e-10, 1, 1e10, 1e20, 1e30, 3e38]]
    values = np.array(rows, np.float32)
    for q in (0.0, 0.5, 0.9, 1.0):
        np.testing.assert_allclose(quantile(jnp.asarray(values), q), np.quantile(values, q, axis=1), rtol=1e-5)


def test_the_quantile_of_a_large_image_is_exact_to_1e_4():
    values = np.abs(np.random.default_rng(0).normal(size=(2, 256, 256, 3))).astype(np.float32)
    np.testing.assert_allclose(
        quantile(jnp.asarray(values), 0.995), np.quantile(values.reshape(2, -1), 0.995, axis=1), rtol=0, atol=1e-5
    )
