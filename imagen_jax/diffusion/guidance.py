"""Classifier-free guidance and thresholding, as wrappers of denoise_fn; and the null text they rest on."""

import jax
import jax.numpy as jnp

from imagen_jax.types import DenoiseFn


def drop_text(text_emb: jax.Array, text_mask: jax.Array, *, drop: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Replaces the text of the examples where `drop` [B] bool is True by the null text: one token of zeros.

    Imagen, section 2.2 and appendix F: the condition is dropped by zeroing the text embeddings, for 10% of examples.
    One unmasked token, and not as many as the caption had, so that the null text says nothing about the caption's
    length.

    Args:
      text_emb: [B,L,D].
      text_mask: [B,L] bool.
    """
    null_mask = jnp.zeros_like(text_mask).at[:, 0].set(True)
    return (
        jnp.where(drop[:, None, None], jnp.zeros_like(text_emb), text_emb),
        jnp.where(drop[:, None], null_mask, text_mask),
    )


def classifier_free(denoise_pair: DenoiseFn, *, weight: jax.Array | float) -> DenoiseFn:
    """x_hat = w * x_hat(text) + (1 - w) * x_hat(null), so that w = 1 is no guidance (Imagen, Eq. 2).

    The paper writes it for eps; x_hat is affine in eps at a given z, so the two are the same.

    Args:
      denoise_pair: denoise_fn of a batch of 2B whose first half sees the text and whose second half the null text.
      weight: scalar w.
    """

    def denoise_fn(z: jax.Array, logsnr: jax.Array) -> jax.Array:
        both = denoise_pair(jnp.concatenate([z, z]), jnp.concatenate([logsnr, logsnr]))
        conditional, unconditional = jnp.split(both, 2)
        return weight * conditional + (1.0 - weight) * unconditional

    return denoise_fn


def static_threshold(denoise_fn: DenoiseFn) -> DenoiseFn:
    """Clips x_hat to [-1, 1] (Imagen, section 2.3)."""
    return lambda z, logsnr: jnp.clip(denoise_fn(z, logsnr), -1.0, 1.0)


def dynamic_threshold(denoise_fn: DenoiseFn, *, percentile: float = 99.5) -> DenoiseFn:
    """Clips x_hat to [-s, s] and divides by s, with s = max(1, percentile of |x_hat|) for each image.

    Imagen, section 2.3; p = 99.5 from its appendix. Applied to the guided x_hat.
    """

    def thresholded(z: jax.Array, logsnr: jax.Array) -> jax.Array:
        x_hat = denoise_fn(z, logsnr)
        axes = tuple(range(1, x_hat.ndim))
        s = jnp.percentile(jnp.abs(x_hat), percentile, axis=axes, keepdims=True)
        s = jnp.maximum(s, 1.0)
        return jnp.clip(x_hat, -s, s) / s

    return thresholded


THRESHOLDS = {"none": lambda denoise_fn: denoise_fn, "static": static_threshold, "dynamic": dynamic_threshold}
