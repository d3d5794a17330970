"""Noise schedules: t in [0, 1] (0 clean, 1 noise) -> logsnr, falling. Shapes pass through; float32."""

import functools
import math
from collections.abc import Callable, Mapping
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from imagen_jax.fields import Field
from imagen_jax.registry import lookup

Schedule = Callable[[jax.Array], jax.Array]

_IMAGE_SIZE = Field(int, "Pixels of a side of an image.", 1, 8_192)


def cosine(t: jax.Array, *, logsnr_min: float = -20.0, logsnr_max: float = 20.0) -> jax.Array:
    """logsnr = -2 log tan(a t + b), so that alpha = cos(a t + b), with a and b from logsnr(0) = max, logsnr(1) = min.

    Source: iDDPM (arXiv 2102.09672) made continuous; Salimans & Ho (arXiv 2202.00512), appendix; Imagen's first two
    stages.
    """
    b = jnp.arctan(jnp.exp(-0.5 * logsnr_max))
    a = jnp.arctan(jnp.exp(-0.5 * logsnr_min)) - b
    return -2.0 * jnp.log(jnp.tan(a * t + b))


def shifted_cosine(t: jax.Array, *, image_size: int, reference_size: int = 64) -> jax.Array:
    """cosine(t) + 2 log(reference_size / image_size): the noise that a 64 px image has left after averaging.

    A larger image's neighbouring pixels say the same thing, so that it takes more noise to hide as much. Source: simple
    diffusion (arXiv 2301.11093), section 3.1. Images of less than reference_size keep the cosine, which was made for 32
    and 64 px: with less noise, too few examples would be noisy enough that only the caption says what they show.
    """
    return cosine(t) + 2.0 * math.log(reference_size / max(image_size, reference_size))


def linear(t: jax.Array, *, beta_first: float = 1e-4, beta_last: float = 0.02, num_timesteps: int = 1000) -> jax.Array:
    """logsnr = -log(exp(B(t)) - 1), with B(t) = beta_first + N (beta_first t + (beta_last - beta_first) t^2 / 2).

    The continuous limit of DDPM's N discrete betas (arXiv 2006.11239): alpha^2 = exp(-B). The constant makes t = 0 the
    first discrete step, where the noise is beta_first and not 0. Imagen's 1024 px stage.
    """
    integral = beta_first + num_timesteps * (beta_first * t + 0.5 * (beta_last - beta_first) * jnp.square(t))
    return -jnp.log(jnp.expm1(integral))


def discrete_cosine(t: jax.Array, *, num_timesteps: int = 1000, logsnr_max: float = 20.0) -> jax.Array:
    """iDDPM's own N discrete steps ("squaredcos_cap_v2" in diffusers), which DeepFloyd IF was trained with.

    Timestep i of 0 .. N - 1 is t = (i + 1) / N; logsnr is linear in between, and logsnr_max at t = 0. Source: arXiv
    2102.09672, Eq. 17, with its beta < 0.999.
    """
    times, logsnrs = _discrete_cosine_table(num_timesteps, logsnr_max)
    return jnp.interp(t, times, logsnrs)


@functools.cache
def _discrete_cosine_table(num_timesteps: int, logsnr_max: float) -> tuple[np.ndarray, np.ndarray]:
    times = np.arange(num_timesteps + 1) / num_timesteps
    alpha_bar = np.cos((times + 0.008) / 1.008 * np.pi / 2) ** 2
    betas = np.minimum(1.0 - alpha_bar[1:] / alpha_bar[:-1], 0.999)
    log_alpha_bar = np.cumsum(np.log1p(-betas))
    logsnrs = log_alpha_bar - np.log(-np.expm1(log_alpha_bar))
    return times.astype(np.float32), np.concatenate([[logsnr_max], logsnrs]).astype(np.float32)


# name -> the schedule for images of a size in pixels.
SCHEDULES: Mapping[str, Callable[[int], Schedule]] = {
    "cosine": lambda image_size: cosine,
    "shifted_cosine": lambda image_size: partial(shifted_cosine, image_size=image_size),
    "linear": lambda image_size: linear,
    "discrete_cosine": lambda image_size: discrete_cosine,
}


def make_schedule(name: str, *, image_size: int) -> Schedule:
    """The schedule called `name`, of a stage whose images have `image_size` pixels a side.

    Raises:
      InputError: `name` is not in `SCHEDULES`, or there are no images of `image_size`.
    """
    _IMAGE_SIZE.check("image_size", image_size)
    return lookup(SCHEDULES, name, what="schedule")(image_size)
