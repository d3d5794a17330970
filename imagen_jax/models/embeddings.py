"""The conditioning vector [B,E]: noise level, pooled text and, for super-resolution stages, the augmentation level."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from imagen_jax.models.attention import AttentionPooling
from imagen_jax.models.base import text_of
from imagen_jax.models.layers import Dtype
from imagen_jax.types import Array, Conditions


def sinusoid(values: jax.Array, width: int, *, max_period: float = 10_000.0) -> jax.Array:
    """[B] -> [B,width] float32: cos and sin of values at `width / 2` geometric frequencies 1 .. 1 / max_period."""
    frequencies = jnp.exp(-jnp.log(max_period) * jnp.arange(width // 2) / (width // 2))
    angles = values[:, None] * frequencies[None, :]
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


class NoiseLevelEmbedding(nn.Module):
    """logsnr [B] -> [B,features]: sinusoids of 1000 t, t the cosine schedule's time of that logsnr, and an MLP.

    arctan(exp(-logsnr / 2)) 2 / pi lies in [0, 1] for any logsnr, whatever the schedule (Salimans & Ho, arXiv
    2202.00512).
    """

    features: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, logsnr: Array) -> jax.Array:
        t = jnp.arctan(jnp.exp(-0.5 * jnp.clip(logsnr, -20.0, 20.0))) * (2.0 / jnp.pi)
        h = sinusoid(1000.0 * t, self.features // 4)
        h = nn.swish(nn.Dense(self.features, dtype=self.dtype, name="hidden")(h))
        return nn.Dense(self.features, dtype=self.dtype, name="out")(h)


class Conditioning(nn.Module):
    """Sum of the noise level's embedding, the pooled text's and, where given, the augmentation level's."""

    features: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, logsnr: jax.Array, conditions: Conditions) -> jax.Array:
        """logsnr [B], conditions as of `UNet.__call__` -> [B,features]."""
        emb = NoiseLevelEmbedding(self.features, dtype=self.dtype, name="logsnr")(logsnr)
        pooled = AttentionPooling(self.features, dtype=self.dtype, name="text_pooling")(*text_of(conditions))
        pooled = nn.LayerNorm(dtype=self.dtype, name="text_norm")(pooled)
        emb = emb + nn.Dense(self.features, dtype=self.dtype, name="text")(pooled)
        if "aug_logsnr" in conditions:
            level = NoiseLevelEmbedding(self.features, dtype=self.dtype, name="aug_logsnr")
            emb = emb + level(conditions["aug_logsnr"])
        return emb
