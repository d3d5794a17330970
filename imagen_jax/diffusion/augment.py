"""Noise-conditioning augmentation of a super-resolution stage's low-resolution input (Imagen, section 2.4)."""

import jax
import jax.numpy as jnp

from imagen_jax.diffusion import gaussian, schedules


def aug_logsnr_from_level(aug_level: jax.Array) -> jax.Array:
    """aug_level [B] in [0, 1] (0 none, 1 pure noise) -> aug_logsnr [B]: the cosine schedule at t = aug_level."""
    return schedules.cosine(aug_level)


def augment(low_res: jax.Array, *, size: tuple[int, int], aug_logsnr: jax.Array, keys: jax.Array) -> jax.Array:
    """Upsamples bilinearly, then adds variance-preserving noise: alpha_aug * up(low_res) + sigma_aug * eps.

    Args:
      low_res: [B,h,w,C] float32 in [-1, 1].
      size: (H, W) of the result.
      aug_logsnr: [B] noise level.
      keys: [B] PRNG keys, one an image.

    Returns:
      [B,H,W,C] float32.
    """
    shape = (*size, low_res.shape[-1])
    upsampled = jax.image.resize(low_res, (low_res.shape[0], *shape), method="bilinear")
    eps = jax.vmap(lambda key: jax.random.normal(key, shape))(keys)
    return gaussian.diffuse(x=upsampled, eps=eps, logsnr=aug_logsnr).astype(jnp.float32)
