"""Attention over pixels and text. Feature maps [B,H,W,C]; text [B,L,D] with mask [B,L] bool, True = a real token.

Softmax runs in float32. A masked token has weight exactly zero, so that changing it changes no output bit.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from imagen_jax.errors import InputError
from imagen_jax.models.layers import Dtype, group_norm
from imagen_jax.types import Array

# A masked token's logit: its weight is exactly zero beside a token's. Finite, since a difference of infinities is none,
# and the same number in every type, so that all weights are equal where every token is masked.
_MASKED = -(2.0**100)


class Attend(nn.Module):
    """`dot_product_attention` as a module without parameters: where a control reads or changes attention.

    In every attention layer it is called "attend". A function given to `flax.linen.intercept_methods` is called in its
    place, with q, k, v and mask, and may change them, or return what it likes; see `sampling.control`.
    """

    def __call__(self, q: jax.Array, k: jax.Array, v: jax.Array, mask: Array) -> jax.Array:
        """q [B,T,N,d], k and v [B,S,N,d], mask [B,S] bool -> [B,T,N,d]."""
        return dot_product_attention(q, k, v, mask)


def _merge_heads(x: jax.Array) -> jax.Array:
    return x.reshape(*x.shape[:2], -1)


@jax.custom_jvp
def dot_product_attention(q: jax.Array, k: jax.Array, v: jax.Array, mask: Array) -> jax.Array:
    """softmax(q k^T / sqrt(d)) v over the tokens that `mask` [B,S] leaves: q [B,T,N,d], k and v [B,S,N,d] -> [B,T,N,d].

    What `jax.nn.dot_product_attention` computes, but normalised after the product with v, and with a derivative that is
    written out, both as in FlashAttention (Dao et al., arXiv 2205.14135). Of the [B,N,T,S] weights, which at 32 px are
    a quarter of what a step of the paper's base reads and writes, one array is kept, in q's type instead of float32.
    """
    return _weigh(q, k, v, mask)[0].astype(q.dtype)


def _weigh(q: jax.Array, k: jax.Array, v: jax.Array, mask: Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The result float32, the weights before normalisation [B,N,T,S] and their sums [B,T,N,1] float32."""
    # The softmax is the same for any number near the largest logit, so that this one may be found among logits that are
    # rounded (up to 2^15 the difference can't overflow), and a TPU's compiler fuses that with their product: to compute
    # them twice takes less time than to write them out and read them back.
    near_largest = jnp.max(_logits(q, k, mask, dtype=q.dtype), axis=-1, keepdims=True).astype(jnp.float32)
    weights = jnp.exp(_logits(q, k, mask, dtype=jnp.float32) - near_largest)
    total = jnp.sum(weights, axis=-1).swapaxes(1, 2)[..., None]
    # Without the barrier a TPU's compiler keeps the logits, in float32, and computes the weights from them at each use.
    weights = jax.lax.optimization_barrier(weights.astype(q.dtype))
    weighed = jnp.einsum("bnts,bsnd->btnd", weights, v, preferred_element_type=jnp.float32)
    return weighed / total, weights, total


def _logits(q: jax.Array, k: jax.Array, mask: Array, *, dtype: Dtype) -> jax.Array:
    logits = jnp.einsum("btnd,bsnd->bnts", q, k, preferred_element_type=dtype) * q.shape[-1] ** -0.5
    return jnp.where(mask[:, None, None, :], logits, _MASKED)


@dot_product_attention.defjvp
def _derivative(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    q, k, v, mask = primals
    dq, dk, dv, _ = tangents
    out, weights, total = _weigh(q, k, v, mask)
    # With p = weights / total: dout = p dv + (p dlogits) v - out sum(p dlogits). The types are for the gradient,
    # its transpose: dlogits in q's, since they are written out, and what they are the difference of in float32, from
    # products of q's type; rounded, it would make gradients of q and k several times less exact.
    dlogits = (jnp.einsum("btnd,bsnd->bnts", dq, k) + jnp.einsum("btnd,bsnd->bnts", q, dk)).astype(jnp.float32)
    dweights = weights * dlogits * q.shape[-1] ** -0.5
    dtotal = jnp.sum(dweights, axis=-1).swapaxes(1, 2)[..., None]
    precision = jax.lax.DotAlgorithmPreset.BF16_BF16_F32 if q.dtype == jnp.bfloat16 else None
    dout = jnp.einsum("bnts,bsnd->btnd", dweights, v.astype(jnp.float32), precision=precision)
    dout += jnp.einsum("bnts,bsnd->btnd", weights, dv).astype(jnp.float32)
    return out.astype(q.dtype), ((dout - out * dtotal) / total).astype(q.dtype)


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
    def __call__(self, x: jax.Array, text: Array, text_mask: Array) -> jax.Array:
        """x [B,H,W,C], text [B,L,D], text_mask [B,L] -> [B,H,W,C]."""
        b, height, width, channels = x.shape
        h = group_norm(channels, dtype=self.dtype, name="norm")(x).reshape(b, height * width, channels)
        text = nn.LayerNorm(dtype=self.dtype, name="text_norm")(text)
        k, v = jnp.split(nn.Dense(2 * channels, dtype=self.dtype, name="text_kv")(text), 2, axis=-1)
        mask = text_mask
        if self.use_image:
            q, image_k, image_v = jnp.split(nn.Dense(3 * channels, dtype=self.dtype, name="qkv")(h), 3, axis=-1)
            k, v = jnp.concatenate([image_k, k], axis=1), jnp.concatenate([image_v, v], axis=1)
            mask = jnp.concatenate([jnp.ones((b, height * width), bool), text_mask], axis=1)
        else:
            q = nn.Dense(channels, dtype=self.dtype, name="q")(h)
        q, k, v = (_heads(y, self.num_heads) for y in (q, k, v))
        h = _merge_heads(Attend(name="attend")(q, k, v, mask))
        h = nn.Dense(channels, dtype=self.dtype, kernel_init=nn.initializers.zeros, name="out")(h)
        return x + h.reshape(x.shape)


class AttentionPooling(nn.Module):
    """One vector for a caption: the mean of its tokens attends to all of them (Imagen F.1, "attention pooling")."""

    features: int
    head_channels: int = 64
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, text: Array, text_mask: Array) -> jax.Array:
        """text [B,L,D], text_mask [B,L] -> [B,features]."""
        text = nn.LayerNorm(dtype=self.dtype, name="text_norm")(text)
        weights = text_mask[..., None].astype(text.dtype)
        mean = jnp.sum(text * weights, axis=1, keepdims=True) / jnp.sum(weights, axis=1, keepdims=True)
        q = nn.Dense(self.features, dtype=self.dtype, name="q")(mean)
        k, v = jnp.split(nn.Dense(2 * self.features, dtype=self.dtype, name="kv")(text), 2, axis=-1)
        num_heads = max(1, self.features // self.head_channels)
        q, k, v = (_heads(y, num_heads) for y in (q, k, v))
        return _merge_heads(Attend(name="attend")(q, k, v, text_mask))[:, 0]
