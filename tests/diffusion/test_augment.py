import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax.diffusion.augment import aug_logsnr_from_level, augment

B = 4
KEYS = jax.random.split(jax.random.key(1), B)
LOW_RES = jax.random.uniform(jax.random.key(0), (B, 8, 8, 3), minval=-1.0)


def augmented(level, *, low_res=LOW_RES, size=(16, 16), keys=KEYS):
    aug_logsnr = aug_logsnr_from_level(jnp.full(low_res.shape[0], level))
    return augment(low_res, size=size, aug_logsnr=aug_logsnr, keys=keys)


def test_level_zero_is_the_upsampled_image():
    upsampled = jax.image.resize(LOW_RES, (B, 16, 16, 3), "bilinear")
    result = augmented(0.0)
    assert result.dtype == jnp.float32
    # Noise of standard deviation exp(-20 / 2) = 4.5e-5 is left.
    difference = np.abs(result - upsampled)
    assert difference.mean() < 1e-4 and difference.max() < 3e-4


def test_level_one_is_noise_whatever_the_image():
    np.testing.assert_allclose(augmented(1.0), augmented(1.0, low_res=-LOW_RES), rtol=0, atol=1e-3)
    noise = augmented(1.0)
    assert float(noise.mean()) == pytest.approx(0, abs=5 / np.sqrt(noise.size))
    assert float(noise.std()) == pytest.approx(1, abs=5 / np.sqrt(2 * noise.size))


@pytest.mark.parametrize("level", [0.0, 0.3, 0.7, 1.0])
def test_variance_is_preserved(level):
    low_res = jax.random.normal(jax.random.key(2), (B, 64, 64, 3))
    result = augmented(level, low_res=low_res, size=(64, 64))
    assert float(result.var()) == pytest.approx(1, abs=5 * np.sqrt(2 / result.size))


def test_a_higher_level_is_noisier():
    upsampled = augmented(0.0)
    correlations = [
        np.corrcoef(np.ravel(augmented(level)), np.ravel(upsampled))[0, 1] for level in (0.1, 0.4, 0.7, 0.95)
    ]
    assert all(np.diff(correlations) < -0.02)


def test_each_image_has_the_noise_of_its_own_key_and_level():
    whole = augmented(0.5)
    np.testing.assert_allclose(augmented(0.5, low_res=LOW_RES[2:3], keys=KEYS[2:3]), whole[2:3], rtol=1e-6, atol=1e-6)
    same_image = augmented(0.5, low_res=jnp.repeat(LOW_RES[:1], B, axis=0))
    assert np.abs(same_image[0] - same_image[1]).mean() > 0.1
    aug_logsnr = aug_logsnr_from_level(jnp.array([0.0, 0.5, 0.5, 1.0]))
    mixed = augment(LOW_RES, size=(16, 16), aug_logsnr=aug_logsnr, keys=KEYS)
    np.testing.assert_array_equal(mixed[1:3], whole[1:3])


def test_an_even_image_stays_even_when_upsampled():
    result = augmented(0.0, low_res=jnp.full((1, 4, 4, 3), 0.5), size=(16, 8), keys=KEYS[:1])
    assert result.shape == (1, 16, 8, 3)
    np.testing.assert_allclose(result, 0.5, rtol=0, atol=3e-4)
