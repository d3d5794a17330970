"""Precision (are samples like real images?) and recall (are real images like samples?) of two sets of features."""

import numpy as np

from imagen_jax.errors import InputError
from imagen_jax.evaluation.bounds import check_count
from imagen_jax.evaluation.kernel_distance import squared_distances

_BLOCK = 1024


def precision_recall(real: np.ndarray, samples: np.ndarray, *, neighbours: int = 3) -> tuple[float, float]:
    """The share of samples inside the real images' manifold, and of real images inside the samples'.

    A set's manifold is the union of balls around its features, each as large as its k-th nearest other feature is far.

    Args:
      real, samples: [N,D] and [M,D]. Memory is bounded; time grows with (N + M)^2.
      neighbours: k.

    Raises:
      InputError: k is below 1, or too large for a set.

    Source: Kynkaanniemi et al., arXiv 1904.06991, Eq. 1 and 2.
    """
    check_count("neighbours", neighbours, least=1)
    if neighbours >= min(len(real), len(samples)):
        raise InputError(
            f"{len(real)} real images and {len(samples)} samples have no {neighbours} neighbours each; expected more "
            "images, or a smaller number of neighbours"
        )
    real, samples = real.astype(np.float64), samples.astype(np.float64)
    return _share_inside(samples, real, neighbours), _share_inside(real, samples, neighbours)


def _share_inside(points: np.ndarray, centres: np.ndarray, neighbours: int) -> float:
    radii = _radii(centres, neighbours)
    inside = 0
    for start in range(0, len(points), _BLOCK):
        block = points[start : start + _BLOCK]
        found = np.zeros(len(block), bool)
        for other in range(0, len(centres), _BLOCK):
            distances = squared_distances(block, centres[other : other + _BLOCK])
            found |= np.any(distances <= radii[None, other : other + _BLOCK], axis=1)
        inside += int(found.sum())
    return inside / len(points)


def _radii(centres: np.ndarray, neighbours: int) -> np.ndarray:
    """[N]: the squared distance of each to the k-th nearest of the others."""
    radii = []
    for start in range(0, len(centres), _BLOCK):
        nearest = np.full((len(centres[start : start + _BLOCK]), 0), np.inf)
        for other in range(0, len(centres), _BLOCK):
            distances = squared_distances(centres[start : start + _BLOCK], centres[other : other + _BLOCK])
            if start == other:
                np.fill_diagonal(distances, np.inf)
            nearest = np.concatenate([nearest, distances], axis=1)
            nearest = np.partition(nearest, min(neighbours, nearest.shape[1]) - 1, axis=1)[:, :neighbours]
        radii.append(nearest[:, -1])
    return np.concatenate(radii)
