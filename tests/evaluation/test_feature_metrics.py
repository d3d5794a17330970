import dataclasses
import errno
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax import files
from imagen_jax.errors import InputError, NotFiniteError
from imagen_jax.evaluation.base import Samples
from imagen_jax.evaluation.feature_metrics import FeatureMetrics, features_of
from imagen_jax.evaluation.features import FeatureExtractor, FeatureId, FeatureName
from imagen_jax.evaluation.frechet import frechet_distance
from imagen_jax.evaluation.image_sets import ArrayImages
from imagen_jax.evaluation.kernel_distance import kernel_distance
from imagen_jax.evaluation.reference import Reference
from imagen_jax.evaluation.statistics_file import save_statistics

RNG = np.random.default_rng(0)
# More images than numbers, so that covariances have full rank.
REAL, FAKE = (RNG.integers(low, 256, (40, 2, 2, 3)).astype(np.uint8) for low in (0, 60))


def apply(params, images):
    x = jnp.asarray(images, jnp.float32)[:, :2, :2].reshape(len(images), -1)
    return {"pixels": x @ params["kernel"], "logits_unbiased": x[:, :5] / 64.0}


@pytest.fixture(scope="module")
def extractor():
    kernel = np.eye(12, 4, dtype=np.float32) / 255
    ids = {tap: FeatureId("toy", tap, "", "12345678" * 8) for tap in ("pixels", "logits_unbiased")}
    return FeatureExtractor(apply, {"kernel": kernel}, ids, name=FeatureName("toy"), batch_size=16)


@pytest.fixture(scope="module")
def features(extractor):
    return [features_of(extractor, ArrayImages(images))["pixels"] for images in (REAL, FAKE)]


@pytest.fixture
def reference(tmp_path):
    return Reference(ArrayImages(REAL), cache=tmp_path / "cache")


SAMPLES = Samples({2: ArrayImages(FAKE)})


def test_distances_have_the_networks_name_an_interval_and_the_null(extractor, features, reference):
    metric = FeatureMetrics(extractor, reference.features(extractor), ["fd", "kd", "mmd"])
    found = metric(SAMPLES)
    assert list(found) == ["fd_toy", "kd_toy", "mmd_toy"]
    assert found["fd_toy"].value == pytest.approx(frechet_distance(*features), rel=1e-9)
    interval: Any = found["fd_toy"]
    assert interval.low < interval.value < interval.high
    assert found["kd_toy"].value == kernel_distance(*features, seed=0).mean
    for measure in found.values():
        assert measure.kind == "distance"
        assert measure.null is not None and abs(measure.null) < measure.value


def test_scores_need_no_distance(extractor, reference):
    (score,) = FeatureMetrics(extractor, None, ["inception_score"])(SAMPLES).values()
    assert 1.0 <= score.value <= 5.0 and score.deviation
    metric = FeatureMetrics(extractor, reference.features(extractor), ["precision_recall"])
    found = {name: measure.value for name, measure in metric(SAMPLES).items()}
    assert set(found) == {"precision_toy", "recall_toy"}
    same = FeatureMetrics(extractor, reference.features(extractor), ["precision_recall"])
    assert {measure.value for measure in same(Samples({2: ArrayImages(REAL)})).values()} == {1.0}


def test_resamples_are_as_many_as_asked_for(extractor, reference):
    real = reference.features(extractor)
    none = FeatureMetrics(extractor, real, ["fd"], num_resamples=0)(SAMPLES)["fd_toy"]
    some = FeatureMetrics(extractor, real, ["fd"], num_resamples=10)(SAMPLES)["fd_toy"]
    assert none.low is None and some.low is not None
    assert none.value == some.value


def test_statistics_alone_give_the_frechet_distance_and_nothing_else(extractor, features, reference, tmp_path):
    real = reference.features(extractor)
    save_statistics(tmp_path / "real.npz", dataclasses.replace(real, rows=None))
    file = Reference(tmp_path / "real.npz")
    found = FeatureMetrics(extractor, file.features(extractor), ["fd"])(SAMPLES)["fd_toy"]
    assert found.value == pytest.approx(frechet_distance(*features), rel=1e-9)
    assert found.null is None and found.low is None
    with pytest.raises(InputError, match="kd needs the reference's features"):
        FeatureMetrics(extractor, file.features(extractor), ["kd"])


