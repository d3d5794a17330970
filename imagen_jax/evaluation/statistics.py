"""Mean and covariance of features from batch to batch, in float64 on the host."""

import dataclasses
import functools
from collections.abc import Iterable

import numpy as np


@dataclasses.dataclass(frozen=True)
class Moments:
    """Of N features of D numbers, float64.

    Attributes:
      count: N.
      mean: [D].
      m2: [D,D], the sum of (x - mean)(x - mean)^T.
    """

    count: int
    mean: np.ndarray
    m2: np.ndarray

    @property
    def covariance(self) -> np.ndarray:
        """[D,D], unbiased. Of a single feature there is none, and it is NaN."""
        return self.m2 / (self.count - 1) if self.count > 1 else np.full_like(self.m2, np.nan)


def moments_of(features: np.ndarray) -> Moments:
    """Of features [N,D], N >= 1."""
    x = features.astype(np.float64)
    mean = x.mean(axis=0)
    x -= mean
    return Moments(len(x), mean, x.T @ x)


def merge(a: Moments, b: Moments) -> Moments:
    """Of the features of both together: Chan, Golub and LeVeque (1979), Eq. 2.1."""
    count = a.count + b.count
    delta = b.mean - a.mean
    mean = a.mean + delta * (b.count / count)
    return Moments(count, mean, a.m2 + b.m2 + np.outer(delta * (a.count * b.count / count), delta))


def stream_moments(batches: Iterable[np.ndarray]) -> Moments:
    """Of all features of batches [n,D]; n may differ, and there is at least one feature."""
    return functools.reduce(merge, (moments_of(batch) for batch in batches if len(batch)))
