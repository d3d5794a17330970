import jax
import numpy as np
import pytest

from imagen_jax.models.layers import EfficientResBlock, ResBlock, downsample, num_groups, upsample

X = jax.random.normal(jax.random.key(0), (2, 4, 4, 8))
EMB = jax.random.normal(jax.random.key(1), (2, 16))


@pytest.mark.parametrize("channels", [*range(1, 65), 96, 128, 176, 320, 512, 704, 1000, 2048, 4096])
def test_groups_divide_the_channels_and_none_is_under_four_unless_alone(channels):
    groups = num_groups(channels)
    assert 1 <= groups <= 32 and channels % groups == 0
    assert groups == 1 or channels // groups >= 4
    if channels % 128 == 0:
        assert groups == 32


def test_upsampling_repeats_pixels_and_downsampling_averages_them():
    up = upsample(X)
    np.testing.assert_array_equal(up, np.repeat(np.repeat(X, 2, axis=1), 2, axis=2))
    np.testing.assert_allclose(downsample(up), X, rtol=1e-6)
    np.testing.assert_allclose(downsample(X), np.reshape(X, (2, 2, 2, 2, 2, 8)).mean(axis=(2, 4)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("resample", "function"), [("none", lambda x: x), ("down", downsample), ("up", upsample)])
def test_a_fresh_residual_block_only_resamples(resample, function):
    block = ResBlock(8, resample)
    result, _ = jax.jit(block.init_with_output)(jax.random.key(2), X, EMB)
    np.testing.assert_allclose(result, function(X), rtol=1e-6, atol=1e-6)


def test_a_residual_block_is_conditioned_by_scale_and_shift(random_params):
    block = ResBlock(16)
    apply = jax.jit(block.apply)
    params = random_params(block, X, EMB)
    whole = apply(params, X, EMB)
    assert whole.shape == (2, 4, 4, 16)
    other = apply(params, X, EMB.at[0].set(EMB[1]))
    assert np.abs(other[0] - whole[0]).mean() > 0.01
    np.testing.assert_array_equal(other[1], whole[1])


def test_a_fresh_efficient_block_is_its_shortcut():
    block = EfficientResBlock(16)
    result, variables = jax.jit(block.init_with_output)(jax.random.key(2), X)
    shortcut = variables["params"]["shortcut"]
    np.testing.assert_allclose(result, X @ shortcut["kernel"][0, 0] + shortcut["bias"][None, None, None], atol=1e-5)
