"""Metrics of a network's features: Frechet and kernel distances, precision and recall, Inception Score."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from imagen_jax.errors import InputError, NotFiniteError
from imagen_jax.evaluation.base import Measure, Samples
from imagen_jax.evaluation.bounds import check_resamples
from imagen_jax.evaluation.emoji_cnn import emoji_mmd
from imagen_jax.evaluation.features import FeatureExtractor
from imagen_jax.evaluation.frechet import frechet_distance
from imagen_jax.evaluation.gather import check_enough, gather_rows, own_rows
from imagen_jax.evaluation.image_sets import ImageSet
from imagen_jax.evaluation.inception_score import inception_score
from imagen_jax.evaluation.kernel_distance import cmmd, kernel_distance
from imagen_jax.evaluation.precision_recall import precision_recall
from imagen_jax.evaluation.statistics_file import Statistics, check_comparable, frechet_of_statistics, statistics_of
from imagen_jax.evaluation.uncertainty import bootstrap, caveats, null_distance
from imagen_jax.registry import lookup

# A hundred Frechet distances of more than this take minutes, of 50,000 features of Inception most of an hour.
_MOST_NUMBERS, _MOST_IMAGES = 512, 5000
_NUM_RESAMPLES = 100
_KERNEL_SUBSET = 1000
SCORE, SCORE_TAP = "inception_score", "logits_unbiased"
PRECISION_RECALL = "precision_recall"

# (real [N,D], samples [M,D]) -> distance.
DISTANCES: Mapping[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "fd": frechet_distance,
    "kd": lambda real, samples: kernel_distance(real, samples, seed=0).mean,  # of subsets drawn with this seed
    "mmd": emoji_mmd,
    "cmmd": cmmd,
}


class FeatureMetrics:
    """What one network's features say of samples: one pass over them for all of it."""

    alignment = False

    def __init__(
        self,
        extractor: FeatureExtractor,
        reference: Statistics | None,
        metrics: Sequence[str],
        *,
        num_resamples: int | None = None,
        seed: int = 0,
    ):
        """Measures what two halves of the reference are apart.

        Args:
          reference: in the extractor's first tap; None: there is none, and `SCORE` needs none.
          metrics: of DISTANCES, PRECISION_RECALL and SCORE.
          num_resamples: of bootstrap intervals, at least 10, or 0 for none. None: 100, where features and images are
            few enough.
          seed: of halves, subsets of samples and resamples.

        Raises:
          InputError: a metric needs a reference, or its images; the reference is of other features; or the number of
            resamples is neither 0 nor from 10 to 100,000.
        """
        if num_resamples is not None:
            num_resamples = check_resamples("num_resamples", num_resamples)
        self._extractor, self._reference = extractor, reference
        self._tap, self._id = next(iter(extractor.ids.items()))
        self._num_resamples, self._seed = num_resamples, seed
        self._metrics = list(metrics)
        for metric in metrics:
            lookup(dict.fromkeys((*DISTANCES, PRECISION_RECALL, SCORE)), metric, what="metric of features")
            if metric != SCORE and reference is None:
                raise InputError(f"{metric} needs real images to compare with; give --reference")
            if metric not in (SCORE, "fd") and reference is not None and reference.rows is None:
                raise InputError(
                    f"{metric} needs the reference's features, and a file of mean and covariance hasn't them; give the "
                    "images as --reference"
                )
        if reference is not None:
            check_comparable(self._id, reference.features)
            width = extractor.width(self._tap)
            if len(reference.mean) != width:
                raise InputError(
                    f"the reference's features have {len(reference.mean)} numbers, the samples' {width}; expected "
                    "those of the same network and layer"
                )
        rows = reference.rows if reference is not None else None
        self.made_of: Mapping[str, Any] = {
            f"{self._id.network}_metrics": self._metrics,
            f"{self._id.network}_weights_sha256": self._id.weights_sha256,
            **({"resize": self._id.resize} if self._id.resize else {}),
            **({"num_reference": reference.count, "reference": reference.data_fingerprint} if reference else {}),
            "bootstrap": "auto" if num_resamples is None else num_resamples,
            "seed": seed,
        }
        self._nulls = {
            metric: null_distance(DISTANCES[metric], rows, seed=seed)
            for metric in metrics
            if metric in DISTANCES and rows is not None
        }

    def __call__(self, samples: Samples) -> dict[str, Measure]:
        """See `Metric`. The names are of the network: "fid_tf_legacy", "kd_inception_1b2c3d4e", "mmd_emojicnn_v1"."""
        features = features_of(self._extractor, samples.final)
        found: dict[str, Measure] = {}
        for metric in self._metrics:
            if metric == SCORE:
                value, deviation = inception_score(features[SCORE_TAP], seed=self._seed)
                found[metric] = Measure(value, deviation=deviation)
            elif metric == PRECISION_RECALL:
                assert self._reference is not None and self._reference.rows is not None
                precision, recall = precision_recall(self._reference.rows, features[self._tap])
                found |= {"precision": Measure(precision), "recall": Measure(recall)}
            else:
                found[metric] = self._distance(metric, features[self._tap])
        return {self._extractor.name.metric(name): measure for name, measure in found.items()}

    def _distance(self, metric: str, samples: np.ndarray) -> Measure:
        assert self._reference is not None
        real, (count, dim) = self._reference.rows, samples.shape
        if min(count, self._reference.count or count) < 2:
            raise InputError(
                f"{count} samples and {self._reference.count} real images have no distance; expected two of each at "
                f"least, and more than the {dim} numbers of a feature for one that means something"
            )
        said = caveats(count_a=self._reference.count, count_b=count, dim=dim if metric == "fd" else 0)
        make = partial(Measure, kind="distance", null=self._nulls.get(metric))
        if real is None or (metric == "fd" and min(count, len(real)) > dim):
            value = frechet_of_statistics(self._reference, statistics_of(samples, self._id))
        elif metric == "kd":
            kernel = kernel_distance(real, samples, seed=self._seed)
            if kernel.subset_size < _KERNEL_SUBSET:
                said.append(
                    f"kernel distance of subsets of {kernel.subset_size}; published ones are of {_KERNEL_SUBSET}"
                )
            deviation = kernel.deviation if kernel.num_subsets > 1 else None
            return make(kernel.mean, deviation=deviation, caveats=tuple(said))
        else:
            value = DISTANCES[metric](real, samples)
        num_resamples = self._num_resamples
        if num_resamples is None:
            few = dim <= _MOST_NUMBERS and max(count, self._reference.count or 0) <= _MOST_IMAGES
            num_resamples = _NUM_RESAMPLES if few else 0
        if real is None or num_resamples == 0:
            return make(value, caveats=tuple(said))
        interval = bootstrap(DISTANCES[metric], real, samples, seed=self._seed, num_resamples=num_resamples)
        # The interval is about the same value, computed another way.
        low, high = (value + end - interval.value for end in (interval.low, interval.high))
        return make(value, low=low, high=high, caveats=tuple(said))


def features_of(extractor: FeatureExtractor, images: ImageSet, *, what: str = "samples") -> dict[str, np.ndarray]:
    """Computes tap -> [N,D] float32 of all images; each process computes some, and has all. All must call it.

    Args:
      extractor: of the features.
      images: N of one size.
      what: names the set of images in the message.

    Raises:
      InputError: fewer images than processes.
      NotFiniteError: features that are infinite or not a number, as broken weights make them.
    """
    check_enough(len(images))
    found = list(extractor(images.read(own_rows(len(images)))))
    gathered = {tap: gather_rows(np.concatenate([batch[tap] for batch in found])) for tap in extractor.ids}
    for tap, features in gathered.items():
        check_finite(features, network=extractor.name.suffix, what=what, layer=tap)
    return gathered


def check_finite(features: np.ndarray, *, network: str, what: str, layer: str = "") -> None:
    """Raises NotFiniteError, which names all of it, if features [N,D] of `what` have numbers that are not finite."""
    broken = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if len(broken):
        raise NotFiniteError(
            f"features of {network}{f' ({layer})' if layer else ''} are not finite for {len(broken)} of "
            f"{len(features)} {what}, the first is number {broken[0]} (from 0): its weights are damaged; fetch them "
            "again"
        )
