"""The Frechet distance between two sets of features, and one feature that needs no network: colours over a grid."""

import numpy as np


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """|mean_a - mean_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)): of the normal distributions fitted to features.

    Args:
      a, b: [N,D] and [M,D]. Only distances at equal N, M and D compare.

    By two symmetric eigenvalue problems in float64, since (C_a C_b)^(1/2) has the trace of
    (C_a^(1/2) C_b C_a^(1/2))^(1/2). Source: Heusel et al., arXiv 1706.08500, Eq. 6.
    """
    a, b = a.astype(np.float64), b.astype(np.float64)
    cov_a, cov_b = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (a, b))
    values, vectors = np.linalg.eigh(cov_a)
    root_a = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    root_trace = np.sum(np.sqrt(np.maximum(np.linalg.eigvalsh(root_a @ cov_b @ root_a), 0.0)))
    return float(np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(cov_a) + np.trace(cov_b) - 2.0 * root_trace)


def cell_colours(images: np.ndarray, *, cells: int = 4) -> np.ndarray:
    """uint8 [N,H,W,3] -> [N, cells * cells * 3] float64 in [0, 1]: the mean colour of each of cells x cells squares.

    Few enough that some hundred images give a covariance of full rank. H and W are multiples of `cells`.
    """
    n, height, width, _ = images.shape
    blocks = images.reshape(n, cells, height // cells, cells, width // cells, 3)
    return blocks.mean(axis=(2, 4), dtype=np.float64).reshape(n, -1) / 255.0
