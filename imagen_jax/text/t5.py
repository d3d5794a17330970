"""The encoders of the T5 family, as transformers' T5EncoderModel, MT5EncoderModel and UMT5EncoderModel compute them.

T5: arXiv 1910.10683; its gated GELU (v1.1): arXiv 2002.05202; mT5: arXiv 2010.11934; umT5, whose blocks each have a
position bias of their own: arXiv 2304.09151. No biases anywhere, and no 1/sqrt(d_kv) on the logits: the initialisation
of the query projection stands in for it. Argument names are those of transformers' T5Config.
"""

import math
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

# By transformers' `feed_forward_proj`: T5, T5 v1.1 and its descendants, UL2.
ACTIVATIONS = {"relu": jax.nn.relu, "gated-gelu": partial(jax.nn.gelu, approximate=True), "gated-silu": jax.nn.silu}


def relative_position_bucket(relative_position: np.ndarray, *, num_buckets: int, max_distance: int) -> np.ndarray:
    """Bucket of key position - query position: exact for small distances, logarithmic up to `max_distance`.

    One half of the buckets serves keys after the query, the other half the rest. Computed in NumPy, while tracing, so
    that the rounding of an accelerator's logarithm can't move a position to its neighbour's bucket.

    Args:
      relative_position: int array of any shape.
      num_buckets: even.
      max_distance: distances from here on share the last bucket.

    Returns:
      int32 of the same shape, in [0, num_buckets).
    """
    half = num_buckets // 2
    max_exact = half // 2
    distance = np.abs(relative_position)
    # float32, and this order of operations, because the published weights were trained with its rounding.
    log_ratio = np.log(np.maximum(distance, 1).astype(np.float32) / np.float32(max_exact))
    log_ratio = log_ratio / np.float32(math.log(max_distance / max_exact))
    large = max_exact + (log_ratio * np.float32(half - max_exact)).astype(np.int32)
    bucket = np.where(distance < max_exact, distance, np.minimum(large, half - 1))
    return (bucket + half * (relative_position > 0)).astype(np.int32)


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + epsilon) * scale, in float32, then cast to `dtype` (arXiv 1910.07467)."""

    epsilon: float
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., D] of any float dtype -> [..., D] of `dtype`."""
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],), jnp.float32)
        x = x.astype(jnp.float32)
        x = x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + self.epsilon)
        return (x * scale.reshape((1,) * (x.ndim - 1) + (-1,))).astype(self.dtype)


def _precision(dtype: DTypeLike) -> jax.lax.Precision | None:
    """Of products: float32 means float32, where an accelerator's default would round to bfloat16 or TF32 first."""
    return jax.lax.Precision.HIGHEST if jnp.dtype(dtype) == jnp.float32 else None


def _dense(features: int, *, init_std: float, dtype: DTypeLike, name: str, **kwargs: Any) -> nn.Dense:
    init = nn.initializers.normal(init_std)
    precision = _precision(dtype)
    return nn.Dense(features, use_bias=False, dtype=dtype, precision=precision, kernel_init=init, name=name, **kwargs)


# Of what a block adds to the float32 residual stream: sums leave the matrix unit as they are, not rounded to bfloat16.
_float32_out = partial(jax.lax.dot_general, preferred_element_type=jnp.float32)


class SelfAttention(nn.Module):
    """Multi-head self-attention without the 1/sqrt(d_kv); logits and softmax are float32."""

    num_heads: int
    d_kv: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array, bias: jax.Array) -> jax.Array:
        """[B,L,D], mask [B,L] bool (True = attended to), bias [1,heads,L,L] f32 added to the logits -> [B,L,D] f32."""
        batch, length, d_model = x.shape
        inner = self.num_heads * self.d_kv

        def project(name: str, init_std: float) -> jax.Array:
            y = _dense(inner, init_std=init_std, dtype=self.dtype, name=name)(x)
            return y.reshape(batch, length, self.num_heads, self.d_kv)

        q = project("q", (d_model * self.d_kv) ** -0.5)
        k = project("k", d_model**-0.5)
        v = project("v", d_model**-0.5)
        # Unscaled logits reach the hundreds: bfloat16 would round them by whole units before the softmax.
        precision = _precision(self.dtype)
        logits = jnp.einsum("bqhd,bkhd->bhqk", q, k, precision=precision, preferred_element_type=jnp.float32) + bias
        logits = jnp.where(mask[:, None, None, :], logits, jnp.finfo(jnp.float32).min)
        weights = jax.nn.softmax(logits, axis=-1).astype(self.dtype)
        y = jnp.einsum("bhqk,bkhd->bqhd", weights, v, precision=precision).reshape(batch, length, inner)
        return _dense(d_model, init_std=inner**-0.5, dtype=self.dtype, name="o", dot_general=_float32_out)(y)


