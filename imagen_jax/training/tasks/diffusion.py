"""The task of the papers: a network that learns to denoise examples, whole or in part."""

from collections.abc import Sequence
from typing import cast

import jax
import jax.numpy as jnp
from flax import linen as nn

from imagen_jax.conditions import Condition, inputs
from imagen_jax.conditions.keys import training_keys
from imagen_jax.diffusion import objective
from imagen_jax.diffusion.schedules import Schedule
from imagen_jax.training.selection import select, union
from imagen_jax.types import Batch, Params


class Diffusion:
    """Learns to denoise, at all noise levels: see `Task`."""

    def __init__(
        self,
        model: nn.Module,
        *,
        conditions: Sequence[Condition],
        shape: tuple[int, ...],
        schedule: Schedule,
        prediction: str,
        weighting: str,
        trainable: Sequence[str] = ("*",),
    ):
        """The task for one stage.

        Args:
          model: a network of `models`, called as `UNet.__call__`.
          conditions: what the network is told.
          shape: (H, W, C) of the examples.
          schedule, prediction, weighting: see `diffusion.objective.diffusion_loss`.
          trainable: which parameters are trained, as of `selection.select`; the others are frozen. Default: all.
        """
        self._model, self._conditions, self._shape = model, tuple(conditions), shape
        self._schedule, self._prediction, self._weighting = schedule, prediction, weighting
        self._trainable = tuple(trainable)

    def init(self, key: jax.Array, start: Params | None = None) -> tuple[Params, Params]:
        """See `Task.init`."""
        if start is None:
            shapes = inputs.network_shapes(self._conditions, self._shape)
            zeros = jax.tree.map(lambda array: jnp.zeros(array.shape, array.dtype), shapes)
            start = self._model.init(key, **zeros)["params"]
        return select(cast(Params, start), self._trainable)

    def loss(self, trainable: Params, frozen: Params, batch: Batch, keys: jax.Array, t: jax.Array) -> jax.Array:
        """See `Task.loss`."""
        image = jnp.asarray(batch["image"])
        seen = inputs.for_training(self._conditions, batch, keys, shape=image.shape[1:])
        params = self.merge(trainable, frozen)

        def network(z: jax.Array, logsnr: jax.Array) -> jax.Array:
            return cast(jax.Array, self._model.apply({"params": params}, z, logsnr, seen))

        return objective.diffusion_loss(
            network,
            image,
            keys=training_keys(keys, "loss"),
            t=t,
            schedule=self._schedule,
            prediction=self._prediction,
            weighting=self._weighting,
        )

    def merge(self, trainable: Params, frozen: Params) -> Params:
        """See `Task.merge`."""
        return union(trainable, frozen)
