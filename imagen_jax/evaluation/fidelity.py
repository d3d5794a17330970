"""What super-resolution and a white background must keep.

Images are uint8 [N,H,W,3]; results are shares of the range 0..255.
"""

import numpy as np


def corner_deviation(samples: np.ndarray) -> float:
    """Mean absolute deviation from white of the four corner pixels."""
    corners = samples[:, [0, 0, -1, -1], [0, -1, 0, -1]].astype(np.float64)
    return float(np.mean(255.0 - corners) / 255.0)


def consistency(samples: np.ndarray, low_res: np.ndarray) -> tuple[float, float]:
    """How far samples, area-downsampled, are from the low-resolution images they were made from.

    Returns:
      The mean absolute error of a pixel, and the mean absolute error of an image's mean colour.
    """
    n, size = low_res.shape[:2]
    factor = samples.shape[1] // size
    means = samples.reshape(n, size, factor, size, factor, 3).astype(np.float64).mean(axis=(2, 4))
    difference = (means - low_res) / 255.0
    return float(np.mean(np.abs(difference))), float(np.mean(np.abs(difference.mean(axis=(1, 2)))))
