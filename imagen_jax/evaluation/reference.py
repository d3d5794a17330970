"""What samples are compared with: real images or statistics of them, whose features are computed once."""

import dataclasses
import errno
import hashlib
import os
from pathlib import Path

from absl import logging

from imagen_jax import hosts
from imagen_jax.errors import InputError, StorageError
from imagen_jax.evaluation.feature_metrics import features_of
from imagen_jax.evaluation.features import FeatureExtractor
from imagen_jax.evaluation.image_sets import ImageSet
from imagen_jax.evaluation.statistics_file import Statistics, load_statistics, save_statistics, statistics_of
from imagen_jax.files import user_path

# In the folder of prepared data sets.
REFERENCE_CACHE = "reference_features"


class Reference:
    """Real images, or an `.npz` of mean and covariance.

    Attributes:
      fingerprint: of the images, or of the file.
      has_images: whether there are images.
    """

    def __init__(self, images: ImageSet | Path, *, cache: Path | None = None):
        """`cache`: a folder that keeps features from one evaluation to the next, by the images' fingerprint."""
        self._images, self._cache = images, cache
        self.has_images = not isinstance(images, Path)
        self.fingerprint = _digest(images) if isinstance(images, Path) else images.fingerprint

    def features(self, extractor: FeatureExtractor, *, said: bool = False) -> Statistics:
        """Of the extractor's first tap. On several hosts all call it.

        Args:
          said: whether the user has said what a file of another program is of, so that it may be taken for that.

        Raises:
          InputError: the file is damaged, or of other features.
        """
        tap, features = next(iter(extractor.ids.items()))
        if isinstance(self._images, Path):
            found = load_statistics(self._images, foreign=features if said else None)
            # A file of another program doesn't say of which images: two of them must not be taken for one.
            return dataclasses.replace(found, data_fingerprint=found.data_fingerprint or self.fingerprint)
        kept = self._cache and self._cache / f"{extractor.name.suffix}_{self.fingerprint[:16]}.npz"
        found = _load_kept(kept) if kept else None
        known = found is not None and (found.features, found.data_fingerprint) == (features, self.fingerprint)
        if hosts.everywhere(known) and found is not None:
            return found
        logging.info("features of %d real images by %s", len(self._images), extractor.name.suffix)
        rows = features_of(extractor, self._images, what="images of the reference")[tap]
        found = statistics_of(rows, features, data_fingerprint=self.fingerprint)
        if kept and hosts.is_first():
            _keep(kept, found)
        return found


def _load_kept(path: Path) -> Statistics | None:
    """What an evaluation before this one left; None where there is nothing that can be used."""
    if not path.exists():
        return None
    try:
        return load_statistics(path)
    except (InputError, OSError) as error:
        logging.warning("features that were kept can't be used, and are computed again: %s", error)
        return None


def _keep(path: Path, statistics: Statistics) -> None:
    """Numbers don't depend on what is kept: a folder that can't be written costs time at the next evaluation."""
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        save_statistics(path, statistics)
    except (StorageError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        logging.warning('features are not kept in "%s", and will be computed again: %s', path.parent, reason)


def _digest(path: Path) -> str:
    path = user_path(path)
    if not path.is_file():
        raise InputError(f'--reference: no file "{path}"; expected an .npz with mu and sigma')
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
