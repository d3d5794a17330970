import dataclasses

import numpy as np
import pytest

from imagen_jax.errors import InputError
from imagen_jax.evaluation import npz
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
        {"mu": np.zeros(3, complex), "sigma": np.zeros((3, 3))},
        {"mu": np.zeros(3), "sigma": np.zeros((3, 3), int)},
        {"mu": np.zeros(3, "U4"), "sigma": np.zeros((3, 3))},
        {"mu": np.zeros(0), "sigma": np.zeros((0, 0))},
        {"mu": np.full(3, 1e200), "sigma": np.zeros((3, 3))},
        {"mu": np.zeros(3), "sigma": np.eye(3) * 1e200},
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


def spoiled(place, value, *, mirrored=False):
    sigma = np.cov(A, rowvar=False)
    sigma[place] = value
    if mirrored:
        sigma[place[::-1]] = value
    return {"mu": A.mean(0), "sigma": sigma}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (spoiled((1, 1), -0.1), "negative variance, -0.1"),
        (spoiled((0, 1), 0.5), "not symmetric"),
        (spoiled((0, 1), 5.0, mirrored=True), "negative eigenvalues"),
        ({"mu": A.mean(0), "sigma": -np.eye(6)}, "negative variance"),
    ],
)
def test_a_sigma_that_no_images_have_is_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "wrong.npz", **arrays)
    with pytest.raises(InputError, match=message):
        load_statistics(tmp_path / "wrong.npz", foreign=FEATURES)


@pytest.mark.parametrize("count", [2, 5, 40])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_covariances_of_any_rank_and_rounding_are_taken(tmp_path, count, dtype):
    rows = np.random.default_rng(0).normal(size=(count, 30)) * np.logspace(-4, 3, 30) + 7.0
    sigma = np.cov(rows, rowvar=False).astype(dtype)
    np.savez(tmp_path / "theirs.npz", mu=rows.mean(0).astype(dtype), sigma=sigma)
    read = load_statistics(tmp_path / "theirs.npz", foreign=FEATURES)
    np.testing.assert_array_equal(read.covariance, sigma)


def test_images_that_are_all_the_same_have_statistics_too(tmp_path):
    save_statistics(tmp_path / "real.npz", statistics(np.ones((4, 3), np.float32)))
    assert not load_statistics(tmp_path / "real.npz").covariance.any()


def ours(**changes):
    rows = A.astype(np.float32)
    made = statistics(rows)
    texts = {key: np.asarray(text) for key, text in dataclasses.asdict(FEATURES).items()}
    return {
        "mu": made.mean,
        "sigma": made.covariance,
        "n": 20,
        "rows": rows,
        "data_fingerprint": "ab",
        **texts,
        **changes,
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n": -20}, "has n = -20"),
        ({"n": 20.5}, "has n = 20.5"),
        ({"n": np.nan}, "has n = nan"),
        ({"n": 1}, "has n = 1"),
        ({"n": "20"}, "has n = <U2"),
        ({"n": np.asarray([20, 20])}, "has n = int64"),
        ({"n": 21}, r"rows float32 \[20, 6\]; by its n and mu expected float32 \[21, 6\]"),
        ({"rows": A[:, :5].astype(np.float32)}, r"rows float32 \[20, 5\]"),
        ({"rows": A.astype(np.int64)}, "rows int64"),
        ({"rows": np.full((20, 6), np.nan, np.float32)}, "expected finite rows"),
        ({"rows": A.astype(np.float32) + 9}, "mu is not the mean of its rows"),
        ({"network": 7}, "has network int64"),
        ({"network": np.asarray(["a", "b"])}, "has network <U1"),
        ({"network": "x" * 2000}, "has network <U2000"),
        ({"tap": np.asarray(None, object)}, "has tap objects"),
        ({"data_fingerprint": b"ab"}, "has data_fingerprint |S2"),
    ],
)
def test_our_own_file_with_other_values_is_refused(tmp_path, changes, message):
    np.savez(tmp_path / "real.npz", **ours())
    load_statistics(tmp_path / "real.npz")
    np.savez(tmp_path / "real.npz", **ours(**changes))
    with pytest.raises(InputError, match=message) as error:
        load_statistics(tmp_path / "real.npz")
    assert "\n" not in str(error.value)


def test_arrays_that_are_no_statistics_are_not_read(tmp_path, monkeypatch):
    """Some programs keep all images or features beside: gigabytes, which may even be damaged."""
    path = tmp_path / "theirs.npz"
    np.savez(path, mu=A.mean(0), sigma=np.cov(A, rowvar=False), rows=np.ones((50_000, 6)), images=np.ones(100_000))
    read, real = [], npz._read
    monkeypatch.setattr(npz, "_read", lambda archive, name, *more: read.append(name) or real(archive, name, *more))
    assert load_statistics(path, foreign=FEATURES).rows is None
    assert sorted(read) == ["mu.npy", "sigma.npy"]
