"""The Gaussian diffusion process: z_t = alpha_t x + sigma_t eps.

alpha^2 = sigmoid(logsnr), sigma^2 = sigmoid(-logsnr), so that alpha^2 + sigma^2 = 1.

Arrays x, z, eps, v are [B, ...] float32; logsnr is [B] and is broadcast over the rest. v = alpha eps - sigma x
(Salimans & Ho, arXiv 2202.00512).
"""

import jax
import jax.numpy as jnp


def alpha_sigma(logsnr: jax.Array, like: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(alpha, sigma), each [B, 1, ...] with the rank of `like`."""
    logsnr = logsnr.reshape(logsnr.shape + (1,) * (like.ndim - logsnr.ndim))
    return jnp.sqrt(jax.nn.sigmoid(logsnr)), jnp.sqrt(jax.nn.sigmoid(-logsnr))


def diffuse(*, x: jax.Array, eps: jax.Array, logsnr: jax.Array) -> jax.Array:
    """A draw of q(z_t | x): z = alpha x + sigma eps."""
    alpha, sigma = alpha_sigma(logsnr, x)
    return alpha * x + sigma * eps


def x_from_eps(*, z: jax.Array, eps: jax.Array, logsnr: jax.Array) -> jax.Array:
    """x = (z - sigma eps) / alpha."""
    alpha, sigma = alpha_sigma(logsnr, z)
    return (z - sigma * eps) / alpha


def eps_from_x(*, z: jax.Array, x: jax.Array, logsnr: jax.Array) -> jax.Array:
    """eps = (z - alpha x) / sigma."""
    alpha, sigma = alpha_sigma(logsnr, z)
    return (z - alpha * x) / sigma


def x_from_v(*, z: jax.Array, v: jax.Array, logsnr: jax.Array) -> jax.Array:
    """x = alpha z - sigma v."""
    alpha, sigma = alpha_sigma(logsnr, z)
    return alpha * z - sigma * v


def v_from_x_eps(*, x: jax.Array, eps: jax.Array, logsnr: jax.Array) -> jax.Array:
    """v = alpha eps - sigma x."""
    alpha, sigma = alpha_sigma(logsnr, x)
    return alpha * eps - sigma * x


def reverse_step(
    *, z: jax.Array, x: jax.Array, logsnr_t: jax.Array, logsnr_s: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Mean and two log-variances of a step from t to an earlier s < t, given x.

    With r = exp(logsnr_t - logsnr_s):
      mean       = r (alpha_s / alpha_t) z + (1 - r) alpha_s x      of q(z_s | z_t, x)
      log_small  = log((1 - r) sigma_s^2)                           its variance
      log_large  = log((1 - r) sigma_t^2)                           that of q(z_t | z_s), the upper bound

    Source: VDM (arXiv 2107.00630), appendix A. Both log-variances are [B, 1, ...].
    """
    alpha_s, _ = alpha_sigma(logsnr_s, z)
    alpha_t, _ = alpha_sigma(logsnr_t, z)
    difference = (logsnr_t - logsnr_s).reshape(alpha_t.shape)
    one_minus_r = -jnp.expm1(difference)
    mean = jnp.exp(difference) * (alpha_s / alpha_t) * z + one_minus_r * alpha_s * x
    log_one_minus_r = jnp.log(one_minus_r)
    log_small = log_one_minus_r + jax.nn.log_sigmoid(-logsnr_s).reshape(alpha_t.shape)
    log_large = log_one_minus_r + jax.nn.log_sigmoid(-logsnr_t).reshape(alpha_t.shape)
    return mean, log_small, log_large
