"""Statistics of a set of images in a file, so that a reference is computed once; what is not comparable is refused.

An `.npz` with `mu` [D] and `sigma` [D,D], which pytorch-fid and clean-fid read and write too, and besides: `n`, the
`FeatureId` (`network`, `tap`, `resize`, `weights_sha256`), `data_fingerprint`, and `rows`, the features themselves.
"""

import dataclasses
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from imagen_jax.errors import InputError
from imagen_jax.evaluation.features import FeatureId
from imagen_jax.evaluation.frechet import frechet_of_gaussians
from imagen_jax.evaluation.npz import open_npz
from imagen_jax.evaluation.statistics import stream_moments
from imagen_jax.evaluation.stored_arrays import StoredArray
from imagen_jax.files import user_path, write_bytes

# Features that are made float64 at a time.
_BLOCK = 4096
_ID_KEYS = tuple(field.name for field in dataclasses.fields(FeatureId))
_DATA_KEY = "data_fingerprint"
# Twice the widest network's features; a covariance of so many takes 134 MB, and its check two copies.
_MAX_DIM = 4096
_MAX_TEXT = 1000
_MOST = 1e100
# Of the trace: float32, in which some programs keep sigma, is off by 6e-8 of each number.
_ROUNDING = 1e-6


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Mean [D] and covariance [D,D] (float64) of features, and where they are from.

    Attributes:
      count: of images, or None where a file of another program doesn't say.
      data_fingerprint: hex, of the images; "" where it is unknown.
      rows: the features [N,D] float32, which other metrics than Frechet's need; None where there are only statistics.
    """

    mean: np.ndarray
    covariance: np.ndarray
    count: int | None
    features: FeatureId
    data_fingerprint: str = ""
    rows: np.ndarray | None = None


def statistics_of(rows: np.ndarray, features: FeatureId, *, data_fingerprint: str = "") -> Statistics:
    """Of features [N,D]."""
    moments = stream_moments(rows[start : start + _BLOCK] for start in range(0, len(rows), _BLOCK))
    return Statistics(moments.mean, moments.covariance, moments.count, features, data_fingerprint, rows)


def save_statistics(path: Path, statistics: Statistics) -> None:
    """Writes an `.npz`, whole or not at all."""
    arrays = {"mu": statistics.mean, "sigma": statistics.covariance}
    if statistics.count is not None:
        arrays["n"] = np.asarray(statistics.count)
    if statistics.rows is not None:
        arrays["rows"] = statistics.rows
    texts = dataclasses.asdict(statistics.features) | {"data_fingerprint": statistics.data_fingerprint}
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays, **{key: np.asarray(text) for key, text in texts.items()})
    write_bytes(path, buffer.getvalue())


def load_statistics(path: Path, *, foreign: FeatureId | None = None) -> Statistics:
    """Reads an `.npz` of `save_statistics`, or one of pytorch-fid or clean-fid. Other arrays in it are not read.

    Args:
      foreign: what the latter are features of, since such files don't say. Ours do, and it isn't used.

    Raises:
      InputError: missing, damaged, not statistics, or of another program and `foreign` is None.
    """
    path = user_path(path)
    with open_npz(path, expected="one with mu and sigma") as stored:
        ours = set(_ID_KEYS) <= set(stored)
        texts = {key: _text(path, key, stored[key]) for key in (*_ID_KEYS, _DATA_KEY) if key in stored and ours}
        if not ours and foreign is None:
            _check_shapes(path, stored)
            raise InputError(
                f'"{path}" has mu and sigma, but not {", ".join(key for key in _ID_KEYS if key not in stored)}, as '
                "files of pytorch-fid and clean-fid haven't; say how images were resized for it (--resize=pytorch, "
                "clean or tf_legacy), or give the images"
            )
        _check_shapes(path, stored)
        mean, covariance = (stored[key].read().astype(np.float64) for key in ("mu", "sigma"))
        count = _count(path, stored["n"]) if "n" in stored else None
        rows = None
        if ours and "rows" in stored:
            expected = (count, len(mean))
            if stored["rows"].dtype not in (np.float32, np.float64) or stored["rows"].shape != expected:
                raise InputError(
                    f'"{path}" has rows {_described(stored["rows"])}; by its n and mu expected float32 {list(expected)}'
                )
            rows = stored["rows"].read()
    _check_values(path, mean, covariance, rows)
    features = foreign if foreign is not None and not ours else FeatureId(**{key: texts[key] for key in _ID_KEYS})
    return Statistics(mean, covariance, count, features, texts.get(_DATA_KEY, ""), rows)


def _check_shapes(path: Path, stored: Mapping[str, StoredArray]) -> None:
    mean, covariance = stored.get("mu"), stored.get("sigma")
    if (
        mean is None
        or covariance is None
        or len(mean.shape) != 1
        or not 0 < mean.shape[0] <= _MAX_DIM
        or covariance.shape != (*mean.shape, *mean.shape)
        or any(each.dtype not in (np.float32, np.float64) for each in (mean, covariance))
    ):
        there = ", ".join(f"{key[:50]} {_described(each)}" for key, each in list(stored.items())[:8]) or "nothing"
        raise InputError(
            f'"{path}": expected finite mu [D] and sigma [D,D], float64 or float32, with D up to {_MAX_DIM}; it '
            f"has {there}"
        )


def _described(array: StoredArray) -> str:
    return f"{'objects' if array.dtype.hasobject else array.dtype} {list(array.shape)}"


def _check_values(path: Path, mean: np.ndarray, covariance: np.ndarray, rows: np.ndarray | None) -> None:
    """Raises InputError for numbers that are no mean and covariance of anything."""
    trace = float(np.trace(covariance))
    # Larger ones are finite, and their squares may not be.
    if not (np.abs(mean) < _MOST).all() or not (np.abs(covariance) < _MOST).all():
        raise InputError(f'"{path}": expected finite mu [D] and sigma [D,D], and some of its numbers are not')
    if rows is not None and not np.isfinite(rows).all():
        raise InputError(f'"{path}": expected finite rows, and some of their numbers are not')
    reason = _not_a_covariance(covariance, _ROUNDING * trace)
    if reason is None and rows is not None:
        distance = np.max(np.abs(rows.mean(axis=0, dtype=np.float64) - mean))
        if distance > 1e-3 * (np.sqrt(trace) + np.max(np.abs(mean))):
            reason = "mu is not the mean of its rows"
    if reason:
        raise InputError(f'"{path}" has a mu and sigma of no set of images: {reason}; write it again')


def _not_a_covariance(covariance: np.ndarray, tolerance: float) -> str | None:
    """Why no set of features has this covariance; numbers in float32 are rounded by less than `tolerance`."""
    if np.min(np.diagonal(covariance)) < -tolerance:
        return f"sigma has a negative variance, {np.min(np.diagonal(covariance)):.3g}"
    if np.max(np.abs(covariance - covariance.T)) > max(tolerance, 0.0):
        return "sigma is not symmetric"
    if not np.any(covariance):
        return None
    try:
        # Quicker than eigenvalues: it exists if none of them is below -tolerance.
        np.linalg.cholesky(covariance + 2.0 * tolerance * np.eye(len(covariance)))
    except np.linalg.LinAlgError:
        return "sigma has negative eigenvalues"
    return None


def _count(path: Path, stored: StoredArray) -> int:
    value = stored.read() if stored.shape in ((), (1,)) and stored.dtype.kind in "iuf" else None
    number = float(value.reshape(())) if value is not None else float("nan")
    if not 2 <= number <= 2**53 or number != int(number):
        said = _described(stored) if value is None else number
        raise InputError(f'"{path}" has n = {said}; expected how many images it is of, a whole number from 2')
    return int(number)


def _text(path: Path, key: str, stored: StoredArray) -> str:
    if stored.dtype.kind != "U" or stored.shape != () or stored.dtype.itemsize > 4 * _MAX_TEXT:
        raise InputError(f'"{path}" has {key} {_described(stored)}; expected a text')
    try:
        text = str(stored.read().reshape(()))
        text.encode()
    except ValueError:
        raise InputError(f'"{path}" has a {key} that is no text; write it again') from None
    return text


def frechet_of_statistics(a: Statistics, b: Statistics) -> float:
    """`frechet_distance` of the features that both were made of.

    Raises:
      InputError: they are of different features, so that there is no distance between them.
    """
    check_comparable(a.features, b.features)
    ranks = [None if x.count is None else x.count - 1 for x in (a, b)]
    return frechet_of_gaussians(
        mean_a=a.mean, cov_a=a.covariance, rank_a=ranks[0], mean_b=b.mean, cov_b=b.covariance, rank_b=ranks[1]
    )


def check_comparable(a: FeatureId, b: FeatureId) -> None:
    """Raises InputError, naming what differs, if features of `a` and `b` have no distance."""
    differing = [
        f'{key} "{getattr(a, key)}" and "{getattr(b, key)}"' for key in _ID_KEYS if getattr(a, key) != getattr(b, key)
    ]
    if differing:
        raise InputError(
            f"statistics of different features have no distance: {', '.join(differing)}; compute both with the same "
            "network, weights, layer and way to resize"
        )
