import numpy as np
import pytest

from imagen_jax.evaluation.retrieval import accuracy, nearest


def even(*values):
    """Images of 2 px, one grey value each."""
    return np.stack([np.full((2, 2, 3), value, np.uint8) for value in values])


REFERENCE = even(0, 100, 255)


def test_the_nearest_image_is_found():
    # 50 is as far from 0 as from 100: the first is taken.
    np.testing.assert_array_equal(nearest(even(49, 50, 51, 177, 178, 255, 0), REFERENCE), [0, 0, 1, 1, 2, 2, 0])


def test_distances_are_squared_means_over_all_pixels_and_channels():
    sample = np.zeros((1, 2, 2, 3), np.uint8)
    one_far, all_near = sample.copy(), sample + np.uint8(30)
    one_far[0, 0, 0, 0] = 200  # 200^2 > 12 * 30^2, though 200 < 12 * 30
    np.testing.assert_array_equal(nearest(sample, np.concatenate([one_far, all_near])), [1])


def test_distances_are_exact_on_large_bright_images():
    reference = np.full((2, 64, 64, 3), 255, np.uint8)
    reference[0, 0, 0, 0] = 254
    np.testing.assert_array_equal(nearest(reference[::-1], reference), [1, 0])


def test_agrees_with_the_definition():
    rng = np.random.default_rng(0)
    samples, reference = (rng.integers(0, 256, (n, 4, 4, 3), np.uint8) for n in (20, 30))
    distances = np.square(samples[:, None].astype(float) - reference[None].astype(float)).mean(axis=(2, 3, 4))
    np.testing.assert_array_equal(nearest(samples, reference), distances.argmin(axis=1))


@pytest.mark.parametrize(
    ("names", "expected"),
    [(["a", "b", "a", "c"], 1.0), (["a", "b", "b", "c"], 0.75), (["c", "c", "b", "a"], 0.0)],
)
def test_accuracy_is_the_share_of_names_found(names, expected):
    # Two references may bear one name: any of them counts.
    reference = even(0, 100, 20, 255)
    assert accuracy(even(1, 99, 21, 250), names, reference, ["a", "b", "a", "c"]) == expected


def test_a_name_for_each_sample_is_required():
    with pytest.raises(ValueError, match="zip"):
        accuracy(even(0, 1), ["a"], REFERENCE, ["a", "b", "c"])
