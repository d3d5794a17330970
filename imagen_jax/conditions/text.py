"""The caption: embeddings of a frozen text encoder."""

import dataclasses

import jax
import jax.numpy as jnp

from imagen_jax.conditions.base import Condition, Shape, Shapes
from imagen_jax.conditions.keys import training_keys
from imagen_jax.types import Conditions


@dataclasses.dataclass(frozen=True)
class Text(Condition):
    """text_emb [B,L,D] and text_mask [B,L], dropped in training for a share of the examples.

    Attributes:
      max_tokens: L.
      width: D.
      drop_rate: the share of examples that see the null text in training (Imagen: 0.1).
    """

    max_tokens: int
    width: int
    drop_rate: float = 0.0

    def given(self, shape: Shape) -> Shapes:
        """See `Condition.given`."""
        return {
            "text_emb": jax.ShapeDtypeStruct((self.max_tokens, self.width), jnp.bfloat16),
            "text_mask": jax.ShapeDtypeStruct((self.max_tokens,), jnp.bool_),
        }

    def seen(self, shape: Shape) -> Shapes:
        """See `Condition.seen`."""
        return self.given(shape)

    def for_training(self, given: Conditions, keys: jax.Array, *, shape: Shape) -> Conditions:
        """See `Condition.for_training`."""
        drop = jax.vmap(lambda key: jax.random.bernoulli(key, self.drop_rate))(training_keys(keys, "drop_text"))
        return drop_text(given, drop=drop)

    def for_sampling(self, given: Conditions, keys: jax.Array, *, shape: Shape, settings: object) -> Conditions:
        """See `Condition.for_sampling`."""
        return {name: jnp.asarray(given[name]) for name in ("text_emb", "text_mask")}

    def null(self, seen: Conditions) -> Conditions:
        """See `Condition.null`."""
        return drop_text(seen, drop=jnp.ones(seen["text_mask"].shape[:1], bool))


def drop_text(text: Conditions, *, drop: jax.Array) -> Conditions:
    """Replaces the text of the examples where `drop` [B] bool is True by the null text: one token of zeros.

    Imagen, section 2.2 and appendix F: the condition is dropped by zeroing the text embeddings, for 10% of examples.
    One unmasked token, and not as many as the caption had, so that the null text says nothing about the caption's
    length.

    Args:
      text: text_emb [B,L,D] and text_mask [B,L] bool.
    """
    embeddings, mask = jnp.asarray(text["text_emb"]), jnp.asarray(text["text_mask"])
    null_mask = jnp.zeros_like(mask).at[:, 0].set(True)
    return {
        "text_emb": jnp.where(drop[:, None, None], jnp.zeros_like(embeddings), embeddings),
        "text_mask": jnp.where(drop[:, None], null_mask, mask),
    }
