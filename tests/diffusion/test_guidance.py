import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax.diffusion.guidance import (
    WithinInterval,
    autoguidance,
    classifier_free,
    drop_text,
    extrapolate,
    interleave,
)

B = 3
Z = jax.random.normal(jax.random.key(0), (B, 4, 4, 3))
LOGSNR = jnp.array([-1.0, 0.0, 1.0])


def denoise_pair(z, logsnr):
    """2 z + logsnr with the text, z - logsnr without."""
    conditional = (jnp.arange(z.shape[0]) % 2 == 0)[:, None, None, None]
    logsnr = logsnr[:, None, None, None]
    return jnp.where(conditional, 2.0 * z + logsnr, z - logsnr)


PAIR = denoise_pair(interleave(Z, Z), interleave(LOGSNR, LOGSNR))
CONDITIONAL, UNCONDITIONAL = PAIR[0::2], PAIR[1::2]


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


GOOD, BAD = CONDITIONAL, UNCONDITIONAL


def test_autoguidance_leads_away_from_the_weaker_network():
    guided = autoguidance(lambda z, logsnr: GOOD, lambda z, logsnr: BAD, weight=3.0)(Z, LOGSNR)
    np.testing.assert_allclose(guided, 3.0 * GOOD - 2.0 * BAD, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("phi", [0.0, 0.5, 1.0])
def test_rescaling_brings_the_contrast_back_towards_that_of_the_conditional(phi):
    plain = np.asarray(extrapolate(GOOD, BAD, weight=4.0, rescale=0.0))
    rescaled = np.asarray(extrapolate(GOOD, BAD, weight=4.0, rescale=phi))
    axes = (1, 2, 3)
    wanted = phi * np.asarray(GOOD).std(axis=axes) + (1 - phi) * plain.std(axis=axes)
    np.testing.assert_allclose(rescaled.std(axis=axes), wanted, rtol=1e-4)
    # A factor for each image, and nothing else.
    ratio = rescaled / plain
    np.testing.assert_allclose(ratio, ratio[:, :1, :1, :1] + 0 * ratio, rtol=1e-4)


def test_rescaling_an_image_of_one_colour_stays_finite():
    flat = jnp.full((1, 4, 4, 3), 0.5)
    assert np.isfinite(extrapolate(flat, flat, weight=4.0, rescale=1.0)).all()


def test_an_interval_includes_its_ends():
    inside, outside = classifier_free(denoise_pair, weight=1.0), classifier_free(denoise_pair, weight=0.0)
    choice = WithinInterval(inside, outside, logsnr_min=-1.0, logsnr_max=2.0)
    assert [choice.at(logsnr) is inside for logsnr in (-1.1, -1.0, 0.0, 2.0, 2.1)] == [False, True, True, True, False]
