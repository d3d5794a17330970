import numpy as np

from benchmarks import damage

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3)).astype(np.uint8)


def test_blur_spreads_a_point_by_sigma_and_keeps_a_constant():
    point = np.zeros((2, 33, 33, 3), np.float32)
    point[:, 16, 16] = 1.0
    sigma = np.array([1.0, 2.5], np.float32)
    found = np.asarray(damage.blur(point, sigma), np.float64)
    np.testing.assert_allclose(found.sum(axis=(1, 2)), 1.0, atol=1e-5)
    variance = np.einsum("nhwc,h->nc", found, (np.arange(33) - 16.0) ** 2)
    np.testing.assert_allclose(variance, np.broadcast_to(sigma[:, None] ** 2, (2, 3)), rtol=1e-3)
    grey = np.full_like(IMAGES, 77)
    np.testing.assert_array_equal(damage.blurred(grey, 3.0), grey)


def test_noise_has_its_deviation():
    grey = np.full((8, 32, 32, 3), 128, np.uint8)
    assert abs(np.std(damage.noised(grey, 10.0) - 128.0) - 10.0) < 0.2


def test_shuffling_keeps_every_square():
    found = damage.shuffled(IMAGES, 2)
    assert (found != IMAGES).any()
    for image, shuffled in zip(IMAGES, found, strict=True):
        squares, others = (
            {x[i : i + 16, j : j + 16].tobytes() for i in (0, 16) for j in (0, 16)} for x in (image, shuffled)
        )
        assert squares == others and len(squares) == 4


def test_colours_are_swapped_in_a_share_of_the_images():
    found = damage.colours_swapped(IMAGES, 0.25)
    np.testing.assert_array_equal(found[0], IMAGES[0, :, :, ::-1])
    np.testing.assert_array_equal(found[1:], IMAGES[1:])


def test_fading_goes_to_white_and_compression_keeps_the_shape():
    np.testing.assert_array_equal(damage.faded(IMAGES, 1.0), IMAGES)
    assert damage.faded(IMAGES, 0.0).min() == 255
    assert damage.compressed(IMAGES, 50).shape == IMAGES.shape
