"""The contract of a condition."""

from collections.abc import Mapping
from typing import Any, Protocol

import jax

from imagen_jax.types import Conditions

# Of one example: without the batch's dimension.
Shapes = Mapping[str, jax.ShapeDtypeStruct]
Shape = tuple[int, ...]


class Condition(Protocol):
    """One kind of what a network is told besides z and its noise level.

    The data pipeline, and whoever samples, give some arrays; the condition makes of them those that the network sees.
    `shape` is that of a sample, (H, W, C) for an image, and in training on crops that of a crop.

    Two methods are for those of the user's own, and must be there:

      from_record(record) -> arrays of `given` of one example, from a source's record. For training.
      default(count, shape=shape) -> arrays [count,...] of `given`, taken in sampling where none are given.
    """

    def given(self, shape: Shape) -> Shapes:
        """Returns shape and type of an example's arrays as they are given, by name."""
        ...

    def seen(self, shape: Shape) -> Shapes:
        """Returns shape and type of an example's arrays as the network sees them, by name."""
        ...

    def for_training(self, given: Conditions, keys: jax.Array, *, shape: Shape) -> Conditions:
        """Makes what the network sees in training: some of it dropped, noise added, or whatever else.

        Args:
          given: arrays [B,...] of `given`, and maybe others.
          keys: [B] PRNG keys, one for each example; `keys.training_keys` has one for each purpose.
          shape: of a sample.
        """
        ...

    def for_sampling(self, given: Conditions, keys: jax.Array, *, shape: Shape, settings: Any) -> Conditions:
        """Makes what the network sees in sampling.

        Args:
          given, shape: as in `for_training`.
          keys: [B], of the images; `keys.sampling_keys` has one for each purpose.
          settings: `sampling.settings.SamplingSettings`, whose numbers may be traced.
        """
        ...

    def null(self, seen: Conditions) -> Conditions:
        """Returns what guidance leads away from, in place of what is `seen`; {} where nothing takes its place."""
        ...
