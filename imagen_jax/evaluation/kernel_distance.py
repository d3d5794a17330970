"""Distances between two sets of features by a kernel: KID, and the one of CMMD. In float64."""

from typing import NamedTuple

import numpy as np

from imagen_jax.evaluation.bounds import check_count

_BLOCK = 1024


class KernelDistance(NamedTuple):
    """Of `num_subsets` pairs of subsets of `subset_size` features: mean and deviation of the distance."""

    mean: float
    deviation: float
    num_subsets: int
    subset_size: int


def kernel_distance(
    a: np.ndarray, b: np.ndarray, *, seed: int, num_subsets: int = 100, subset_size: int = 1000
) -> KernelDistance:
    """KID: the squared maximum mean discrepancy with the kernel (x.y / D + 1)^3, without bias.

    Args:
      a, b: [N,D] and [M,D], at least two each.
      seed: of the subsets, drawn without replacement.
      subset_size: at most; N or M where that is less. Subsets that are all of a and b are all the same: the deviation
        is then 0 and says nothing.
      num_subsets: pairs of subsets that are drawn.

    Raises:
      InputError: fewer than two features of a or b, subsets of fewer than two, no subset, or a negative seed.

    Source: Binkowski et al., arXiv 1801.01401, section 4.
    """
    check_count("seed", seed, least=0)
    check_count("subset_size", subset_size, least=2)
    check_count("num_subsets", num_subsets, least=1)
    for what, features in (("a", a), ("b", b)):
        check_count(f"number of features in {what}", len(features), least=2)
    rng = np.random.default_rng(seed)
    size = min(subset_size, len(a), len(b))
    if size == max(len(a), len(b)):
        num_subsets = 1
    found = [
        polynomial_mmd2(a[rng.choice(len(a), size, replace=False)], b[rng.choice(len(b), size, replace=False)])
        for _ in range(num_subsets)
    ]
    return KernelDistance(float(np.mean(found)), float(np.std(found)), num_subsets, size)


def polynomial_mmd2(a: np.ndarray, b: np.ndarray) -> float:
    """The squared discrepancy of a [N,D] and b [M,D] that `kernel_distance` averages; it may be negative."""
    a, b = a.astype(np.float64), b.astype(np.float64)

    def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return (x @ y.T / x.shape[1] + 1.0) ** 3

    def others(x: np.ndarray) -> float:
        between = kernel(x, x)
        return (between.sum() - np.trace(between)) / (len(x) * (len(x) - 1))

    return float(others(a) + others(b) - 2.0 * kernel(a, b).mean())


def gaussian_mmd2(a: np.ndarray, b: np.ndarray, *, sigma: float) -> float:
    """The squared discrepancy with the kernel exp(-|x - y|^2 / (2 sigma^2)); it counts each x with itself.

    Args:
      a, b: [N,D] and [M,D]; memory is bounded.

    CMMD is 1000 times this of normalised CLIP features with sigma = 10: Jayasumana et al., arXiv 2401.09603.
    """
    return _mean_kernel(a, a, sigma) + _mean_kernel(b, b, sigma) - 2.0 * _mean_kernel(a, b, sigma)


def cmmd(a: np.ndarray, b: np.ndarray) -> float:
    """CMMD of CLIP embeddings [N,D] and [M,D], which are normalised here."""
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a.astype(np.float64), b.astype(np.float64)))
    return 1000.0 * gaussian_mmd2(a, b, sigma=10.0)


def _mean_kernel(a: np.ndarray, b: np.ndarray, sigma: float) -> float:
    total = 0.0
    for start in range(0, len(a), _BLOCK):
        for other in range(0, len(b), _BLOCK):
            distances = squared_distances(a[start : start + _BLOCK], b[other : other + _BLOCK])
            total += float(np.exp(distances / (-2.0 * sigma**2)).sum())
    return total / (len(a) * len(b))


def squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """[N,D], [M,D] -> [N,M] float64, never negative: |x|^2 - 2 x.y + |y|^2."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    return np.maximum(np.sum(a * a, axis=1)[:, None] - 2.0 * (a @ b.T) + np.sum(b * b, axis=1)[None, :], 0.0)
