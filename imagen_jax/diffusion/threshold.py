"""Keeping x_hat in the range of images, as wrappers of denoise_fn (Imagen, section 2.3).

Applied to the guided x_hat: guidance is what pushes it out of the range.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from imagen_jax.types import DenoiseFn, Prediction

_INFINITY_BITS = 0x7F800000


def static_threshold(denoise_fn: DenoiseFn) -> DenoiseFn:
    """Clips x_hat to [-1, 1]."""
    return _with_x(denoise_fn, lambda x_hat: jnp.clip(x_hat, -1.0, 1.0))


def dynamic_threshold(denoise_fn: DenoiseFn, *, percentile: float = 99.5, cap: float = 0.0) -> DenoiseFn:
    """Clips x_hat to [-s, s] and divides by s, with s the percentile of |x_hat| for each image, and 1 at least.

    Args:
      percentile: in [0, 100]; 99.5 is from the paper's appendix, DeepFloyd IF has 95.
      cap: what s is at most; 0: no cap. IF has 1.5 in its first stage, and 1 (plain clipping) in the second.
    """

    def thresholded(x_hat: jax.Array) -> jax.Array:
        s = jnp.clip(quantile(jnp.abs(x_hat), percentile / 100.0), 1.0, cap or None)
        s = s.reshape(-1, *[1] * (x_hat.ndim - 1))
        return jnp.clip(x_hat, -s, s) / s

    return _with_x(denoise_fn, thresholded)


def _with_x(denoise_fn: DenoiseFn, change: Callable[[jax.Array], jax.Array]) -> DenoiseFn:
    def changed(z: jax.Array, logsnr: jax.Array) -> Prediction:
        prediction = denoise_fn(z, logsnr)
        return prediction._replace(x=change(prediction.x))

    return changed


THRESHOLDS = {"none": lambda denoise_fn: denoise_fn, "static": static_threshold, "dynamic": dynamic_threshold}


def quantile(values: jax.Array, q: float) -> jax.Array:
    """[B, ...] float32, none negative -> [B], as `jnp.quantile` with linear interpolation, without its sort.

    The bits of non-negative floats are ordered as the floats are, so 31 halvings of an integer range, each a count of
    the values below, find an order statistic exactly. benchmarks/threshold.py measures it against the sort.
    """
    bits = jax.lax.bitcast_convert_type(values.astype(jnp.float32), jnp.int32).reshape(values.shape[0], -1)
    rank = q * (bits.shape[1] - 1)
    below = int(rank)

    def count(limit: jax.Array) -> jax.Array:
        return jnp.sum(bits <= limit[:, None], axis=1, dtype=jnp.int32)

    def halve(_: int, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bounds
        middle = low + (high - low) // 2
        enough = count(middle) > below
        return jnp.where(enough, low, middle + 1), jnp.where(enough, middle, high)

    start = jnp.zeros(bits.shape[0], jnp.int32), jnp.full(bits.shape[0], _INFINITY_BITS, jnp.int32)
    _, lower = jax.lax.fori_loop(0, 31, halve, start)
    larger = jnp.min(jnp.where(bits > lower[:, None], bits, _INFINITY_BITS), axis=1)
    upper = jnp.where(count(lower) > below + 1, lower, larger)
    lower, upper = (jax.lax.bitcast_convert_type(x, jnp.float32) for x in (lower, upper))
    # At the largest value there is nothing above, and a fraction of 0.
    return jnp.where(rank == below, lower, lower + (rank - below) * (upper - lower))
