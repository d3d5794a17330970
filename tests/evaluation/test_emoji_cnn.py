import hashlib

import numpy as np
import pytest

from benchmarks import damage
from imagen_jax.errors import InputError
from imagen_jax.evaluation import emoji_cnn
from imagen_jax.evaluation.emoji_cnn import TAP, emoji_features, emoji_mmd, load_emoji_cnn, resized
from imagen_jax.evaluation.frechet import frechet_distance

NUM_IMAGES = 160


def drawn(count: int, *, seed: int, size: int = 64) -> np.ndarray:
    """Uint8 [count,size,size,3]: a disc and a square of some colour, size and place, on white."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size] / size
    images = np.full((count, size, size, 3), 255, np.uint8)
    for image in images:
        (y, x, b, a), radius, half = rng.uniform(0.25, 0.75, 4), rng.uniform(0.1, 0.3), rng.uniform(0.05, 0.2)
        image[(rows - y) ** 2 + (columns - x) ** 2 < radius**2] = rng.integers(0, 256, 3)
        image[np.maximum(abs(rows - b), abs(columns - a)) < half] = rng.integers(0, 256, 3)
    return images


@pytest.fixture(scope="module")
def extractor():
    return emoji_features(batch_size=80)


@pytest.fixture(scope="module")
def features_of(extractor):
    return lambda images: np.concatenate([batch[TAP] for batch in extractor(images)])


@pytest.fixture(scope="module")
def sets(features_of):
    """Features of some drawings, and other drawings."""
    return features_of(drawn(NUM_IMAGES, seed=0)), drawn(NUM_IMAGES, seed=1)


def test_the_committed_weights_are_v1_and_small():
    data = emoji_cnn.WEIGHTS.read_bytes()
    assert hashlib.sha256(data).hexdigest() == emoji_cnn.WEIGHTS_SHA256
    assert len(data) < 400_000


def test_other_damaged_and_missing_weights_cannot_carry_the_name(tmp_path):
    data = emoji_cnn.WEIGHTS.read_bytes()
    path = tmp_path / "weights.safetensors"
    for wrong in (data[:-1], data[:-1] + bytes([data[-1] ^ 1]), b""):
        path.write_bytes(wrong)
        with pytest.raises(InputError, match="emojicnn_v1: install the package again"):
            load_emoji_cnn(path)
    with pytest.raises(InputError, match="missing"):
        load_emoji_cnn(tmp_path / "none")


def test_metrics_have_the_networks_name_and_never_fids(extractor):
    assert extractor.name.metric("fd") == "fd_emojicnn_v1"
    assert extractor.name.metric("mmd") == "mmd_emojicnn_v1"
    assert extractor.ids[TAP].weights_sha256 == emoji_cnn.WEIGHTS_SHA256


@pytest.mark.parametrize("size", [16, 256])
def test_features_of_any_size_are_those_of_the_image_at_64_px(extractor, size):
    images = drawn(3, seed=2, size=size)
    (found,) = extractor(images)
    small = np.round(np.asarray(resized(images)) * 128.0 + 128.0).astype(np.uint8)
    (expected,) = extractor(small)
    assert found[TAP].shape == (3, 128) and found[TAP].dtype == np.float32
    # Half a step of rounding apart; two drawings are 50 times as far.
    assert np.linalg.norm(found[TAP] - expected[TAP], axis=1).max() < 0.02 * np.linalg.norm(
        found[TAP][0] - found[TAP][1]
    )


def test_an_images_features_depend_on_no_other_image(features_of):
    images = drawn(90, seed=3)
    order = np.random.default_rng(0).permutation(90)
    found = features_of(images)
    np.testing.assert_array_equal(features_of(images[order]), found[order])
    np.testing.assert_array_equal(features_of(images[:1]), found[:1])


@pytest.mark.parametrize("metric", [frechet_distance, emoji_mmd])
@pytest.mark.parametrize(
    ("worse", "strengths"),
    [
        (damage.blurred, (0.7, 1.4, 2.8)),
        (damage.noised, (12, 24, 48)),
        (damage.shuffled, (2, 4, 8)),
        (damage.faded, (0.8, 0.6, 0.4)),
    ],
)
def test_distances_grow_with_damage_from_the_null_on(sets, features_of, metric, worse, strengths):
    real, images = sets
    null = metric(real, features_of(images))
    found = [metric(real, features_of(worse(images, strength))) for strength in strengths]
    assert np.all(np.diff([1.5 * null, *found]) > 0.0), (null, found)


@pytest.mark.parametrize("metric", [frechet_distance, emoji_mmd])
def test_distances_grow_as_fewer_images_are_distinct(sets, features_of, metric):
    real, images = sets
    features = features_of(images)
    found = [metric(real, np.resize(features[:count], features.shape)) for count in (NUM_IMAGES, 40, 10, 2)]
    assert np.all(np.diff(found) > 0.0), found


def test_a_distance_of_a_set_from_itself_is_nothing(sets):
    real, _ = sets
    assert abs(frechet_distance(real, real)) < 1e-6 * np.var(real, axis=0).sum()
    assert abs(emoji_mmd(real, real)) < 1e-9
