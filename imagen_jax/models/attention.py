"""Attention over pixels and text. Feature maps [B,H,W,C]; text [B,L,D] with mask [B,L] bool, True = a real token.

Softmax runs in float32. A masked token has weight exactly zero, so that changing it changes no output bit.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from imagen_jax.errors import InputError
from imagen_jax.models.layers import Dtype, group_norm


def _attend(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array) -> jax.Array:
    """q [B,T,N,d], k and v [B,S,N,d], mask [B,S] -> [B,T,N*d]."""
    out = jax.nn.dot_product_attention(q, k, v, mask=mask[:, None, None, :])
    return out.reshape(*out.shape[:2], -1)


def _heads(x: jax.Array, num_heads: int) -> jax.Array:
    if x.shape[-1] % num_heads:
        raise InputError(f"{x.shape[-1]} channels can't be divided among {num_heads} attention heads; change either")
    return x.reshape(*x.shape[:2], num_heads, -1)


class ImageTextAttention(nn.Module):
    """Pixels attend to pixels and to text: the text's keys and values stand behind the image's own (Imagen F.1, F.2).

    Image first, so that padding is a suffix. LayerNorm on the text (section 2.1). The output projection starts at zero.
    """

    num_heads: int
    use_image: bool = True  # False: cross-attention to the text only (F.3)
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, text_emb: jax.Array, text_mask: jax.Array) -> jax.Array:
        """x [B,H,W,C], text_emb [B,L,D], text_mask [B,L] -> [B,H,W,C]."""
        b, height, width, channels = x.shape
        h = group_norm(channels, dtype=self.dtype, name="norm")(x).reshape(b, height * width, channels)
        text = nn.LayerNorm(dtype=self.dtype, name="text_norm")(text_emb)
        k, v = jnp.split(nn.Dense(2 * channels, dtype=self.dtype, name="text_kv")(text), 2, axis=-1)
        mask = text_mask
        if self.use_image:
            q, image_k, image_v = jnp.split(nn.Dense(3 * channels, dtype=self.dtype, name="qkv")(h), 3, axis=-1)
            k, v = jnp.concatenate([image_k, k], axis=1), jnp.concatenate([image_v, v], axis=1)
            mask = jnp.concatenate([jnp.ones((b, height * width), bool), text_mask], axis=1)
        else:
            q = nn.Dense(channels, dtype=self.dtype, name="q")(h)
        q, k, v = (_heads(y, self.num_heads) for y in (q, k, v))
        h = _attend(q, k, v, mask)
        h = nn.Dense(channels, dtype=self.dtype, kernel_init=nn.initializers.zeros, name="out")(h)
        return x + h.reshape(x.shape)


class AttentionPooling(nn.Module):
    """One vector for a caption: the mean of its tokens attends to all of them (Imagen F.1, "attention pooling")."""

    features: int
    head_channels: int = 64
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, text_emb: jax.Array, text_mask: jax.Array) -> jax.Array:
        """text_emb [B,L,D], text_mask [B,L] -> [B,features]."""
        text = nn.LayerNorm(dtype=self.dtype, name="text_norm")(text_emb)
        weights = text_mask[..., None].astype(text.dtype)
        mean = jnp.sum(text * weights, axis=1, keepdims=True) / jnp.sum(weights, axis=1, keepdims=True)
        q = nn.Dense(self.features, dtype=self.dtype, name="q")(mean)
        k, v = jnp.split(nn.Dense(2 * self.features, dtype=self.dtype, name="kv")(text), 2, axis=-1)
        num_heads = max(1, self.features // self.head_channels)
        q, k, v = (_heads(y, num_heads) for y in (q, k, v))
        return _attend(q, k, v, text_mask)[:, 0]
