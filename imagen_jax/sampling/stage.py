"""One stage of a cascade: from text (and the image of the stage before) to images of one resolution."""

import dataclasses
import math
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
from flax import linen as nn

from imagen_jax.diffusion import augment, denoise, guidance
from imagen_jax.diffusion.samplers import SAMPLERS
from imagen_jax.diffusion.schedules import SCHEDULES
from imagen_jax.errors import InputError
from imagen_jax.registry import lookup
from imagen_jax.types import DenoiseFn, Params


@dataclasses.dataclass(frozen=True)
class SamplingSettings:
    """How a stage samples.

    Attributes:
      sampler: key of SAMPLERS.
      num_steps: network evaluations.
      guidance_weight: w; 1 is no guidance, and costs half.
      threshold: key of THRESHOLDS.
      aug_level: noise level of the low-resolution input, in [0, 1] (super-resolution only).
    """

    sampler: str = "ddpm"
    num_steps: int = 256
    guidance_weight: float = 1.0
    threshold: str = "dynamic"
    aug_level: float = 0.0

    def __post_init__(self) -> None:
        lookup(SAMPLERS, self.sampler, what="sampler")
        lookup(guidance.THRESHOLDS, self.threshold, what="threshold")
        if self.num_steps < 1:
            raise InputError(f"sampling steps must be at least 1 (got {self.num_steps})")
        if not 0 <= self.guidance_weight < math.inf:
            raise InputError(f"guidance weight must be >= 0 and finite; 1 is none (got {self.guidance_weight})")
        if not 0 <= self.aug_level <= 1:
            raise InputError(f"aug_level must be in [0, 1] (got {self.aug_level})")


class Stage:
    """A network with what is needed to sample from it; parameters are passed in, so that training can sample too."""

    def __init__(
        self,
        model: nn.Module,
        *,
        image_size: int,
        low_res_size: int | None,
        schedule: str,
        prediction: str,
        settings: SamplingSettings,
    ):
        """`low_res_size`: of the stage before, or None for the base; `settings`: the defaults.

        Raises:
          InputError: an unknown schedule or prediction type.
        """
        self.model = model
        self.image_size = image_size
        self.low_res_size = low_res_size
        self.settings = settings
        self._schedule = lookup(SCHEDULES, schedule, what="schedule")
        lookup(denoise.TO_X, prediction, what="prediction type")
        self._prediction = prediction
        self._compiled = jax.jit(self._sample, static_argnames=("sampler", "num_steps", "threshold", "guided"))

    def sample(
        self,
        params: Params,
        text_emb: jax.Array,
        text_mask: jax.Array,
        *,
        keys: jax.Array,
        low_res: jax.Array | None = None,
        settings: SamplingSettings | None = None,
    ) -> jax.Array:
        """Samples a batch in one compiled program; compiled once for each batch size, sampler and number of steps.

        Args:
          text_emb: [B,L,D].
          text_mask: [B,L] bool.
          keys: [B] PRNG keys, one an image: what an image becomes does not depend on its batch.
          low_res: [B,h,w,3] float32 in [-1, 1], the stage before's images; None for the base.
          settings: in place of the stage's own.

        Returns:
          [B,H,W,3] float32 in [-1, 1].
        """
        assert (low_res is None) == (self.low_res_size is None), "low_res is for super-resolution stages"
        settings = settings or self.settings
        samples = self._compiled(
            params,
            text_emb,
            text_mask,
            keys,
            low_res,
            jnp.float32(settings.guidance_weight),
            jnp.float32(settings.aug_level),
            sampler=settings.sampler,
            num_steps=settings.num_steps,
            threshold=settings.threshold,
            guided=settings.guidance_weight != 1.0,
        )
        return samples

    def _sample(
        self,
        params: Params,
        text_emb: jax.Array,
        text_mask: jax.Array,
        keys: jax.Array,
        low_res: jax.Array | None,
        guidance_weight: jax.Array,
        aug_level: jax.Array,
        *,
        sampler: str,
        num_steps: int,
        threshold: str,
        guided: bool,
    ) -> jax.Array:
        batch = text_emb.shape[0]
        init_keys, aug_keys, sampler_keys = jax.vmap(lambda key: jax.random.split(key, 3), out_axes=1)(keys)
        shape = (self.image_size, self.image_size, 3)
        z_init = jax.vmap(lambda key: jax.random.normal(key, shape))(init_keys)
        conditioning: dict[str, Any] = {"text_emb": text_emb, "text_mask": text_mask}
        if low_res is not None:
            aug_logsnr = augment.aug_logsnr_from_level(jnp.full((batch,), aug_level))
            conditioning["low_res"] = augment.augment(low_res, size=shape[:2], aug_logsnr=aug_logsnr, keys=aug_keys)
            conditioning["aug_logsnr"] = aug_logsnr
        if guided:
            null_emb, null_mask = guidance.drop_text(text_emb, text_mask, drop=jnp.ones((batch,), bool))
            null = conditioning | {"text_emb": null_emb, "text_mask": null_mask}
            conditioning = {name: jnp.concatenate([value, null[name]]) for name, value in conditioning.items()}
        network = cast(DenoiseFn, partial(self.model.apply, {"params": params}, **conditioning))
        denoise_fn = denoise.make_denoise_fn(network, prediction=self._prediction)
        if guided:
            denoise_fn = guidance.classifier_free(denoise_fn, weight=guidance_weight)
        denoise_fn = guidance.THRESHOLDS[threshold](denoise_fn)
        samples = SAMPLERS[sampler](denoise_fn, sampler_keys, z_init, schedule=self._schedule, num_steps=num_steps)
        return jnp.clip(samples, -1.0, 1.0)
