from typing import Any

import numpy as np
import pytest

from imagen_jax.evaluation.base import Samples
from imagen_jax.evaluation.data_images import Searchable, names_of
from imagen_jax.evaluation.image_sets import ArrayImages
from imagen_jax.evaluation.memorisation import Memorisation
from imagen_jax.evaluation.retrieval import NameAlignment, image_distances, margin


def even(*values):
    """Images of 2 px, one grey value each."""
    return np.stack([np.full((2, 2, 3), value, np.uint8) for value in values])


class Records(list):
    spec = "records"


def align(samples, names, reference, reference_names):
    metric = NameAlignment(reference, reference_names, seed=0)
    return metric(Samples({2: ArrayImages(samples)}, names=names))


def test_distances_are_the_definition_exactly():
    rng = np.random.default_rng(0)
    samples, reference = (rng.integers(0, 256, (n, 4, 4, 3), np.uint8) for n in (20, 30))
    expected = np.square(samples[:, None].astype(int) - reference[None].astype(int)).sum(axis=(2, 3, 4))
    np.testing.assert_array_equal(image_distances(samples, reference), expected)


def test_distances_are_exact_on_large_bright_images():
    reference = np.full((2, 64, 64, 3), 255, np.uint8)
    reference[0, 0, 0, 0] = 254
    np.testing.assert_array_equal(image_distances(reference, reference), [[0, 1], [1, 0]])


@pytest.mark.parametrize(
    ("names", "has_names"),
    [(["a", "b"], True), (["a", None], True), ([None, "a"], False), ([None, None], False), ([7, 7], False)],
)
def test_any_data_set_whose_records_have_a_name_says_what_they_show(names, has_names):
    source: Any = Records(
        {"image": image, "caption": "c", **({} if name is None else {"name": name})}
        for image, name in zip(even(1, 2), names, strict=True)
    )
    assert names_of(source, [0, 1]) == (names if names == ["a", "b"] else [])
    assert names_of(source, []) == []
    search = Searchable(source, image_size=2)
    assert search.has_names == has_names and len(search) == 2
    assert search.found[1] == ([name or "" for name in names] if has_names else [])


def test_real_images_without_a_name_are_nobody_s_neighbours():
    with_one = align(even(10), ["a"], even(10, 50, 90), ["", "a", "b"])
    assert with_one == align(even(10), ["a"], even(50, 90), ["a", "b"])
    assert with_one["name_accuracy"].value == 1.0


@pytest.mark.parametrize(
    ("names", "expected"),
    [(["a", "b", "a", "c"], 1.0), (["a", "b", "b", "c"], 0.75), (["c", "c", "b", "a"], 0.0)],
)
def test_accuracy_is_the_share_of_names_found(names, expected):
    # Two references may bear one name: any of them counts.
    found = align(even(1, 99, 21, 250), names, even(0, 100, 20, 255), ["a", "b", "a", "c"])
    assert found["name_accuracy"].value == expected
    assert found["name_accuracy"].kind == found["name_margin"].kind == "alignment"


def test_the_margin_tells_right_samples_apart():
    reference, names = even(0, 100), ["a", "b"]
    margins = [align(even(value), ["a"], reference, names)["name_margin"].value for value in (0, 25, 49, 50, 75, 100)]
    assert margins == pytest.approx([1.0, 2 / 3, 1 - 49 / 51, 0.0, -2 / 3, -1.0])
    assert margin(np.inf, 3.0) == -1.0 and margin(3.0, np.inf) == 1.0 and margin(0.0, 0.0) == 0.0


def test_a_name_that_no_reference_has_is_not_found():
    found = align(even(0, 1), ["a", "x"], even(0, 100), ["a", "b"])
    assert found["name_accuracy"].value == 0.5
    assert found["name_margin"].value == 0.0


def test_an_interval_holds_the_share():
    found: Any = align(even(*[0] * 60, *[100] * 40), ["a"] * 100, even(0, 100), ["a", "b"])["name_accuracy"]
    assert 0.45 < found.low < found.value == 0.6 < found.high < 0.75


def test_a_sample_is_a_copy_when_the_second_nearest_is_three_times_as_far():
    def share(value, *training):
        return Memorisation(even(*training))(Samples({2: ArrayImages(even(value))}))["memorised_share"].value

    assert [share(value, 0, 100) for value in (0, 25, 26, 50, 75)] == [1, 1, 0, 0, 1]
    # An image that is there twice is no neighbour of itself.
    assert share(0, 0, 0, 100) == 1 and share(40, 0, 0, 100) == 0
    assert share(99, 0) == 1


def test_distances_to_the_training_images_are_shares_of_the_range():
    found = Memorisation(even(0, 100))(Samples({2: ArrayImages(even(51, 100, 200))}))
    assert found["nearest_training_rms"].value == pytest.approx((49 + 0 + 100) / 3 / 255)
