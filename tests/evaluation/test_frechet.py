import numpy as np
import pytest

from imagen_jax.evaluation.frechet import cell_colours, frechet_distance, frechet_of_gaussians
from imagen_jax.evaluation.statistics import moments_of

RNG = np.random.default_rng(0)
# More features than numbers of each, fewer, and one set of each kind.
SIZES = pytest.mark.parametrize(("n", "m", "dim"), [(100, 80, 5), (10, 12, 20), (10, 50, 20), (50, 10, 20)])


def features(n, dim, *, seed):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, dim)) @ rng.normal(size=(dim, dim)) + rng.normal(size=dim)


def white(n, dim):
    """[n,dim] with mean 0 and covariance 1, exactly."""
    x = RNG.normal(size=(n, dim))
    columns, _ = np.linalg.qr(x - x.mean(0))
    return columns * np.sqrt(n - 1)


@SIZES
def test_a_set_is_at_no_distance_from_itself_and_a_shift_is_its_square(n, m, dim):
    a = features(n, dim, seed=0)
    scale = np.trace(np.cov(a, rowvar=False))
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9 * scale)
    assert frechet_distance(a, a + 0.5) == pytest.approx(dim * 0.25, abs=1e-9 * scale)


def test_of_independent_features_it_is_the_closed_form():
    s, t = np.array([1.0, 2.0, 3.0, 4.0]), np.array([2.0, 2.0, 1.0, 0.5])
    unit = white(50, 4)
    assert frechet_distance(unit * s, unit * t) == pytest.approx(np.sum((s - t) ** 2), rel=1e-9)
    # Not of the same images, nor of as many.
    assert frechet_distance(unit * s + 1.0, white(70, 4) * t) == pytest.approx(np.sum((s - t) ** 2) + 4, rel=1e-9)


def test_of_correlated_features_it_is_the_closed_form():
    # With covariances A A^T and B A A^T B for a symmetric positive B, the root of the product has the trace of A^T B A.
    mixing = RNG.normal(size=(6, 6))
    half = RNG.normal(size=(6, 6))
    symmetric = half @ half.T + np.eye(6)
    a = white(60, 6) @ mixing.T
    b = white(90, 6) @ mixing.T @ symmetric
    identity = np.eye(6)
    expected = np.trace(mixing @ mixing.T @ (identity + symmetric @ symmetric - 2.0 * symmetric))
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)


def test_with_few_features_it_is_the_closed_form():
    # Rank 3 in 10 dimensions, the second set in a basis turned by an angle.
    s, t, angle = np.array([1.0, 2.0, 3.0]), np.array([2.0, 1.0, 0.5]), 0.7
    a, b = np.zeros((4, 10)), np.zeros((4, 10))
    a[:, :3] = white(4, 3) * s
    turned = white(4, 3) * t
    b[:, :3], b[:, 3:6] = turned * np.cos(angle), turned * np.sin(angle)
    expected = np.sum(s**2 + t**2 - 2.0 * s * t * np.cos(angle))
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)


@SIZES
def test_it_is_symmetric_and_the_same_in_a_rotated_or_scaled_space(n, m, dim):
    a, b = features(n, dim, seed=1), features(m, dim, seed=2)
    distance = frechet_distance(a, b)
    rotation, _ = np.linalg.qr(RNG.normal(size=(dim, dim)))
    assert distance > 0
    assert frechet_distance(b, a) == pytest.approx(distance, rel=1e-9)
    assert frechet_distance(a @ rotation + 3.0, b @ rotation + 3.0) == pytest.approx(distance, rel=1e-9)
    assert frechet_distance(3.0 * a, 3.0 * b) == pytest.approx(9.0 * distance, rel=1e-9)
    assert frechet_distance(RNG.permutation(a), b) == pytest.approx(distance, rel=1e-9)


@SIZES
def test_means_and_covariances_give_what_the_features_do(n, m, dim):
    a, b = (moments_of(features(size, dim, seed=seed)) for size, seed in ((n, 1), (m, 2)))
    found = frechet_of_gaussians(
        mean_a=a.mean, cov_a=a.covariance, rank_a=n - 1, mean_b=b.mean, cov_b=b.covariance, rank_b=m - 1
    )
    assert found == pytest.approx(frechet_distance(features(n, dim, seed=1), features(m, dim, seed=2)), rel=1e-7)


def test_cell_colours_are_the_means_of_squares():
    image = np.zeros((1, 8, 8, 3), np.uint8)
    image[0, :2, 2:4, 1] = 255
    colours = cell_colours(image).reshape(4, 4, 3)
    assert colours[0, 1, 1] == 1.0 and colours.sum() == 1.0
