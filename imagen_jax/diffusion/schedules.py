"""Noise schedules: t in [0, 1] (0 clean, 1 noise) -> logsnr, falling. Shapes pass through; float32."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

Schedule = Callable[[jax.Array], jax.Array]


def cosine(t: jax.Array, *, logsnr_min: float = -20.0, logsnr_max: float = 20.0) -> jax.Array:
    """logsnr = -2 log tan(a t + b), so that alpha = cos(a t + b), with a and b from logsnr(0) = max, logsnr(1) = min.

    Source: iDDPM (arXiv 2102.09672) made continuous; Salimans & Ho (arXiv 2202.00512), appendix; Imagen's first two
    stages.
    """
    b = jnp.arctan(jnp.exp(-0.5 * logsnr_max))
    a = jnp.arctan(jnp.exp(-0.5 * logsnr_min)) - b
    return -2.0 * jnp.log(jnp.tan(a * t + b))


def linear(t: jax.Array, *, beta_first: float = 1e-4, beta_last: float = 0.02, num_timesteps: int = 1000) -> jax.Array:
    """logsnr = -log(exp(B(t)) - 1), with B(t) = beta_first + N (beta_first t + (beta_last - beta_first) t^2 / 2).

    The continuous limit of DDPM's N discrete betas (arXiv 2006.11239): alpha^2 = exp(-B). The constant makes t = 0 the
    first discrete step, where the noise is beta_first and not 0. Imagen's 1024 px stage.
    """
    integral = beta_first + num_timesteps * (beta_first * t + 0.5 * (beta_last - beta_first) * jnp.square(t))
    return -jnp.log(jnp.expm1(integral))


SCHEDULES: Mapping[str, Schedule] = {"cosine": cosine, "linear": linear}
