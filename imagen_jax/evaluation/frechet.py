"""The Frechet distance between two sets of features, and one feature that needs no network: colours over a grid."""

import numpy as np

from imagen_jax.evaluation.bounds import check_count
from imagen_jax.evaluation.statistics import moments_of


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """|mean_a - mean_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)): of the normal distributions fitted to features.

    Args:
      a, b: [N,D] and [M,D], at least two each. Only distances at equal N, M and D compare.

    Raises:
      InputError: fewer than two features of a or b.

    In float64. Source: Heusel et al., arXiv 1706.08500, Eq. 6.
    """
    for what, features in (("a", a), ("b", b)):
        check_count(f"number of features in {what}", len(features), least=2)
    if min(len(a), len(b)) > a.shape[1]:
        moments_a, moments_b = moments_of(a), moments_of(b)
        return frechet_of_gaussians(
            mean_a=moments_a.mean, cov_a=moments_a.covariance, mean_b=moments_b.mean, cov_b=moments_b.covariance
        )
    # With few features the covariances are singular, where square roots of eigenvalues lose half of the digits.
    # With C_a = X^T X and C_b = Y^T Y the trace is the sum of the singular values of X Y^T.
    mean_a, root_a = _mean_and_root(a)
    mean_b, root_b = _mean_and_root(b)
    root_trace = float(np.linalg.norm(root_a @ root_b.T, "nuc"))
    return _assemble(mean_a - mean_b, np.sum(root_a**2) + np.sum(root_b**2), root_trace)


def frechet_of_gaussians(
    *,
    mean_a: np.ndarray,
    cov_a: np.ndarray,
    mean_b: np.ndarray,
    cov_b: np.ndarray,
    rank_a: int | None = None,
    rank_b: int | None = None,
) -> float:
    """`frechet_distance` from means [D] and covariances [D,D], float64.

    Args:
      rank_a, rank_b: N - 1 of the covariances' N features, if it is known: what is beyond is rounding.

    By two symmetric eigenvalue problems, since (C_a C_b)^(1/2) has the trace of (C_a^(1/2) C_b C_a^(1/2))^(1/2).
    """
    dim = len(mean_a)
    ranks = [dim if rank is None else min(rank, dim) for rank in (rank_a, rank_b)]
    low, high = (cov_a, cov_b) if ranks[0] <= ranks[1] else (cov_b, cov_a)
    values, vectors = np.linalg.eigh(low)
    kept = slice(dim - min(ranks), dim)
    root = vectors[:, kept] * np.sqrt(np.maximum(values[kept], 0.0))
    root_trace = np.sum(np.sqrt(np.maximum(np.linalg.eigvalsh(root.T @ high @ root), 0.0)))
    return _assemble(mean_a - mean_b, np.trace(cov_a) + np.trace(cov_b), root_trace)


def cell_colours(images: np.ndarray, *, cells: int = 4) -> np.ndarray:
    """uint8 [N,H,W,3] -> [N, cells * cells * 3] float64 in [0, 1]: the mean colour of each of cells x cells squares.

    Few enough that some hundred images give a covariance of full rank. H and W are multiples of `cells`.
    """
    n, height, width, _ = images.shape
    blocks = images.reshape(n, cells, height // cells, cells, width // cells, 3)
    return blocks.mean(axis=(2, 4), dtype=np.float64).reshape(n, -1) / 255.0


def _mean_and_root(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean [D], and X [N or D,D] with X^T X the covariance."""
    x = features.astype(np.float64)
    mean = x.mean(axis=0)
    x = (x - mean) / np.sqrt(len(x) - 1)
    return mean, np.asarray(np.linalg.qr(x, mode="r")) if len(x) > x.shape[1] else x


def _assemble(difference: np.ndarray, traces: float, root_trace: float) -> float:
    return float(np.sum(difference**2) + traces - 2.0 * root_trace)
