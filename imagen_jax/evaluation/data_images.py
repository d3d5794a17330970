"""Images of data sets, and what they show."""

import functools
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from imagen_jax.data.preprocess import full_image
from imagen_jax.data.sources import Source, named_folder, open_source
from imagen_jax.errors import InputError
from imagen_jax.evaluation.image_folder import ImageFolder
from imagen_jax.evaluation.image_sets import ImageSet
from imagen_jax.sampling.images import to_uint8

# Bytes of images that are searched, in the memory of each host: 100,000 of 64 px are 1.2 GB.
_MOST_SEARCHED_BYTES = 2 * 10**9


class SourceImages:
    """Images of a data set as training sees them: the largest square of each, at `image_size`."""

    def __init__(self, source: Source, *, image_size: int, indices: Sequence[int] | None = None):
        """`indices`: of its records; None: all."""
        self._source, self._image_size = source, image_size
        self._indices = list(range(len(source))) if indices is None else [int(index) for index in indices]
        # The spec, since it may say which of a record's images it is.
        identity = f"{source.fingerprint} {source.spec} {image_size} {'all' if indices is None else self._indices}"
        self.fingerprint = hashlib.sha256(identity.encode()).hexdigest()

    def __len__(self) -> int:
        return len(self._indices)

    def read(self, rows: range) -> Iterator[np.ndarray]:
        """See `ImageSet.read`."""
        for row in rows:
            image = self._source[self._indices[row]]["image"]
            yield to_uint8(full_image(image, image_size=self._image_size))


def open_images(spec: str, *, data_dir: str, image_size: int | None = None, crop_to: int | None = None) -> ImageSet:
    """Opens a folder of images, or a data set such as "emoji/food:test".

    Args:
      image_size: of a data set's images, which are cropped and resized; None: as large as its first.
      crop_to: of a folder's, see `ImageFolder`.

    Raises:
      InputError: neither; or what `ImageFolder` and `open_source` raise.
    """
    if (folder := named_folder(spec)) is not None:
        return ImageFolder(folder, crop_to=crop_to)
    if crop_to:
        raise InputError(f'--crop_to={crop_to} is for folders, and "{spec}" is none; a data set is cropped by itself')
    source = open_source(spec, data_dir=data_dir)
    return SourceImages(source, image_size=image_size or min(source[0]["image"].shape[:2]))


def names_of(source: Source, indices: Sequence[int]) -> list[str]:
    """Says what these records show ("red apple"): their "name", or nothing where some of them have none."""
    if not indices or not _name(source[0]):
        return []
    names = [_name(source[index]) for index in indices]
    if missing := [index for index, name in zip(indices, names, strict=True) if not name]:
        logging.warning(
            '"%s": %d of %d records have no "name", for example record %d; what samples show is not measured by names',
            source.spec, len(missing), len(names), missing[0],
        )  # fmt: skip
        return []
    return names


def _name(record: Mapping[str, Any]) -> str:
    name = record.get("name")
    return name if isinstance(name, str) else ""


class Searchable:
    """All images of a data set at one size, and what they show, to search for the nearest; read when first asked for.

    Attributes:
      has_names: whether the data set says what its images show.
    """

    def __init__(self, source: Source, *, image_size: int):
        """Raises InputError if there are more than fit in memory."""
        size = len(source) * image_size**2 * 3
        if size > _MOST_SEARCHED_BYTES:
            raise InputError(
                f'"{source.spec}" has {len(source)} images, {size / 1e9:.1f} GB at {image_size} px; '
                f"{_MOST_SEARCHED_BYTES / 1e9:g} at most can be searched"
            )
        self._source, self._image_size = source, image_size
        self.has_names = bool(_name(source[0]))

    def __len__(self) -> int:
        return len(self._source)

    @functools.cached_property
    def found(self) -> tuple[np.ndarray, list[str]]:
        """Images uint8 [M,image_size,image_size,3], and M names, "" where a record has none; or no names at all."""
        images, names = [], []
        for index in range(len(self._source)):
            record = self._source[index]
            images.append(to_uint8(full_image(record["image"], image_size=self._image_size)))
            names += [_name(record)] if self.has_names else []
        return np.stack(images), names
