"""The low-resolution input of a super-resolution stage, with noise added to it (Imagen, section 2.4)."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from imagen_jax.conditions.base import Condition, Shape, Shapes
from imagen_jax.conditions.keys import sampling_keys, training_keys
from imagen_jax.diffusion import augment
from imagen_jax.types import Conditions


@dataclasses.dataclass(frozen=True)
class LowRes(Condition):
    """Given low_res [B,h,w,C]; seen as low_res [B,H,W,C], upsampled and noised, and aug_logsnr [B], its noise level.

    Attributes:
      factor: H / h.
      max_aug_level: in training aug_level ~ U(0, max_aug_level) (Imagen: 1). In sampling the settings have it.
    """

    factor: int
    max_aug_level: float = 1.0

    def given(self, shape: Shape) -> Shapes:
        """See `Condition.given`."""
        height, width, *rest = shape
        size = (height // self.factor, width // self.factor, *rest)
        return {"low_res": jax.ShapeDtypeStruct(size, jnp.float32)}

    def seen(self, shape: Shape) -> Shapes:
        """See `Condition.seen`."""
        return {
            "low_res": jax.ShapeDtypeStruct(shape, jnp.float32),
            "aug_logsnr": jax.ShapeDtypeStruct((), jnp.float32),
        }

    def for_training(self, given: Conditions, keys: jax.Array, *, shape: Shape) -> Conditions:
        """See `Condition.for_training`."""
        level_keys = training_keys(keys, "aug_level")
        aug_level = self.max_aug_level * jax.vmap(lambda key: jax.random.uniform(key))(level_keys)
        return _augmented(given, aug_level, training_keys(keys, "augment"), shape)

    def for_sampling(self, given: Conditions, keys: jax.Array, *, shape: Shape, settings: Any) -> Conditions:
        """See `Condition.for_sampling`."""
        aug_level = jnp.full(keys.shape, settings.aug_level, jnp.float32)
        return _augmented(given, aug_level, sampling_keys(keys, "augment"), shape)

    def null(self, seen: Conditions) -> Conditions:
        """See `Condition.null`: guidance never takes the low-resolution input away."""
        return {}


def _augmented(given: Conditions, aug_level: jax.Array, keys: jax.Array, shape: Shape) -> Conditions:
    height, width, *_ = shape
    aug_logsnr = augment.aug_logsnr_from_level(aug_level)
    low_res = augment.augment(jnp.asarray(given["low_res"]), size=(height, width), aug_logsnr=aug_logsnr, keys=keys)
    return {"low_res": low_res, "aug_logsnr": aug_logsnr}
