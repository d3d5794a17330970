"""What super-resolution and a white background must keep.

Images are uint8 [N,H,W,3]; results are shares of the range 0..255.
"""

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from imagen_jax.evaluation.base import Measure, Samples
from imagen_jax.evaluation.gather import for_each
from imagen_jax.evaluation.image_sets import ImageSet, batches


class Consistency:
    """ "consistency_64" and "colour_drift_64", for each super-resolution stage by its size: see `consistency`."""

    alignment = False
    made_of: Mapping[str, Any] = {}

    def __call__(self, samples: Samples) -> dict[str, Measure]:
        """See `Metric`."""
        found: dict[str, Measure] = {}
        for (_, before), (size, images) in pairwise(samples.images.items()):

            def compute(rows: range, before: ImageSet = before, images: ImageSet = images) -> Iterator[list[float]]:
                for low_res, batch in zip(batches(before, rows), batches(images, rows), strict=True):
                    yield from consistency(batch, low_res).tolist()

            pixel, colour = for_each(len(images), compute).mean(axis=0)
            found |= {f"consistency_{size}": Measure(float(pixel)), f"colour_drift_{size}": Measure(float(colour))}
        return found


class Corners:
    """ "corner_deviation_64", for each stage by its size: see `corner_deviation`."""

    alignment = False
    made_of: Mapping[str, Any] = {}

    def __call__(self, samples: Samples) -> dict[str, Measure]:
        """See `Metric`."""
        found = {}
        for size, images in samples.images.items():

            def compute(rows: range, images: ImageSet = images) -> Iterator[list[float]]:
                for batch in batches(images, rows):
                    yield from corner_deviation(batch)[:, None].tolist()

            found[f"corner_deviation_{size}"] = Measure(float(for_each(len(images), compute).mean()))
        return found


def corner_deviation(samples: np.ndarray) -> np.ndarray:
    """[N]: mean absolute deviation from white of an image's four corner pixels."""
    corners = samples[:, [0, 0, -1, -1], [0, -1, 0, -1]].astype(np.float64)
    return np.mean(255.0 - corners, axis=(1, 2)) / 255.0


def consistency(samples: np.ndarray, low_res: np.ndarray) -> np.ndarray:
    """How far samples, area-downsampled, are from the low-resolution images they were made from.

    Returns:
      [N,2]: the mean absolute error of a pixel, and that of the image's mean colour.
    """
    n, size = low_res.shape[:2]
    factor = samples.shape[1] // size
    means = samples.reshape(n, size, factor, size, factor, 3).astype(np.float64).mean(axis=(2, 4))
    difference = (means - low_res) / 255.0
    pixel, colour = np.abs(difference).mean(axis=(1, 2, 3)), np.abs(difference.mean(axis=(1, 2))).mean(axis=1)
    return np.stack([pixel, colour], axis=1)
