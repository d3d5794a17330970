"""Whether samples are copies: a model that repeats its training images has a perfect distance, and is of no use."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from imagen_jax.evaluation.base import Measure, Samples
from imagen_jax.evaluation.gather import for_each
from imagen_jax.evaluation.image_sets import ArrayImages, batches
from imagen_jax.evaluation.retrieval import image_distances

# Of the distances to the nearest training image and to the second: up to this a sample is a copy.
COPY_RATIO = 1.0 / 3.0


class Memorisation:
    """How near samples are to their nearest training image, in pixels of the base's size.

    "memorised_share": of samples that are at most a third as far from their nearest training image as from the second
    (Yoon et al., "Diffusion probabilistic models generalize when they fail to memorize", 2023).
    "nearest_training_rms": the mean over samples of the root mean square difference to it, as a share of 0..255.
    """

    alignment = False

    def __init__(self, training: np.ndarray):
        """`training`: uint8 [M,H,W,3] of the base's size. Images that are there twice count once."""
        self._training = np.unique(training, axis=0)
        self.made_of: Mapping[str, Any] = {"searched_sha256": ArrayImages(training).fingerprint}

    def __call__(self, samples: Samples) -> dict[str, Measure]:
        """See `Metric`."""

        def compute(rows: range) -> Iterator[list[float]]:
            for batch in batches(samples.first, rows):
                for distances in np.sqrt(image_distances(batch, self._training)):
                    # Of a single training image everything is a copy.
                    first, second = (*np.partition(distances, min(1, len(distances) - 1))[:2], np.inf)[:2]
                    yield [float(first <= COPY_RATIO * second), first / (255.0 * np.sqrt(batch[0].size))]

        copies, rms = for_each(len(samples.first), compute).mean(axis=0)
        return {"memorised_share": Measure(float(copies)), "nearest_training_rms": Measure(float(rms))}
