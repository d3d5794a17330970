"""How far a distance between two sets of features can be trusted: bootstrap intervals, the null distance, caveats."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np

from imagen_jax.errors import InputError
from imagen_jax.evaluation.base import Measure
from imagen_jax.evaluation.bounds import LEAST_RESAMPLES, MOST_RESAMPLES, check_count


class Interval(NamedTuple):
    """Around `value`, with the deviation of the bootstrap's values."""

    value: float
    low: float
    high: float
    deviation: float


def bootstrap(
    metric: Callable[[np.ndarray, np.ndarray], float],
    a: np.ndarray,
    b: np.ndarray,
    *,
    seed: int,
    num_resamples: int = 100,
    level: float = 0.95,
) -> Interval:
    """`metric(a, b)`, and how it would vary with other images from the same distributions.

    Each resample draws N and M features with replacement. The distances of resamples are larger than of the sets
    themselves (a Frechet distance sees fewer distinct images), so that what is taken from them is their spread about
    their own mean.

    Args:
      a, b: [N,D] and [M,D].
      seed: of the resamples.
      num_resamples: how many, from 10 to 100,000.
      level: share of the resamples inside the interval, between 0 and 1.

    Raises:
      InputError: a number of resamples or a level out of these bounds, or a negative seed.
    """
    check_count("seed", seed, least=0)
    check_count("num_resamples", num_resamples, least=LEAST_RESAMPLES, most=MOST_RESAMPLES)
    if not 0.0 < level < 1.0:
        raise InputError(f"level is {level!r}; expected a share between 0 and 1, such as 0.95")
    rng = np.random.default_rng(seed)
    found = np.array(
        [
            metric(a[rng.integers(len(a), size=len(a))], b[rng.integers(len(b), size=len(b))])
            for _ in range(num_resamples)
        ]
    )
    value = metric(a, b)
    low, high = np.quantile(found - found.mean(), [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return Interval(value, float(value + low), float(value + high), float(np.std(found)))


def mean_interval(
    values: np.ndarray, *, kind: Literal["alignment", ""], seed: int, num_resamples: int = 1000
) -> Measure:
    """Returns the mean of numbers [N] of one sample each, with its bootstrap interval.

    Raises:
      InputError: fewer resamples than 10 or more than 100,000, no numbers, or a negative seed.
    """
    check_count("seed", seed, least=0)
    check_count("num_resamples", num_resamples, least=LEAST_RESAMPLES, most=MOST_RESAMPLES)
    check_count("number of samples", len(values), least=1)
    rng = np.random.default_rng(seed)
    means = [float(np.mean(values[rng.integers(len(values), size=len(values))])) for _ in range(num_resamples)]
    low, high = np.quantile(means, [0.025, 0.975])
    return Measure(float(np.mean(values)), kind, float(low), float(high))


def null_distance(metric: Callable[[np.ndarray, np.ndarray], float], real: np.ndarray, *, seed: int) -> float:
    """`metric` between two random halves of the real features [N,D]: what no generator can be told from.

    Halves have N / 2 images, so it is to be compared with a distance at N / 2 images.

    Raises:
      InputError: fewer than four images, or a negative seed.
    """
    check_count("seed", seed, least=0)
    if len(real) < 4:
        raise InputError(f"{len(real)} real images have no two halves to compare; expected four at least")
    order = np.random.default_rng(seed).permutation(len(real))
    half = len(real) // 2
    return metric(real[order[:half]], real[order[half : 2 * half]])


def caveats(*, count_a: int | None, count_b: int | None, dim: int) -> list[str]:
    """What to say beside a distance of so many features: one sentence each, or none.

    The distance is computed all the same: the number is right for these features, but of little use.
    """
    counts = [count for count in (count_a, count_b) if count is not None]
    said = []
    if None in (count_a, count_b):
        said.append("the number of images behind a reference is unknown: distances compare at equal numbers only")
    elif count_a != count_b:
        said.append(
            f"{count_a} images against {count_b}: the fewer images, the larger the distance, so that it compares with "
            "distances of the same two numbers only"
        )
    if dim and counts and min(counts) <= dim:
        said.append(
            f"{min(counts)} images are no more than the {dim} numbers of a feature: the covariance is singular, and "
            "the distance is mostly due to their number (the distance between two halves of the real images shows how "
            "much)"
        )
    return said
