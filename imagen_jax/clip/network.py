"""CLIP's two networks, as transformers' CLIPModel computes them, in float32 (Radford et al., arXiv 2103.00020).

An image's or a caption's embedding is one vector. Both are of one width P and not normalised here: the cosine between
them says how well they fit. Argument names are those of transformers' CLIPVisionConfig and CLIPTextConfig, and modules
have its names, which become those of the parameters.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from imagen_jax.types import Array

_PRECISION = jax.lax.Precision.HIGHEST
_Dense = partial(nn.Dense, precision=_PRECISION)
# torch's: the variance as the mean of squared deviations, which doesn't cancel.
_LayerNorm = partial(nn.LayerNorm, use_fast_variance=False)


def quick_gelu(x: jax.Array) -> jax.Array:
    """x sigmoid(1.702 x), the approximation of GELU (arXiv 1606.08415, section 2) that OpenAI's CLIPs have."""
    return x * jax.nn.sigmoid(1.702 * x)


# By transformers' `hidden_act`.
ACTIVATIONS = {"quick_gelu": quick_gelu, "gelu": partial(jax.nn.gelu, approximate=False)}

# A caption with this as its config's end of sentence is pooled where its id is largest: see `TextTower`.
LARGEST_ID = 2


class VisionTower(nn.Module):
    """A ViT (arXiv 2010.11929) whose class token, normalised and projected, is the embedding."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    hidden_act: str
    layer_norm_eps: float
    projection_dim: int
    image_size: int
    patch_size: int

    @nn.compact
    def __call__(self, images: Array) -> jax.Array:
        """float32 [N,image_size,image_size,3], scaled by `clip_preprocess` -> float32 [N,P]."""
        count, size = images.shape[0], self.image_size
        assert images.shape[1:] == (size, size, 3), images.shape
        patches = (self.patch_size, self.patch_size)
        x = nn.Conv(
            self.hidden_size,
            patches,
            strides=patches,
            padding="VALID",
            use_bias=False,
            precision=_PRECISION,
            name="patch_embedding",
        )(images)
        x = x.reshape(count, -1, self.hidden_size)
        token = self.param("class_embedding", nn.initializers.normal(self.hidden_size**-0.5), (self.hidden_size,))
        x = jnp.concatenate([jnp.broadcast_to(token, (count, 1, self.hidden_size)), x], axis=1)
        x = x + _position_embedding(x)
        x = _LayerNorm(self.layer_norm_eps, name="pre_layrnorm")(x)
        x = _Transformer(
            self.intermediate_size,
            self.num_hidden_layers,
            self.num_attention_heads,
            self.hidden_act,
            self.layer_norm_eps,
            causal=False,
            name="encoder",
        )(x)
        x = _LayerNorm(self.layer_norm_eps, name="post_layernorm")(x[:, 0])
        return _Dense(self.projection_dim, use_bias=False, name="visual_projection")(x)


class TextTower(nn.Module):
    """A causal transformer; what it says at the end of sentence, normalised and projected, is the embedding.

    That is the first `eos_token_id`. Where that is 2, which is no id that a published tokenizer ends captions with but
    stands in older configs, it is the largest id, and the first of them: transformers' rule. Tokens after it change
    nothing.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    hidden_act: str
    layer_norm_eps: float
    projection_dim: int
    max_position_embeddings: int
    eos_token_id: int

    @nn.compact
    def __call__(self, ids: Array) -> jax.Array:
        """int32 [N,max_position_embeddings], in [0, vocab_size) -> float32 [N,P]."""
        assert ids.shape[1:] == (self.max_position_embeddings,), ids.shape
        x = nn.Embed(self.vocab_size, self.hidden_size, name="token_embedding")(ids)
        x = x + _position_embedding(x)
        x = _Transformer(
            self.intermediate_size,
            self.num_hidden_layers,
            self.num_attention_heads,
            self.hidden_act,
            self.layer_norm_eps,
            causal=True,
            name="encoder",
        )(x)
        at = jnp.argmax(ids if self.eos_token_id == LARGEST_ID else ids == self.eos_token_id, axis=1)
        x = jnp.take_along_axis(x, at[:, None, None], axis=1)[:, 0]
        x = _LayerNorm(self.layer_norm_eps, name="final_layer_norm")(x)
        return _Dense(self.projection_dim, use_bias=False, name="text_projection")(x)


def _position_embedding(x: jax.Array) -> jax.Array:
    """[1,L,D] for x [N,L,D]."""
    return nn.Embed(x.shape[1], x.shape[2], name="position_embedding")(jnp.arange(x.shape[1]))[None]


class _Transformer(nn.Module):
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    hidden_act: str
    layer_norm_eps: float
    causal: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for i in range(self.num_hidden_layers):
            x = _Layer(
                self.intermediate_size,
                self.num_attention_heads,
                self.hidden_act,
                self.layer_norm_eps,
                self.causal,
                name=f"layers_{i}",
            )(x)
        return x


class _Layer(nn.Module):
    intermediate_size: int
    num_attention_heads: int
    hidden_act: str
    layer_norm_eps: float
    causal: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = _LayerNorm(self.layer_norm_eps, name="layer_norm1")(x)
        x = x + _Attention(self.num_attention_heads, self.causal, name="self_attn")(y)
        y = _LayerNorm(self.layer_norm_eps, name="layer_norm2")(x)
        return x + _MLP(self.intermediate_size, self.hidden_act, name="mlp")(y)


class _Attention(nn.Module):
    num_heads: int
    causal: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        count, length, width = x.shape
        q, k, v = (
            _Dense(width, name=name)(x).reshape(count, length, self.num_heads, -1)
            for name in ("q_proj", "k_proj", "v_proj")
        )
        logits = jnp.einsum("nqhd,nkhd->nhqk", q, k, precision=_PRECISION) * (width // self.num_heads) ** -0.5
        if self.causal:
            before = jnp.tril(jnp.ones((1, 1, length, length), bool))
            logits = jnp.where(before, logits, -jnp.inf)
        y = jnp.einsum("nhqk,nkhd->nqhd", jax.nn.softmax(logits), v, precision=_PRECISION)
        return _Dense(width, name="out_proj")(y.reshape(count, length, width))


class _MLP(nn.Module):
    intermediate_size: int
    hidden_act: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = ACTIVATIONS[self.hidden_act](_Dense(self.intermediate_size, name="fc1")(x))
        return _Dense(x.shape[-1], name="fc2")(y)
