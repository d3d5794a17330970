"""What samples are compared with: real images or statistics of them, whose features are computed once."""

import dataclasses
import hashlib
from pathlib import Path

from absl import logging

from imagen_jax.errors import InputError
from imagen_jax.evaluation.feature_metrics import features_of
from imagen_jax.evaluation.features import FeatureExtractor
from imagen_jax.evaluation.image_sets import ImageSet
from imagen_jax.evaluation.statistics_file import Statistics, load_statistics, save_statistics, statistics_of
from imagen_jax.training import hosts

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
        found = load_statistics(kept) if kept and kept.is_file() else None
        known = found is not None and (found.features, found.data_fingerprint) == (features, self.fingerprint)
        if hosts.everywhere(known) and found is not None:
            return found
        logging.info("features of %d real images by %s", len(self._images), extractor.name.suffix)
        rows = features_of(extractor, self._images)[tap]
        found = statistics_of(rows, features, data_fingerprint=self.fingerprint)
        if kept and hosts.is_first():
            save_statistics(kept, found)
        return found


def _digest(path: Path) -> str:
    if not path.is_file():
        raise InputError(f'--reference: no file "{path}"; expected an .npz with mu and sigma')
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
