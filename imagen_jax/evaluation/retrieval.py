"""Whether a sample shows what its caption names: the name of its nearest training image."""

from collections.abc import Sequence

import numpy as np


def nearest(samples: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Index into `reference` [M,H,W,3] of the image nearest to each of `samples` [N,H,W,3], by mean squared distance.

    Both uint8; the result is [N] int. Distances are exact: |a|^2 - 2ab + |b|^2 in float64.
    """
    a = samples.reshape(len(samples), -1).astype(np.float64)
    b = reference.reshape(len(reference), -1).astype(np.float64)
    return np.argmin(np.sum(b * b, axis=1)[None, :] - 2.0 * (a @ b.T), axis=1)


def accuracy(samples: np.ndarray, names: Sequence[str], reference: np.ndarray, reference_names: Sequence[str]) -> float:
    """Share of samples whose nearest reference image has the caption's name."""
    found = nearest(samples, reference)
    return float(np.mean([reference_names[index] == name for index, name in zip(found, names, strict=True)]))
