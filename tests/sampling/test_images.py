import numpy as np
import pytest
from PIL import Image

from imagen_jax.sampling.images import enlarge, labelled_grid, save_png, to_uint8

RNG = np.random.default_rng(0)


def random_images(n, height, width):
    return list(RNG.integers(0, 256, (n, height, width, 3), np.uint8))


def contains(sheet, image):
    """Whether `image` is somewhere in `sheet`, pixel for pixel."""
    height, width = image.shape[:2]
    corners = np.argwhere((sheet[: 1 - height or None, : 1 - width or None] == image[0, 0]).all(axis=-1))
    return any(np.array_equal(sheet[y : y + height, x : x + width], image) for y, x in corners)


def test_every_byte_comes_back_from_the_range():
    bytes_ = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(to_uint8(bytes_ / np.float32(127.5) - 1), bytes_)


def test_values_are_rounded_to_the_nearest_byte():
    step = 1 / 127.5
    np.testing.assert_array_equal(to_uint8(step * np.array([-0.6, -0.4, 0.4, 0.6])), [127, 127, 128, 128])
    np.testing.assert_array_equal(to_uint8(-1 + step * np.array([0.4, 0.6, 254.4, 254.6])), [0, 1, 254, 255])


def test_values_out_of_range_are_clipped():
    result = to_uint8(np.array([-7.0, -1.001, 1.001, 7.0, -np.inf, np.inf]))
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result, [0, 0, 255, 255, 0, 255])


def test_a_png_keeps_every_pixel_and_its_folder_is_made(tmp_path):
    (image,) = random_images(1, 5, 7)
    save_png(image, tmp_path / "new" / "folder" / "image.png")
    np.testing.assert_array_equal(Image.open(tmp_path / "new" / "folder" / "image.png"), image)


def test_enlarging_by_a_whole_factor_repeats_pixels():
    (image,) = random_images(1, 4, 4)
    np.testing.assert_array_equal(enlarge(image, 3), image.repeat(3, axis=0).repeat(3, axis=1))


@pytest.mark.parametrize(("size", "cell"), [(128, 128), (160, 160), (50, 150)])
def test_a_grid_holds_every_image_unchanged_or_enlarged_by_a_whole_factor(size, cell):
    images = random_images(5, size, size)
    sheet = labelled_grid(images, [f"image {k}" for k in range(5)], columns=3)
    assert sheet.dtype == np.uint8 and sheet.ndim == 3 and sheet.shape[2] == 3
    assert 3 * cell < sheet.shape[1] < 3 * (cell + 16)
    assert 2 * cell < sheet.shape[0] < 2 * (cell + 60)
    for image in images:
        assert contains(sheet, enlarge(image, cell // size))


def test_images_stand_in_reading_order():
    images = [np.full((128, 128, 3), value, np.uint8) for value in (10, 60, 110)]
    sheet = labelled_grid(images, ["", "", ""], columns=2)
    places = [np.argwhere((sheet == value).all(axis=-1)).mean(axis=0) for value in (10, 60, 110)]
    assert places[0][0] == places[1][0] < places[2][0]
    assert places[0][1] == places[2][1] < places[1][1]


def test_a_label_stands_under_its_image_on_white():
    images = [np.full((128, 128, 3), 200, np.uint8)] * 2
    labelled, blank = labelled_grid(images, ["red apple", ""], columns=2), labelled_grid(images, ["a", ""], columns=2)
    assert labelled.shape == blank.shape
    below = labelled[-24:]
    middle = labelled.shape[1] // 2
    assert (below[:, :middle] < 100).any() and not (below[:, middle:] < 200).any()
    assert (labelled[:4] == 255).all()


def test_a_long_label_is_wrapped_and_cut_at_three_lines():
    image = np.full((128, 128, 3), 200, np.uint8)
    heights = [labelled_grid([image], ["word " * n], columns=1).shape[0] for n in (1, 4, 12, 100)]
    assert heights[0] < heights[1] < heights[2] == heights[3]


def test_an_image_that_is_not_square_is_not_squeezed():
    # As SampleGrid's pairs of a super-resolution stage's input and output.
    (pair,) = random_images(1, 128, 256)
    assert contains(labelled_grid([pair], ["a pair"], columns=1), pair)


def test_a_grid_of_nothing_or_without_its_labels_is_refused():
    image = np.zeros((8, 8, 3), np.uint8)
    for images, labels in (([], []), ([image], [])):
        with pytest.raises(AssertionError):
            labelled_grid(images, labels, columns=1)
