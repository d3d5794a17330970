import numpy as np
import pytest

from imagen_jax.evaluation.frechet import cell_colours, frechet_distance

RNG = np.random.default_rng(0)


def test_a_set_is_at_no_distance_from_itself_and_a_shift_is_its_square():
    a = RNG.normal(size=(100, 5))
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-10)
    assert frechet_distance(a, a + 0.5) == pytest.approx(5 * 0.25)


def test_of_independent_features_it_is_the_closed_form():
    # Orthogonal columns, so that the covariances are exactly diagonal: the sum of (s - t)^2.
    columns, _ = np.linalg.qr(RNG.normal(size=(50, 4)) - 0.0)
    columns -= columns.mean(0)
    columns, _ = np.linalg.qr(columns)
    columns -= columns.mean(0)
    s, t = np.array([1.0, 2.0, 3.0, 4.0]), np.array([2.0, 2.0, 1.0, 0.5])
    unit = columns * np.sqrt(49)
    assert frechet_distance(unit * s, unit * t) == pytest.approx(np.sum((s - t) ** 2), rel=1e-6)


def test_it_is_symmetric_and_stands_a_singular_covariance():
    a, b = RNG.normal(size=(10, 20)), 2.0 * RNG.normal(size=(10, 20))
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-6)
    assert frechet_distance(a, b) > 0


def test_cell_colours_are_the_means_of_squares():
    image = np.zeros((1, 8, 8, 3), np.uint8)
    image[0, :2, 2:4, 1] = 255
    colours = cell_colours(image).reshape(4, 4, 3)
    assert colours[0, 1, 1] == 1.0 and colours.sum() == 1.0
