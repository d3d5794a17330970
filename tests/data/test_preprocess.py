"""Area resizing, crops and ranges of imagen_jax.data.preprocess."""

import numpy as np
import pytest

from imagen_jax.data.preprocess import area_resize, check_sizes, full_image, prepare
from imagen_jax.errors import InputError


def random_image(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("factor", [1, 2, 4, 16])
def test_area_resize_by_an_integer_is_the_block_mean(factor):
    image = random_image(64, 32)
    expected = image.reshape(64 // factor, factor, 32 // factor, factor, 3).astype(np.float64).mean(axis=(1, 3))
    np.testing.assert_allclose(area_resize(image, 64 // factor, 32 // factor), expected, rtol=1e-6)


@pytest.mark.parametrize("size", [(7, 5), (20, 31), (64, 64), (100, 77), (37, 41)])
def test_area_resize_preserves_the_mean_for_any_ratio(size):
    image = random_image(37, 41)
    resized = area_resize(image, *size)
    assert resized.shape == (*size, 3) and resized.dtype == np.float32
    np.testing.assert_allclose(resized.mean(axis=(0, 1)), image.mean(axis=(0, 1)), rtol=1e-5)


def test_area_resize_by_a_fraction_weighs_pixels_by_their_overlap():
    row = np.array([[0.0, 30.0, 90.0]])[..., None]
    np.testing.assert_allclose(area_resize(row, 1, 2)[0, :, 0], [(0 + 15) / 1.5, (15 + 90) / 1.5], rtol=1e-6)


@pytest.mark.parametrize("size", [3, 16, 30, 64])
def test_white_stays_exactly_white_at_every_size(size):
    white = np.full((48, 48, 3), 255, np.uint8)
    np.testing.assert_array_equal(full_image(white, image_size=size), 1.0)


def test_the_range_is_minus_one_to_one():
    image = full_image(np.array([[[0, 0, 0], [255, 255, 255]]] * 2, np.uint8), image_size=2)
    assert image.dtype == np.float32
    np.testing.assert_array_equal(image[:, 0], -1)
    np.testing.assert_array_equal(image[:, 1], 1)


def test_the_square_is_cut_from_the_centre():
    image = random_image(10, 30)
    np.testing.assert_array_equal(full_image(image, image_size=10), full_image(image[:, 10:20], image_size=10))


def test_low_res_is_the_downsampled_image():
    stage = prepare(random_image(64, 64), image_size=64, low_res_size=16)
    assert stage["image"].shape == (64, 64, 3) and stage["low_res"].shape == (16, 16, 3)
    np.testing.assert_allclose(stage["low_res"], area_resize(stage["image"], 16, 16), atol=1e-6)


def test_low_res_of_a_crop_is_the_crop_of_low_res():
    image = random_image(64, 64)
    whole = prepare(image, image_size=64, low_res_size=16)
    offsets = set()
    for seed in range(20):
        rng = np.random.default_rng(seed)
        crop = prepare(image, image_size=64, low_res_size=16, crop_size=32, rng=rng)
        assert crop["image"].shape == (32, 32, 3) and crop["low_res"].shape == (8, 8, 3)
        matches = [
            (top, left)
            for top in range(9)
            for left in range(9)
            if np.allclose(crop["low_res"], whole["low_res"][top : top + 8, left : left + 8], atol=1e-6)
        ]
        ((top, left),) = matches
        np.testing.assert_array_equal(crop["image"], whole["image"][4 * top : 4 * top + 32, 4 * left : 4 * left + 32])
        offsets.add((top, left))
    assert len(offsets) > 10


def test_a_crop_of_the_whole_image_is_the_image():
    image = random_image(16, 16)
    crop = prepare(image, image_size=16, crop_size=16, rng=np.random.default_rng(0))
    np.testing.assert_array_equal(crop["image"], full_image(image, image_size=16))


def test_a_small_image_is_enlarged():
    assert prepare(random_image(8, 8), image_size=20)["image"].shape == (20, 20, 3)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((64, 24, None), "low_res_size 24 must divide image_size 64"),
        ((64, 16, 30), "crop_size 30 must be a multiple of .* = 4; the nearest is 32"),
        ((64, 16, 128), "crop_size 128 must be at most image_size 64"),
        ((0, None, None), "image_size must be at least 1"),
        ((64, -1, None), "low_res_size must be at least 1"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(sizes, message):
    image_size, low_res_size, crop_size = sizes
    with pytest.raises(InputError, match=message):
        check_sizes(image_size, low_res_size=low_res_size, crop_size=crop_size)


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4, 3), np.float32), np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8)]
)
def test_an_image_of_another_kind_is_refused(image):
    with pytest.raises(InputError, match=r"expected uint8 \[H, W, 3\]"):
        full_image(image, image_size=4)
