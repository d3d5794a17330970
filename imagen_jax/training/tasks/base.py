"""The contract of a task."""

from typing import Protocol

import jax

from imagen_jax.types import Batch, Params


class Task(Protocol):
    """What a training learns.

    Its parameters are of two kinds: trainable ones, which steps change, which are averaged and saved; and frozen ones,
    which stay what they are. Checkpoints say of the frozen ones only where they are from, and what their digests are.
    """

    def init(self, key: jax.Array, start: Params | None = None) -> tuple[Params, Params]:
        """Returns the parameters that a training begins with.

        Args:
          key: of what is drawn at random.
          start: parameters of a trained network to begin from; None: all are drawn.

        Returns:
          Trainable and frozen parameters, float32. The shapes are the same with and without `start`.

        Raises:
          InputError: what is to be trained isn't there.
        """
        ...

    def loss(self, trainable: Params, frozen: Params, batch: Batch, keys: jax.Array, t: jax.Array) -> jax.Array:
        """Returns the loss of each example, [B] float32.

        Args:
          trainable, frozen: as `init` returns them, in float32 or in the type that the network computes in.
          batch: arrays [B,...].
          keys: [B], of all that is drawn for an example.
          t: [B] float32, the times at which examples are noised.
        """
        ...

    def merge(self, trainable: Params, frozen: Params) -> Params:
        """Returns the parameters of the network that is sampled from and exported.

        `loss` takes them too, as trainable ones with nothing frozen: so the loss of held-out examples is measured.
        """
        ...
