"""One stage of a cascade: from text (and the image of the stage before) to images of one resolution."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh

from imagen_jax.diffusion import augment, denoise, guidance
from imagen_jax.diffusion.samplers import SAMPLERS, Denoiser, check_levels
from imagen_jax.diffusion.schedules import make_schedule
from imagen_jax.diffusion.spacings import at_times, noise_levels
from imagen_jax.diffusion.threshold import THRESHOLDS
from imagen_jax.errors import InputError
from imagen_jax.registry import lookup
from imagen_jax.sampling.finite import check_finite, keep_not_finite
from imagen_jax.sampling.placement import divide, make_mesh, replicate, split_rows
from imagen_jax.sampling.settings import SamplingSettings
from imagen_jax.types import Array, DenoiseFn, Params


class Against(NamedTuple):
    """What guidance leads away from, in place of the null text: a negative prompt's text, or weaker parameters."""

    text_emb: Array | None = None  # [B,L,D]
    text_mask: Array | None = None  # [B,L] bool
    params: Params | None = None


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
        self._schedule = make_schedule(schedule, image_size=image_size)
        lookup(denoise.TO_X, prediction, what="prediction type")
        self._prediction = prediction
        self._compiled = jax.jit(self._sample, static_argnames=("settings", "mesh"))

    @property
    def coarsest_rows(self) -> int:
        """Rows of an image at the network's coarsest level."""
        return self.image_size // cast(Any, self.model).downsampling

    def noise_levels(self, settings: SamplingSettings | None = None) -> np.ndarray:
        """logsnr [N] at which the network is evaluated.

        Raises:
          InputError: the settings don't fit each other or the schedule: steps and spacing, sampler and levels, or a
            guidance interval that holds none of the levels.
        """
        settings = settings or self.settings
        logsnrs = noise_levels(
            self._schedule, num_steps=settings.num_steps, spacing=settings.spacing, times=settings.times
        )
        if not np.all(np.diff(logsnrs) > 0):
            raise InputError(
                "two of the noise levels are the same in float32, and a step between them divides by zero; take fewer "
                f"steps, or times that lie farther apart (got {len(logsnrs)} levels)"
            )
        check_levels(settings.sampler, logsnrs)
        low, high = self._guided_levels(settings)
        if settings.guided and not np.any((low <= logsnrs) & (logsnrs <= high)):
            raise InputError(
                f"guidance_interval = {settings.guidance_interval} holds none of the {len(logsnrs)} noise levels; "
                "widen it, take more steps, or set the guidance weight to 1"
            )
        return logsnrs

    def _guided_levels(self, settings: SamplingSettings) -> tuple[float, float]:
        """The interval of guidance in logsnr: from, to."""
        if settings.guidance_interval == (0.0, 1.0):
            return -np.inf, np.inf
        high, low = at_times(self._schedule, settings.guidance_interval)
        return float(low), float(high)

    def sample(
        self,
        params: Params,
        text_emb: Array,
        text_mask: Array,
        *,
        keys: jax.Array,
        low_res: Array | None = None,
        settings: SamplingSettings | None = None,
        against: Against | None = None,
        mesh: Mesh | None = None,
        labels: Sequence[str] = (),
    ) -> np.ndarray:
        """Samples a batch in one compiled program; compiled once for each batch size, settings and mesh.

        Other weights of guidance and other augmentation levels are the same program, so that sweeping them costs none.
        What the devices don't divide is filled up, and what was filled up is left out of the result.

        Args:
          text_emb: [B,L,D].
          text_mask: [B,L] bool.
          keys: [B] PRNG keys, one an image: what an image becomes does not depend on its batch.
          low_res: [B,h,w,3] float32 in [-1, 1], the stage before's images; None for the base.
          settings: in place of the stage's own.
          against: what to guide away from; default the null text.
          mesh: of the devices (`placement.make_mesh`); default one device.
          labels: what each image is called in a message; default "image 0", "image 1", ...

        Returns:
          [B,H,W,3] float32 in [-1, 1].

        Raises:
          InputError: see `noise_levels`.
          NotFiniteError: a prediction was infinite or not a number, at any step; the message names the image.
        """
        assert (low_res is None) == (self.low_res_size is None), "low_res is for super-resolution stages"
        mesh = mesh or make_mesh(1)
        settings = settings or self.settings
        against = against or Against()
        params, weak_params = replicate((params, against.params), mesh)
        negative = against._replace(params=None)
        *batch, negative = divide((text_emb, text_mask, keys, low_res, negative), mesh)
        against = negative._replace(params=weak_params)
        weight, level = jnp.float32(settings.guidance_weight), jnp.float32(settings.aug_level)
        one_for_all = {"guidance_weight": 2.0 if settings.guided else 1.0, "aug_level": 0.0}
        static = dataclasses.replace(settings, **one_for_all)
        samples = self._compiled(params, *batch, weight, level, against, settings=static, mesh=mesh)
        samples = np.asarray(samples)[: len(keys)]
        check_finite(samples, image_size=self.image_size, labels=labels, settings=settings)
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
        against: Against,
        *,
        settings: SamplingSettings,
        mesh: Mesh,
    ) -> jax.Array:
        batch = text_emb.shape[0]
        init_keys, aug_keys, sampler_keys = jax.vmap(lambda key: jax.random.split(key, 3), out_axes=1)(keys)
        shape = (self.image_size, self.image_size, 3)
        z_init = jax.vmap(lambda key: jax.random.normal(key, shape))(init_keys)
        conditioning: dict[str, Any] = {"text_emb": text_emb, "text_mask": text_mask}
        if low_res is not None:
            aug_logsnr = augment.aug_logsnr_from_level(jnp.full((batch,), aug_level))
            augmented = augment.augment(low_res, size=shape[:2], aug_logsnr=aug_logsnr, keys=aug_keys)
            conditioning["low_res"] = split_rows(augmented, mesh)
            conditioning["aug_logsnr"] = aug_logsnr
        denoise_fn = self._denoiser(params, conditioning, guidance_weight, against, settings, mesh)
        sampler = partial(SAMPLERS[settings.sampler].sample, **settings.sampler_settings())
        samples = sampler(denoise_fn, sampler_keys, z_init, logsnrs=self.noise_levels(settings))
        return jnp.clip(samples, -1.0, 1.0)

    def _denoiser(
        self,
        params: Params,
        conditioning: dict[str, Any],
        weight: jax.Array,
        against: Against,
        settings: SamplingSettings,
        mesh: Mesh,
    ) -> Denoiser:
        """The network with its conditioning, guidance and thresholding inside."""

        def network(params: Params, conditioning: dict[str, Any]) -> DenoiseFn:
            apply = cast(DenoiseFn, partial(self.model.apply, {"params": params}, **conditioning))
            return denoise.make_denoise_fn(
                lambda z, logsnr: apply(split_rows(z, mesh), logsnr), prediction=self._prediction
            )

        own = {"percentile": settings.threshold_percentile, "cap": settings.threshold_cap}
        thresholding: Callable[[DenoiseFn], DenoiseFn] = partial(
            THRESHOLDS[settings.threshold], **own if settings.threshold == "dynamic" else {}
        )
        # Clipping would make an ordinary white or black of an infinity.
        threshold = partial(keep_not_finite, thresholding)
        plain = threshold(network(params, conditioning))
        if not settings.guided:
            return plain
        extrapolation = {"weight": weight, "rescale": settings.guidance_rescale}
        if against.params is not None:
            weak = network(against.params, conditioning)
            guided = guidance.autoguidance(network(params, conditioning), weak, **extrapolation)
        else:
            text: tuple[Any, Any] = against.text_emb, against.text_mask
            if against.text_emb is None:
                everywhere = jnp.ones(conditioning["text_mask"].shape[:1], bool)
                text = guidance.drop_text(conditioning["text_emb"], conditioning["text_mask"], drop=everywhere)
            other = conditioning | dict(zip(("text_emb", "text_mask"), text, strict=True))
            pair = {name: guidance.interleave(value, other[name]) for name, value in conditioning.items()}
            guided = guidance.classifier_free(network(params, pair), **extrapolation)
        guided = threshold(guided)
        return guidance.WithinInterval(guided, plain, *self._guided_levels(settings))
