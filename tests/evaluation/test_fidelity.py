import numpy as np
import pytest

from imagen_jax.evaluation.base import Samples
from imagen_jax.evaluation.fidelity import Consistency, Corners, consistency, corner_deviation
from imagen_jax.evaluation.image_sets import ArrayImages


def test_a_white_background_has_no_deviation_whatever_the_middle():
    image = np.full((3, 8, 8, 3), 255, np.uint8)
    image[:, 1:-1] = 0
    image[:, :, 1:-1] = 7
    np.testing.assert_array_equal(corner_deviation(image), np.zeros(3))


@pytest.mark.parametrize("corner", [(0, 0), (0, -1), (-1, 0), (-1, -1)])
def test_each_corner_counts_as_a_quarter(corner):
    image = np.full((2, 4, 4, 3), 255, np.uint8)
    image[(slice(None), *corner)] = 0
    assert corner_deviation(image) == pytest.approx([0.25, 0.25])


def test_a_black_image_deviates_by_the_whole_range():
    assert corner_deviation(np.zeros((1, 4, 4, 3), np.uint8)) == 1


LOW_RES = np.random.default_rng(0).integers(20, 200, (3, 4, 4, 3)).astype(np.uint8)
ENLARGED = LOW_RES.repeat(4, axis=1).repeat(4, axis=2)


def test_an_enlarged_image_is_consistent():
    assert not consistency(ENLARGED, LOW_RES).any()


def test_detail_within_a_low_resolution_pixel_is_free():
    detailed = ENLARGED.copy()
    detailed[:, ::2] += 10
    detailed[:, 1::2] -= 10
    assert not consistency(detailed, LOW_RES).any()


def test_a_shift_of_colour_is_counted_in_both():
    assert consistency(ENLARGED + np.uint8(51), LOW_RES) == pytest.approx(np.full((3, 2), 0.2))


def test_errors_that_cancel_within_an_image_leave_its_mean_colour():
    wrong = ENLARGED.copy()
    wrong[:, :8] += 10
    wrong[:, 8:] -= 10
    error, colour = consistency(wrong, LOW_RES).mean(axis=0)
    assert error == pytest.approx(10 / 255) and colour == pytest.approx(0, abs=1e-9)


def test_colour_shifts_of_two_images_do_not_cancel():
    wrong = ENLARGED[:2].copy()
    wrong[0] += 10
    wrong[1] -= 10
    assert consistency(wrong, LOW_RES[:2])[:, 1] == pytest.approx([10 / 255, 10 / 255])


def test_metrics_name_the_stage_they_are_of():
    blurred = ENLARGED.repeat(2, axis=1).repeat(2, axis=2)
    samples = Samples({4: ArrayImages(LOW_RES), 16: ArrayImages(ENLARGED + np.uint8(51)), 32: ArrayImages(blurred)})
    found = {name: measure.value for name, measure in Consistency()(samples).items()}
    expected = {"consistency_16": 0.2, "colour_drift_16": 0.2, "consistency_32": 0.2, "colour_drift_32": 0.2}
    assert found == pytest.approx(expected)
    corners = Corners()(samples)
    assert list(corners) == ["corner_deviation_4", "corner_deviation_16", "corner_deviation_32"]
    assert corners["corner_deviation_4"].value == pytest.approx(corners["corner_deviation_32"].value)
