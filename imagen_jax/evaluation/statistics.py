"""Mean and covariance of features from batch to batch and host to host, in float64 on the host."""

import dataclasses
import functools
from collections.abc import Iterable

import jax
import numpy as np
from jax.experimental import multihost_utils

# What a host receives at a time when hosts exchange their sums.
_GATHER_BYTES = 2**28


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


def merge_over_processes(moments: Moments) -> Moments:
    """Of the features of all JAX processes together; every process calls it and has the same bits.

    A process without features passes a count of 0 and zeros.
    """
    if jax.process_count() == 1:
        return moments
    counts = gather_float64(np.array([moments.count], np.float64))[:, 0]
    means = gather_float64(moments.mean)
    mean = counts @ means / counts.sum()
    between = ((means - mean) * counts[:, None]).T @ (means - mean)
    # In parts: a pod has hundreds of processes, and m2 of 2048 features is 34 MB.
    rows = max(1, _GATHER_BYTES // (moments.mean.nbytes * len(counts)))
    parts = [moments.m2[start : start + rows] for start in range(0, len(moments.m2), rows)]
    within = np.concatenate([gather_float64(part).sum(axis=0) for part in parts])
    return Moments(int(counts.sum()), mean, within + between)


def gather_float64(array: np.ndarray) -> np.ndarray:
    """float64 [...,D] of each JAX process -> [P,...,D], exactly.

    `process_allgather` alone makes float32 of float64 unless jax_enable_x64 is set.
    """
    return from_words(np.asarray(multihost_utils.process_allgather(to_words(array)))).reshape(-1, *array.shape)


def to_words(array: np.ndarray) -> np.ndarray:
    """float64 [...,D] as uint32 [...,2D], bit by bit."""
    return np.ascontiguousarray(array, np.float64).view(np.uint32)


def from_words(words: np.ndarray) -> np.ndarray:
    """The reverse of `to_words`."""
    return np.ascontiguousarray(words).view(np.float64)
