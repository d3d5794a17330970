"""Images that are measured. `image_folder` has those of a folder, `data_images` those of a data set."""

import hashlib
from collections.abc import Iterator
from typing import Protocol

import numpy as np


class ImageSet(Protocol):
    """Images in order, all of one size.

    Attributes:
      fingerprint: hex of a sha256 by which they are known.
    """

    fingerprint: str

    def __len__(self) -> int: ...

    def read(self, rows: range) -> Iterator[np.ndarray]:
        """Yields those of `rows`: uint8 [H,W,3] RGB, 0..255."""
        ...


class ArrayImages:
    """uint8 [N,H,W,3] in memory."""

    def __init__(self, images: np.ndarray):
        self.images = images
        self.fingerprint = hashlib.sha256(f"{images.shape}".encode() + images.tobytes()).hexdigest()

    def __len__(self) -> int:
        return len(self.images)

    def read(self, rows: range) -> Iterator[np.ndarray]:
        """See `ImageSet.read`."""
        yield from self.images[rows.start : rows.stop]


def batches(images: ImageSet, rows: range, *, size: int = 64) -> Iterator[np.ndarray]:
    """Yields uint8 [n,H,W,3] of `rows`, n = `size` but for the last."""
    for start in range(rows.start, rows.stop, size):
        yield np.stack(list(images.read(range(start, min(start + size, rows.stop)))))