def test_what_has_no_distance_is_refused(extractor, reference, tmp_path):
    real = reference.features(extractor)
    other = dataclasses.replace(real, features=dataclasses.replace(real.features, weights_sha256="ff" * 32))
    with pytest.raises(InputError, match="different features"):
        FeatureMetrics(extractor, other, ["fd"])
    with pytest.raises(InputError, match="fd needs real images"):
        FeatureMetrics(extractor, None, ["fd"])
    np.savez(tmp_path / "theirs.npz", mu=np.zeros(7), sigma=np.eye(7))
    theirs = Reference(tmp_path / "theirs.npz")
    with pytest.raises(InputError, match="say how images were resized"):
        theirs.features(extractor)
    with pytest.raises(InputError, match="have 7 numbers, the samples' 4"):
        FeatureMetrics(extractor, theirs.features(extractor, said=True), ["fd"])


def test_metrics_of_two_files_of_another_program_are_told_apart(extractor, tmp_path):
    made_of = []
    for shift in (0, 1):
        np.savez(tmp_path / f"{shift}.npz", mu=np.full(4, float(shift)), sigma=np.eye(4))
        statistics = Reference(tmp_path / f"{shift}.npz").features(extractor, said=True)
        made_of.append(FeatureMetrics(extractor, statistics, ["fd"]).made_of)
    assert made_of[0] != made_of[1]


def test_a_references_features_are_computed_once(extractor, reference, monkeypatch):
    first = reference.features(extractor)
    monkeypatch.setattr(extractor, "_apply", lambda *_: pytest.fail("computed again"))
    again = reference.features(extractor)
    np.testing.assert_array_equal(again.rows, first.rows)
    np.testing.assert_array_equal(again.covariance, first.covariance)
    with pytest.raises(pytest.fail.Exception):
        Reference(ArrayImages(FAKE), cache=reference._cache).features(extractor)


def test_features_that_are_kept_but_damaged_are_computed_again_with_one_line(extractor, reference, caplog):
    first = reference.features(extractor)
    (kept,) = reference._cache.iterdir()
    valid = kept.read_bytes()
    for damaged in (b"", valid[:500], valid[:-300] + b"x" * 300):
        kept.write_bytes(damaged)
        caplog.clear()
        np.testing.assert_array_equal(reference.features(extractor).rows, first.rows)
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert "can't be used, and are computed again" in caplog.text and kept.name in caplog.text
        assert kept.read_bytes() == valid


@pytest.mark.parametrize(
    "error", [OSError(errno.EROFS, "Read-only file system"), PermissionError(13, "Permission denied")]
)
def test_features_that_can_t_be_kept_are_measured_all_the_same(extractor, reference, monkeypatch, caplog, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(files.os, "replace", fail)
    assert reference.features(extractor).count == len(REAL)
    assert f'features are not kept in "{reference._cache}"' in caplog.text and error.strerror in caplog.text
    monkeypatch.undo()
    (reference._cache / f"toy_{reference.fingerprint[:16]}.npz").mkdir(parents=True)
    assert reference.features(extractor).count == len(REAL)


@pytest.mark.parametrize(("broken", "what"), [(REAL[:1], "images of the reference"), (FAKE[:1], "samples")])
def test_features_that_are_not_finite_name_network_and_images(tmp_path, broken, what):
    def apply_broken(params, images):
        found = apply(params, images)
        same = (jnp.asarray(images)[:, :2, :2] == broken).reshape(len(images), -1).all(axis=1)
        return found | {"pixels": jnp.where(same[:, None], jnp.nan, found["pixels"])}

    ids = {tap: FeatureId("toy", tap, "", "12345678" * 8) for tap in ("pixels", "logits_unbiased")}
    kernel = np.eye(12, 4, dtype=np.float32)
    damaged = FeatureExtractor(apply_broken, {"kernel": kernel}, ids, name=FeatureName("toy"), batch_size=16)
    reference = Reference(ArrayImages(REAL), cache=tmp_path / "cache")
    with pytest.raises(
        NotFiniteError, match=rf"features of toy \(pixels\) are not finite for 1 of 40 {what}, the first"
    ):
        FeatureMetrics(damaged, reference.features(damaged), ["fd"])(SAMPLES)


def test_few_images_are_said_to_be_few(extractor, reference):
    with pytest.raises(InputError, match=r"1 samples and 40 real images.*two of each.*4 numbers"):
        FeatureMetrics(extractor, reference.features(extractor), ["fd"])(Samples({2: ArrayImages(FAKE[:1])}))
    few = Samples({2: ArrayImages(FAKE[:4])})
    found = FeatureMetrics(extractor, reference.features(extractor), ["fd"])(few)["fd_toy"]
    assert any("singular" in caveat for caveat in found.caveats)
    assert jax.local_device_count() == 8  # more than these images
