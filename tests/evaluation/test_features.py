import jax
import numpy as np
import pytest
from PIL import Image

from imagen_jax.errors import InputError
from imagen_jax.evaluation.feature_metrics import features_of
from imagen_jax.evaluation.features import FeatureId
from imagen_jax.evaluation.image_folder import ImageFolder
from imagen_jax.evaluation.inception.features import inception_features, name_of
from imagen_jax.evaluation.inception.weights import PUBLISHED_SHA256_PREFIX, InceptionWeights, _fold
from imagen_jax.evaluation.statistics_file import statistics_of
from imagen_jax.resize import FLAVOURS, half_pixel_bilinear, pil_bicubic, prepare, tf1_bilinear
from tests.evaluation.torch_files import random_tensors

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (11, 20, 24, 3)).astype(np.uint8)
PUBLISHED = PUBLISHED_SHA256_PREFIX + "0" * 56


@pytest.fixture(scope="module")
def weights():
    return InceptionWeights(_fold(random_tensors(0)), "ab" * 32)


@pytest.fixture(scope="module")
def extractor(weights):
    # The first layers alone, which cost a tenth of the network.
    return inception_features(weights, taps=("64",), batch_size=5)


@pytest.fixture(scope="module")
def features(extractor):
    return np.concatenate([batch["64"] for batch in extractor(IMAGES)])


def test_every_image_counts_once_in_order(extractor, features):
    assert extractor.batch_size == 8 == jax.local_device_count()
    assert [len(batch["64"]) for batch in extractor(IMAGES)] == [8, 3]
    assert [len(batch["64"]) for batch in extractor(IMAGES[:8])] == [8]
    assert list(extractor([])) == []
    assert features.shape == (11, 64) and features.dtype == np.float32
    assert len(np.unique(features, axis=0)) == 11


def test_an_images_features_depend_on_no_other_image_and_padding_compiles_nothing(extractor, features):
    order = RNG.permutation(11)
    shuffled = np.concatenate([batch["64"] for batch in extractor(IMAGES[order])])
    np.testing.assert_array_equal(shuffled, features[order])
    np.testing.assert_array_equal(next(iter(extractor(IMAGES[:1])))["64"], features[:1])
    assert extractor._apply._cache_size() == 1


def test_a_folder_becomes_statistics(extractor, features, tmp_path):
    for number, image in enumerate(IMAGES):
        Image.fromarray(image).save(tmp_path / f"{number:02}.png")
    folder = ImageFolder(tmp_path)
    rows = features_of(extractor, folder)["64"]
    np.testing.assert_array_equal(rows, features)
    found = statistics_of(rows, extractor.ids["64"], data_fingerprint=folder.fingerprint)
    assert found.count == 11 and found.features.resize == "tf_legacy"
    np.testing.assert_allclose(found.mean, features.mean(0, dtype=np.float64), rtol=1e-12)
    np.testing.assert_allclose(found.covariance, np.cov(features, rowvar=False, dtype=np.float64), atol=1e-9)


def test_images_of_several_sizes_and_types_are_refused(extractor):
    with pytest.raises(InputError, match=r"image 1 is \[20, 20, 3\].*\[20, 24, 3\].*one size"):
        list(extractor([IMAGES[0], IMAGES[1][:, :20]]))
    for wrong in (IMAGES[0].astype(np.float32), IMAGES[0, :, :, 0], IMAGES[0, :, :, :2]):
        with pytest.raises(InputError, match="expected uint8"):
            list(extractor([wrong]))


def test_unknown_layers_and_ways_to_resize_list_the_choices(weights):
    with pytest.raises(InputError, match="2048"):
        inception_features(weights, taps=("1000",))
    with pytest.raises(InputError, match="tf_legacy"):
        inception_features(weights, resize="bilinear")


def test_only_the_published_network_makes_a_number_called_fid():
    published = name_of(FeatureId("inception", "2048", "tf_legacy", PUBLISHED))
    assert published.metric("fd") == "fid_tf_legacy"
    assert published.metric("precision") == "precision_tf_legacy"
    assert name_of(FeatureId("inception", "2048", "clean", PUBLISHED)).metric("kd") == "kid_clean"
    for features, expected in (
        (FeatureId("inception", "768", "tf_legacy", PUBLISHED), "inception_6726825d_768"),
        (FeatureId("inception", "2048", "tf_legacy", "1b2c3d4e" * 8), "inception_1b2c3d4e"),
        (FeatureId("inception", "2048", "clean", "1b2c3d4e" * 8), "inception_1b2c3d4e_clean"),
    ):
        assert name_of(features).metric("fd") == f"fd_{expected}"
        assert name_of(features).metric("kd") == f"kd_{expected}"


@pytest.mark.parametrize("weights_of", [tf1_bilinear, half_pixel_bilinear, pil_bicubic])
@pytest.mark.parametrize("size_in", [1, 5, 64, 299, 1024])
def test_resizing_keeps_a_constant_and_an_image_of_the_right_size(weights_of, size_in):
    matrix = weights_of(size_in, 299)
    np.testing.assert_allclose(matrix.sum(axis=1), 1.0, atol=1e-12)
    if size_in == 299:
        np.testing.assert_allclose(matrix, np.eye(299), atol=1e-4)


@pytest.mark.parametrize("size", [(20, 24), (299, 299), (400, 310)])
def test_clean_is_pillows_bicubic(size):
    image = RNG.integers(0, 256, (*size, 3)).astype(np.uint8)
    found = np.asarray(prepare(image[None], flavour=FLAVOURS["clean"], size=299))[0]
    for channel in range(3):
        plane = Image.fromarray(image[:, :, channel].astype(np.float32))
        expected = np.asarray(plane.resize((299, 299), Image.Resampling.BICUBIC)).clip(0, 255)
        np.testing.assert_allclose(found[:, :, channel] * 128.0 + 128.0, expected, atol=1e-3)


def test_pytorch_is_jaxs_bilinear_without_antialiasing():
    for size in ((20, 24), (400, 310)):
        image = RNG.integers(0, 256, (*size, 3)).astype(np.float32)
        found = (np.asarray(prepare(image[None], flavour=FLAVOURS["pytorch"], size=299))[0] + 1.0) * 127.5
        expected = jax.image.resize(image, (299, 299, 3), "bilinear", antialias=False)
        np.testing.assert_allclose(found, expected, atol=5e-3)


def test_tf1_takes_pixels_without_their_halves():
    ramp = np.broadcast_to(np.arange(0, 200, 2, dtype=np.uint8)[None, None, :, None], (1, 100, 100, 3))
    found = np.asarray(prepare(ramp, flavour=FLAVOURS["tf_legacy"], size=299))[0, 0, :, 0] * 128.0 + 128.0
    np.testing.assert_allclose(found, np.minimum(2.0 * np.arange(299) * 100 / 299, 198.0), atol=1e-3)
