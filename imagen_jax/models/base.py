"""What the rest of the package knows of a network, whichever it is, and what the two U-Nets share.

A network is a flax module, called as network(z [B,...], logsnr [B], conditions) -> [B,...] float32: see
`UNet.__call__`. What it may have besides:

  TAKES         `Takes`: the conditions that it knows; without it, it is given whatever there is.
  FIELDS        `Field`s of its attributes, by name: what each may be.
  check()       raises InputError where its attributes don't fit each other.
  downsampling  H and W of its images must be multiples of this; without it, of 1.
  dtype, remat  attributes: the type that it computes in, and whether it computes activations again.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from imagen_jax.errors import InputError
from imagen_jax.types import Array, Conditions


class Takes(NamedTuple):
    """The names of the conditions that a network reads: those without which it can't be called, and others."""

    needs: tuple[str, ...]
    knows: tuple[str, ...] = ()


# What the U-Nets know: the caption, and of a super-resolution stage its low-resolution input.
_TEXT, _LOW_RES = ("text_emb", "text_mask"), ("low_res", "aug_logsnr")
UNET_TAKES = Takes(needs=_TEXT, knows=_LOW_RES)


class Encoded(NamedTuple):
    """What the first half of a U-Net passes to the second.

    Attributes:
      h: [B,H',W',C], at the coarsest level.
      skips: the skip connections, the finest first.
      emb: [B,E], the conditioning vector.
    """

    h: jax.Array
    skips: tuple[jax.Array, ...]
    emb: jax.Array

    def plus(self, residuals: Sequence[jax.Array] | None) -> "Encoded":
        """Adds one residual to each of the skip connections, and the last to `h`; None: nothing."""
        if residuals is None:
            return self
        of_skips = zip(self.skips, residuals[:-1], strict=True)
        return self._replace(h=self.h + residuals[-1], skips=tuple(skip + residual for skip, residual in of_skips))


def text_of(conditions: Conditions) -> tuple[Array, Array]:
    """Returns the embeddings [B,L,D] and the mask [B,L] of the captions."""
    embeddings, mask = (conditions[name] for name in _TEXT)
    return embeddings, mask


def with_low_res(z: jax.Array, conditions: Conditions) -> jax.Array:
    """The image behind whose channels, for a super-resolution stage, stand those of its low-resolution input."""
    return jnp.concatenate([z, conditions["low_res"]], axis=-1) if "low_res" in conditions else z


def size_multiple(network: Any) -> int:
    """What H and W of a network's images must be multiples of."""
    return getattr(network, "downsampling", 1)


def compute_dtype(network: Any) -> Any:
    """The type that a network computes in, and so casts its kernels to; float32 of one that doesn't say."""
    return getattr(network, "dtype", None) or jnp.float32


def check_conditions(network: Any, given: Iterable[str]) -> None:
    """Checks, before anything is compiled, that a network knows each condition it will be given, and has all it needs.

    Args:
      network: one that doesn't say what it takes is taken to know everything.
      given: the conditions' names.

    Raises:
      InputError: one that it doesn't know, or lacks.
    """
    takes: Takes | None = getattr(network, "TAKES", None)
    if takes is None:
        return
    given, known = set(given), {*takes.needs, *takes.knows}
    name = type(network).__name__
    if unknown := sorted(given - known):
        raise InputError(
            f'the network {name} is given the condition "{unknown[0]}", which it doesn\'t know; it knows: '
            f"{', '.join(sorted(known)) or 'none'}"
        )
    if missing := sorted(set(takes.needs) - given):
        raise InputError(
            f'the network {name} needs the condition "{missing[0]}", which it isn\'t given; it is given: '
            f"{', '.join(sorted(given)) or 'none'}"
        )
