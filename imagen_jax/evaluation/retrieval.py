"""Whether a sample shows what its prompt names, by the names of the reference images that are like it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from imagen_jax.evaluation.base import Measure, Samples
from imagen_jax.evaluation.gather import for_each
from imagen_jax.evaluation.image_sets import ArrayImages, batches
from imagen_jax.evaluation.kernel_distance import squared_distances
from imagen_jax.evaluation.uncertainty import mean_interval

# Images of the reference that are made float64 at a time.
_BLOCK = 1024


class NameAlignment:
    """Of base images, by their root mean square distances to reference images.

    "name_accuracy": the share whose nearest reference image has the prompt's own name.
    "name_margin": the mean of (b - a) / max(a, b), with a to the nearest image of that name and b to the nearest of
    another: 1 for copies of the right image, 0 where a wrong one is as near, -1 for copies of a wrong one. It still
    tells samples apart that all have the right name (the silhouette of Rousseeuw 1987, with nearest neighbours).
    """

    alignment = True

    def __init__(self, reference: np.ndarray, names: Sequence[str], *, seed: int):
        """Searches among real images.

        Args:
          reference: uint8 [M,H,W,3] of the base's size.
          names: M; those whose name is "", unknown, are left out.
          seed: of resamples.
        """
        known = np.asarray([bool(name) for name in names])
        if not known.all():
            reference, names = reference[known], [name for name in names if name]
        self._reference, self._names, self._seed = reference, np.asarray(names), seed
        self.made_of: Mapping[str, Any] = {"searched_sha256": ArrayImages(reference).fingerprint, "seed": seed}

    def __call__(self, samples: Samples) -> dict[str, Measure]:
        """See `Metric`."""

        def compute(rows: range) -> Iterator[list[float]]:
            wanted = iter(samples.names[rows.start : rows.stop])
            for batch in batches(samples.first, rows):
                for distances in np.sqrt(image_distances(batch, self._reference)):
                    own = self._names == next(wanted)
                    a, b = (float(np.min(distances[chosen], initial=np.inf)) for chosen in (own, ~own))
                    yield [float(a < b), margin(a, b)]

        right, margins = for_each(len(samples.first), compute).T
        return {
            "name_accuracy": mean_interval(right, kind="alignment", seed=self._seed),
            "name_margin": mean_interval(margins, kind="alignment", seed=self._seed),
        }


def margin(a: float, b: float) -> float:
    """(b - a) / max(a, b) in [-1, 1]; where one is infinite, because there is no such image, 1 or -1."""
    if np.isinf(a) or np.isinf(b):
        return -1.0 if np.isinf(a) else 1.0
    return (b - a) / max(a, b) if max(a, b) > 0 else 0.0


def image_distances(images: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """uint8 [N,H,W,3], [M,H,W,3] -> [N,M] float64: squared differences summed over pixels and colours, exact.

    In blocks of the reference, since float64 takes 8 times as much memory.
    """
    flat = images.reshape(len(images), -1)
    blocks = [reference[start : start + _BLOCK] for start in range(0, len(reference), _BLOCK)]
    return np.concatenate([squared_distances(flat, block.reshape(len(block), -1)) for block in blocks], axis=1)
