"""Statistics of a set of images in a file, so that a reference is computed once; what is not comparable is refused.

An `.npz` with `mu` [D] and `sigma` [D,D], which pytorch-fid and clean-fid read and write too, and besides: `n`, the
`FeatureId` (`network`, `tap`, `resize`, `weights_sha256`), `data_fingerprint`, and `rows`, the features themselves.
"""

import dataclasses
import io
import zipfile
from pathlib import Path

import numpy as np

from imagen_jax.errors import InputError
from imagen_jax.evaluation.features import FeatureId
from imagen_jax.evaluation.frechet import frechet_of_gaussians
from imagen_jax.evaluation.statistics import stream_moments
from imagen_jax.files import write_bytes

# Features that are made float64 at a time.
_BLOCK = 4096
_ID_KEYS = tuple(field.name for field in dataclasses.fields(FeatureId))


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
    """Reads an `.npz` of `save_statistics`, or one of pytorch-fid or clean-fid.

    Args:
      foreign: what the latter are features of, since such files don't say. Ours do, and it isn't used.

    Raises:
      InputError: missing, damaged, not statistics, or of another program and `foreign` is None.
    """
    if not path.is_file():
        raise InputError(f'"{path}" is missing; expected an .npz with mu and sigma')
    try:
        # Opened here: np.load doesn't close what it can't read.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            found = dict(archive)
            mean, covariance = (np.asarray(found.get(key, np.zeros(())), np.float64) for key in ("mu", "sigma"))
            count = int(found["n"]) if "n" in found else None
    except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise InputError(f'"{path}" is no readable .npz ({error}); expected one with mu and sigma') from error
    if (
        mean.ndim != 1
        or covariance.shape != (*mean.shape, *mean.shape)
        or not (np.isfinite(mean).all() and np.isfinite(covariance).all())
    ):
        raise InputError(
            f'"{path}": expected finite mu [D] and sigma [D,D]; it has '
            + (", ".join(f"{key} {list(array.shape)}" for key, array in found.items()) or "nothing")
        )
    if set(_ID_KEYS) <= set(found):
        features = FeatureId(**{key: str(found[key]) for key in _ID_KEYS})
    elif foreign is not None:
        features = foreign
    else:
        raise InputError(
            f'"{path}" has mu and sigma, but not {", ".join(key for key in _ID_KEYS if key not in found)}, as files of '
            "pytorch-fid and clean-fid haven't; say how images were resized for it (--resize=pytorch, clean or "
            "tf_legacy), or give the images"
        )
    return Statistics(mean, covariance, count, features, str(found.get("data_fingerprint", "")), found.get("rows"))


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
