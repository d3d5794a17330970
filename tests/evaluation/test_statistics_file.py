import dataclasses

import numpy as np
import pytest

from imagen_jax.errors import InputError
from imagen_jax.evaluation.features import FeatureId
from imagen_jax.evaluation.frechet import frechet_distance
from imagen_jax.evaluation.statistics_file import (
    frechet_of_statistics,
    load_statistics,
    save_statistics,
    statistics_of,
)

FEATURES = FeatureId("inception", "2048", "tf_legacy", "6726825d" + "0" * 56)
A, B = (np.random.default_rng(seed).normal(size=(20 + seed, 6)) for seed in (0, 1))


def statistics(x, features=FEATURES):
    return statistics_of(x, features, data_fingerprint="ab12")


def test_statistics_come_back_bit_by_bit(tmp_path):
    path, written = tmp_path / "real.npz", statistics(A)
    save_statistics(path, written)
    read = load_statistics(path)
    for field in dataclasses.fields(written):
        np.testing.assert_array_equal(getattr(read, field.name), getattr(written, field.name))


def test_files_have_what_pytorch_fid_and_clean_fid_read(tmp_path):
    save_statistics(tmp_path / "real.npz", statistics(A))
    with np.load(tmp_path / "real.npz") as archive:
        np.testing.assert_allclose(archive["mu"][:], A.mean(0), rtol=1e-14, atol=1e-15)
        np.testing.assert_allclose(archive["sigma"][:], np.cov(A, rowvar=False), rtol=1e-12, atol=1e-15)


def test_their_files_want_to_be_told_what_they_are_of(tmp_path):
    path = tmp_path / "theirs.npz"
    np.savez(path, mu=A.mean(0), sigma=np.cov(A, rowvar=False))
    with pytest.raises(InputError, match="say how images were resized"):
        load_statistics(path)
    theirs = load_statistics(path, foreign=FEATURES)
    assert theirs.count is None
    assert frechet_of_statistics(theirs, statistics(B)) == pytest.approx(frechet_distance(A, B), rel=1e-9)


@pytest.mark.parametrize("field", ["network", "tap", "resize", "weights_sha256"])
def test_other_features_have_no_distance(field):
    other = dataclasses.replace(FEATURES, **{field: "another"})
    with pytest.raises(InputError, match=f"{field} .*another"):
        frechet_of_statistics(statistics(A), statistics(B, other))


@pytest.mark.parametrize(
    "arrays",
    [
        {},
        {"mu": np.zeros(3)},
        {"mu": np.zeros(3), "sigma": np.zeros((3, 4))},
        {"mu": np.zeros((1, 3)), "sigma": np.zeros((3, 3))},
        {"mu": np.zeros(3), "sigma": np.full((3, 3), np.nan)},
        {"mu": np.array([None] * 3), "sigma": np.zeros((3, 3))},
    ],
)
def test_what_is_no_statistics_is_refused(tmp_path, arrays):
    np.savez(tmp_path / "wrong.npz", **arrays)
    with pytest.raises(InputError, match=r"mu and sigma|mu \[D\]"):
        load_statistics(tmp_path / "wrong.npz", foreign=FEATURES)


def test_missing_and_truncated_files_are_one_clear_error(tmp_path):
    path = tmp_path / "real.npz"
    with pytest.raises(InputError, match="missing"):
        load_statistics(path)
    save_statistics(path, statistics(A))
    for size in (0, 10, 400):
        path.write_bytes(path.read_bytes()[:size])
        with pytest.raises(InputError, match="readable"):
            load_statistics(path)
