import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax.diffusion.guidance import THRESHOLDS, classifier_free, drop_text, dynamic_threshold, static_threshold

B = 3
Z = jax.random.normal(jax.random.key(0), (B, 4, 4, 3))
LOGSNR = jnp.array([-1.0, 0.0, 1.0])


def denoise_pair(z, logsnr):
    """The conditional half is 2 z + logsnr, the unconditional half z - logsnr."""
    first = (jnp.arange(z.shape[0]) < z.shape[0] // 2)[:, None, None, None]
    logsnr = logsnr[:, None, None, None]
    return jnp.where(first, 2.0 * z + logsnr, z - logsnr)


CONDITIONAL, UNCONDITIONAL = jnp.split(denoise_pair(jnp.concatenate([Z, Z]), jnp.concatenate([LOGSNR, LOGSNR])), 2)


def guided(weight):
    return classifier_free(denoise_pair, weight=weight)(Z, LOGSNR)


def test_weight_one_is_the_conditional_and_zero_the_unconditional():
    np.testing.assert_array_equal(guided(1.0), CONDITIONAL)
    np.testing.assert_array_equal(guided(0.0), UNCONDITIONAL)


@pytest.mark.parametrize("weight", [0.5, 3.0, jnp.float32(7.5)])
def test_other_weights_extrapolate_linearly(weight):
    expected = UNCONDITIONAL + weight * (CONDITIONAL - UNCONDITIONAL)
    np.testing.assert_allclose(guided(weight), expected, rtol=1e-5, atol=1e-5)


TEXT_EMB = jax.random.normal(jax.random.key(1), (B, 5, 7)).astype(jnp.bfloat16)
TEXT_MASK = jnp.arange(5)[None, :] < jnp.array([[1], [3], [5]])


def test_text_is_dropped_per_example():
    emb, mask = drop_text(TEXT_EMB, TEXT_MASK, drop=jnp.array([False, True, False]))
    assert emb.dtype == TEXT_EMB.dtype and mask.dtype == TEXT_MASK.dtype
    for kept in (0, 2):
        np.testing.assert_array_equal(emb[kept], TEXT_EMB[kept])
        np.testing.assert_array_equal(mask[kept], TEXT_MASK[kept])
    assert not emb[1].any()


def test_the_null_text_says_nothing_of_the_caption_or_its_length():
    emb, mask = drop_text(TEXT_EMB, TEXT_MASK, drop=jnp.ones(B, bool))
    assert not emb.any()
    # One token, because attention needs something to attend to.
    np.testing.assert_array_equal(mask, [[True, False, False, False, False]] * B)


def constant(x):
    return lambda z, logsnr: x


# One image in range, one out of it, one far out.
X_HAT = (
    jax.random.uniform(jax.random.key(2), (B, 8, 8, 3), minval=-1.0) * jnp.array([1.0, 1.5, 20.0])[:, None, None, None]
)


@pytest.mark.parametrize("name", ["static", "dynamic"])
def test_thresholded_images_lie_in_range(name):
    x = THRESHOLDS[name](constant(X_HAT))(Z, LOGSNR)
    assert x.shape == X_HAT.shape and float(jnp.abs(x).max()) <= 1


@pytest.mark.parametrize("name", THRESHOLDS)
def test_an_image_in_range_is_not_changed_by_thresholding(name):
    x = THRESHOLDS[name](constant(X_HAT[:1]))(Z[:1], LOGSNR[:1])
    np.testing.assert_array_equal(x, X_HAT[:1])


def test_no_threshold_changes_nothing():
    np.testing.assert_array_equal(THRESHOLDS["none"](constant(X_HAT))(Z, LOGSNR), X_HAT)


def test_static_thresholding_clips():
    np.testing.assert_array_equal(static_threshold(constant(X_HAT))(Z, LOGSNR), np.clip(X_HAT, -1, 1))


@pytest.mark.parametrize("percentile", [99.5, 80.0])
def test_dynamic_thresholding_takes_each_images_own_percentile(percentile):
    x = dynamic_threshold(constant(X_HAT), percentile=percentile)(Z, LOGSNR)
    for image, result in zip(np.asarray(X_HAT), np.asarray(x), strict=True):
        s = max(1.0, np.percentile(np.abs(image), percentile))
        np.testing.assert_allclose(result, np.clip(image, -s, s) / s, rtol=1e-5, atol=1e-6)
