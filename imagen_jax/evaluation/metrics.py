"""The metrics there are, by the names of the command line, and what each needs."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from imagen_jax.clip.folder import Clip, load_clip
from imagen_jax.errors import InputError
from imagen_jax.evaluation.base import Metric
from imagen_jax.evaluation.clip.alignment import ClipAlignment
from imagen_jax.evaluation.clip.features import clip_features
from imagen_jax.evaluation.data_images import Searchable
from imagen_jax.evaluation.emoji_cnn import emoji_features
from imagen_jax.evaluation.feature_metrics import PRECISION_RECALL, SCORE, SCORE_TAP, FeatureMetrics
from imagen_jax.evaluation.features import FeatureExtractor
from imagen_jax.evaluation.fidelity import Consistency, Corners
from imagen_jax.evaluation.inception.features import inception_features
from imagen_jax.evaluation.inception.weights import load_inception
from imagen_jax.evaluation.memorisation import Memorisation
from imagen_jax.evaluation.reference import Reference
from imagen_jax.evaluation.retrieval import NameAlignment
from imagen_jax.registry import find, is_import_path

_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inputs:
    """What metrics may need; None or empty where there is none of it.

    Attributes:
      reference: real images.
      prompts, names, stages: whether samples have prompts, what these name, and more than one stage.
      num_samples: how many samples each set will have.
      search: real images of the base's size, to search for the nearest.
      emoji: whether the real images or the training images are emoji, so that features of emoji mean something.
      inception_weights: a file of Inception's weights; resize: the flavour; None: tf_legacy.
      clip: a folder with a CLIP; clip_formula: of its score.
      num_resamples: see `FeatureMetrics`.
      batch_size: images at a time, all devices of a process together.
      seed: of halves, subsets and resamples.
    """

    reference: Reference | None = None
    prompts: bool = False
    names: bool = False
    stages: bool = False
    num_samples: int
    search: Searchable | None = None
    emoji: bool = False
    inception_weights: Path | None = None
    resize: str | None = None
    clip: Path | None = None
    clip_formula: str = "cosine"
    num_resamples: int | None = None
    batch_size: int = 64
    seed: int = 0

    @functools.cached_property
    def loaded_clip(self) -> tuple[Clip, FeatureExtractor]:
        """Loaded once for all metrics that need it."""
        loaded = load_clip(_given(self.clip))
        return loaded, clip_features(loaded, batch_size=self.batch_size)


@dataclasses.dataclass(frozen=True)
class _OfFeatures:
    """A metric of `FeatureMetrics`: of which network, and its name there."""

    network: str
    metric: str


def _given(value: _T | None) -> _T:
    assert value is not None  # by _NEEDED
    return value


_NEEDED: Mapping[str, tuple[Callable[[Inputs], bool], str]] = {
    "reference": (lambda inputs: inputs.reference is not None, "--reference"),
    "inception": (lambda inputs: inputs.inception_weights is not None, "--inception_weights"),
    "clip": (lambda inputs: inputs.clip is not None, "--clip"),
    "prompts": (lambda inputs: inputs.prompts, "the samples' prompts"),
    "names": (lambda inputs: inputs.names, "a data set whose records have names"),
    "search": (lambda inputs: inputs.search is not None, "the training images"),
    "stages": (lambda inputs: inputs.stages, "a cascade of several stages"),
    "ten": (lambda inputs: inputs.num_samples >= 10, "ten samples"),
    "four": (lambda inputs: inputs.num_samples >= 4, "four samples"),
}
# Name -> what it needs, and how it is made: those of one network's features together, so that they share one pass.
METRICS: Mapping[str, tuple[tuple[str, ...], _OfFeatures | Callable[[Inputs], Metric]]] = {
    "fid": (("reference", "inception"), _OfFeatures("inception", "fd")),
    "kid": (("reference", "inception"), _OfFeatures("inception", "kd")),
    "precision_recall": (("reference", "inception", "four"), _OfFeatures("inception", PRECISION_RECALL)),
    "inception_score": (("inception", "ten"), _OfFeatures("inception", SCORE)),
    "cmmd": (("reference", "clip"), _OfFeatures("clip", "cmmd")),
    "clip_score": (
        ("prompts", "clip"),
        lambda inputs: ClipAlignment(*inputs.loaded_clip, inputs.clip_formula, seed=inputs.seed),
    ),
    "fd_emojicnn": (("reference",), _OfFeatures("emojicnn", "fd")),
    "mmd_emojicnn": (("reference",), _OfFeatures("emojicnn", "mmd")),
    "names": (
        ("names", "search"),
        lambda inputs: NameAlignment(*_given(inputs.search).found, seed=inputs.seed),
    ),
    "memorisation": (("search",), lambda inputs: Memorisation(_given(inputs.search).found[0])),
    "consistency": (("stages",), lambda inputs: Consistency()),
    "corners": ((), lambda inputs: Corners()),
}
# Not asked for by default: what only some pictures have.
_ON_REQUEST = ("corners",)
# Larger sets are searched for copies on request only: all of their images are decoded first.
MOST_SEARCHED_BY_DEFAULT = 5_000
# Whose distances have bootstrap intervals.
BOOTSTRAPPED = ("fid", "cmmd", "fd_emojicnn", "mmd_emojicnn")


def possible(inputs: Inputs) -> list[str]:
    """Lists the metrics that are computed by default: those for which there is all that they need.

    Without what is left to be asked for: see `left_for_request`.
    """
    waiting = {name for names in left_for_request(inputs).values() for name in names}
    return [name for name in _computable(inputs) if name not in waiting]


def left_for_request(inputs: Inputs) -> dict[str, list[str]]:
    """Lists what could be computed but isn't by default: {a sentence that says why: the metrics' names}."""
    computable, found = _computable(inputs), {}
    emoji = [name for name in computable if _network(name) == "emojicnn"]
    if emoji and not inputs.emoji:
        found["they compare emoji with emoji, and this data set is none"] = emoji
    searching = [name for name in computable if "search" in METRICS[name][0]]
    if searching and inputs.search is not None and len(inputs.search) > MOST_SEARCHED_BY_DEFAULT:
        found[f"all {len(inputs.search):,} training images would be read for them"] = searching
    return found


def _computable(inputs: Inputs) -> list[str]:
    has_images = inputs.reference is not None and inputs.reference.has_images
    return [
        name
        for name, (needs, made) in METRICS.items()
        if name not in _ON_REQUEST
        and all(_NEEDED[need][0](inputs) for need in needs)
        and ("reference" not in needs or has_images or made == _OfFeatures("inception", "fd"))
    ]


def needs_of(name: str) -> tuple[str, ...]:
    """Names what a metric needs: "reference", "inception", "clip", "search" and so on.

    Raises:
      InputError: an unknown metric.
    """
    return _find(name)[0]


def _find(name: str) -> tuple[tuple[str, ...], _OfFeatures | Callable[[Inputs], Metric]]:
    """An entry of METRICS; of an import path what that names, a function Inputs -> Metric that checks its own needs."""
    found: Any = find(METRICS, name, what="metric")
    if not is_import_path(name):
        return found
    if not callable(found):
        raise InputError(f'metric "{name}" is no function, evaluation.metrics.Inputs -> Metric (it is {found!r:.80})')
    make: Any = found
    return (), make


def _network(name: str) -> str:
    made = METRICS[name][1]
    return made.network if isinstance(made, _OfFeatures) else ""


def make_metrics(names: Sequence[str], inputs: Inputs) -> list[Metric]:
    """Makes the metrics of these names, with the reference's features computed.

    Raises:
      InputError: an unknown metric, or one that lacks what it needs.
    """
    found: list[Metric] = []
    of_features: dict[str, list[str]] = {}
    for name in names:
        needs, made = _find(name)
        lacking = [text for has, text in (_NEEDED[need] for need in needs) if not has(inputs)]
        if lacking:
            raise InputError(f"metric {name} needs {' and '.join(lacking)}; give that, or leave {name} out")
        if isinstance(made, _OfFeatures):
            of_features.setdefault(made.network, []).append(made.metric)
        else:
            found.append(made(inputs))
    for network, metrics in of_features.items():
        extractor = _EXTRACTORS[network](inputs, metrics)
        needs_reference = metrics != [SCORE]
        reference = None
        if inputs.reference and needs_reference:
            # What a file of another program is of, only its user can say.
            reference = inputs.reference.features(extractor, said=network == "inception" and inputs.resize is not None)
        found.append(
            FeatureMetrics(extractor, reference, metrics, num_resamples=inputs.num_resamples, seed=inputs.seed)
        )
    return found


def _inception(inputs: Inputs, metrics: Sequence[str]) -> FeatureExtractor:
    return inception_features(
        load_inception(_given(inputs.inception_weights)),
        resize=inputs.resize or "tf_legacy",
        taps=("2048", SCORE_TAP) if SCORE in metrics else ("2048",),
        batch_size=inputs.batch_size,
    )


_EXTRACTORS: Mapping[str, Callable[[Inputs, Sequence[str]], FeatureExtractor]] = {
    "inception": _inception,
    "clip": lambda inputs, metrics: inputs.loaded_clip[1],
    "emojicnn": lambda inputs, metrics: emoji_features(batch_size=inputs.batch_size),
}