class FeedForward(nn.Module):
    """act(x wi) wo, or gated: (act(x wi_0) * (x wi_1)) wo (arXiv 2002.05202)."""

    d_ff: int
    activation: str
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B,L,D] -> [B,L,D] f32."""
        d_model = x.shape[-1]

        def project(name: str) -> jax.Array:
            return _dense(self.d_ff, init_std=d_model**-0.5, dtype=self.dtype, name=name)(x)

        activate = ACTIVATIONS[self.activation]
        gated = self.activation.startswith("gated-")
        y = activate(project("wi_0")) * project("wi_1") if gated else activate(project("wi"))
        return _dense(d_model, init_std=self.d_ff**-0.5, dtype=self.dtype, name="wo", dot_general=_float32_out)(y)


class T5Encoder(nn.Module):
    """Token ids to embeddings.

    Products are in `dtype`; norms, logits, softmax, the residual stream and what blocks add to it are float32. With 24
    blocks of transformers' random weights (width 512), bfloat16 then differs from float32 by 1.4% (norm), 0.9 of which
    are the weights' own rounding. Of the float32 parts, the residual stream matters: 2.0% without it.

    An untrained encoder with T5's own initialisation already tells captions apart: token embeddings have unit
    variance, and every block adds to them without drowning them.
    """

    vocab_size: int
    d_model: int
    d_kv: int
    d_ff: int
    num_layers: int
    num_heads: int
    feed_forward_proj: str = "gated-gelu"
    bias_per_block: bool = False
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    layer_norm_epsilon: float = 1e-6
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, input_ids: jax.Array, mask: jax.Array) -> jax.Array:
        """Encodes a batch.

        Args:
          input_ids: [B,L] int32, in [0, vocab_size).
          mask: [B,L] bool, True = a real token.

        Returns:
          [B,L,d_model] of `dtype`. Where `mask` is False the values mean nothing, and no other value depends on them.
        """
        assert input_ids.ndim == 2, input_ids.shape
        assert input_ids.shape == mask.shape, (input_ids.shape, mask.shape)
        embed = nn.Embed(self.vocab_size, self.d_model, embedding_init=nn.initializers.normal(1.0), name="shared")
        bucket = self._position_buckets(input_ids.shape[1])
        bias = None if self.bias_per_block else self._position_bias("relative_attention_bias", bucket)

        def norm(name: str) -> RMSNorm:
            return RMSNorm(self.layer_norm_epsilon, self.dtype, name=name)

        # Float32, because the residual stream of the published encoders grows to thousands while what a block adds
        # stays small.
        x = embed(input_ids).astype(jnp.float32)
        for i in range(self.num_layers):
            attention = SelfAttention(self.num_heads, self.d_kv, self.dtype, name=f"block_{i}_attention")
            own_bias = bias if bias is not None else self._position_bias(f"block_{i}_relative_attention_bias", bucket)
            x = x + attention(norm(f"block_{i}_attention_norm")(x), mask, own_bias)
            feed_forward = FeedForward(self.d_ff, self.feed_forward_proj, self.dtype, name=f"block_{i}_ff")
            x = x + feed_forward(norm(f"block_{i}_ff_norm")(x))
        return norm("final_norm")(x)

    def _position_buckets(self, length: int) -> jax.Array:
        """[L,L] int32, by query and key."""
        position = np.arange(length)
        return jnp.asarray(
            relative_position_bucket(
                position[None, :] - position[:, None],
                num_buckets=self.relative_attention_num_buckets,
                max_distance=self.relative_attention_max_distance,
            )
        )

    def _position_bias(self, name: str, bucket: jax.Array) -> jax.Array:
        """[1,heads,L,L] f32."""
        table = nn.Embed(
            self.relative_attention_num_buckets,
            self.num_heads,
            embedding_init=nn.initializers.normal(self.d_model**-0.5),
            name=name,
        )
        return jnp.transpose(table(bucket), (2, 0, 1))[None].astype(jnp.float32)
