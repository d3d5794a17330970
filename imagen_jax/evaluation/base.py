"""The contracts of what measures: a metric scores a set of samples; an evaluator runs during training."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np

from imagen_jax.evaluation.image_sets import ImageSet
from imagen_jax.types import Params


@dataclasses.dataclass(frozen=True)
class Samples:
    """N samples, and what they were asked to show.

    Attributes:
      images: by size, ascending: those of each stage of a cascade, or of one size alone.
      prompts: N, or none where they are unknown.
      names: N, what each prompt names ("red apple"), or none where that is unknown.
    """

    images: Mapping[int, ImageSet]
    prompts: Sequence[str] = ()
    names: Sequence[str] = ()

    @property
    def first(self) -> ImageSet:
        """Of the base stage."""
        return next(iter(self.images.values()))

    @property
    def final(self) -> ImageSet:
        """Of the last stage."""
        return list(self.images.values())[-1]


@dataclasses.dataclass(frozen=True)
class Measure:
    """A number, and how far it can be trusted.

    Attributes:
      kind: "distance" between samples and real images, "alignment" of samples with their prompts, or "".
      low, high: 95% bootstrap interval.
      deviation: over the parts or subsets that a metric averages over.
      null: of a distance: that between two halves of the real images, which are half as many.
      real: of an alignment: that of real images with the same prompts.
      caveats: what to say beside it.
    """

    value: float
    kind: Literal["distance", "alignment", ""] = ""
    low: float | None = None
    high: float | None = None
    deviation: float | None = None
    null: float | None = None
    real: float | None = None
    caveats: tuple[str, ...] = ()

    def flat(self, name: str) -> dict[str, float]:
        """{name: value, name_low: low, ...}, of what there is."""
        parts = {f"{name}_{part}": getattr(self, part) for part in ("low", "high", "deviation", "null", "real")}
        return {name: self.value} | {key: value for key, value in parts.items() if value is not None}


class Metric(Protocol):
    """Constructed with all that it compares with; then called with each set of samples.

    Attributes:
      alignment: whether it compares samples with their prompts, so that real images have a score too.
      made_of: by name, hashes and settings that its numbers depend on besides the samples; JSON values.
    """

    alignment: bool
    made_of: Mapping[str, Any]

    def __call__(self, samples: Samples) -> dict[str, Measure]:
        """By name, which says all that makes two numbers comparable. On several hosts all call it."""
        ...


def measure(metrics: Sequence[Metric], samples: Samples) -> dict[str, Measure]:
    """All metrics of one set of samples, by name."""
    return {name: each for metric in metrics for name, each in metric(samples).items()}


class Evaluator(Protocol):
    """Constructed before training with all it needs; then called every so many steps."""

    def run(self, params: Params, step: int) -> Iterator[tuple[str, float | np.ndarray]]:
        """Yields names with numbers (logged) or with pictures uint8 [H,W,3] (saved in the workdir).

        Args:
          params: the averaged parameters of the network.
          step: of training.
        """
        ...
