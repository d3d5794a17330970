import numpy as np
import pytest

from imagen_jax.evaluation.statistics import merge, moments_of, stream_moments

RNG = np.random.default_rng(0)


def features(count=300, dim=7):
    # Far from zero, where the textbook sum of squares loses its digits.
    return RNG.normal(size=(count, dim)) @ RNG.normal(size=(dim, dim)) + 1e4


def assert_same(found, expected):
    assert found.count == expected.count
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-14)
    np.testing.assert_allclose(found.m2, expected.m2, rtol=0, atol=1e-12 * np.abs(expected.m2).max())


@pytest.mark.parametrize("sizes", [[300], [1, 299], [100, 0, 200], [7] * 42 + [6]], ids=len)
def test_streamed_batches_have_numpys_mean_and_covariance(sizes):
    x = features()
    found = stream_moments(np.split(x, np.cumsum(sizes)[:-1]))
    assert found.count == 300
    np.testing.assert_allclose(found.mean, x.mean(0), rtol=1e-14)
    expected = np.cov(x, rowvar=False)
    np.testing.assert_allclose(found.covariance, expected, rtol=0, atol=1e-12 * np.abs(expected).max())


def test_batches_in_any_order_and_grouping_are_one_set():
    parts = [moments_of(part) for part in np.split(features(), 4)]
    a, b, c, d = parts
    assert_same(merge(merge(d, b), merge(a, c)), merge(merge(merge(a, b), c), d))


def test_float32_features_are_summed_in_float64():
    x = features().astype(np.float32)
    np.testing.assert_array_equal(moments_of(x).m2, moments_of(x.astype(np.float64)).m2)


def test_one_feature_has_no_covariance():
    assert np.isnan(moments_of(np.ones((1, 3))).covariance).all()
