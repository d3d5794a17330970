"""A digest of arrays that notices changed bits, the same for every sharding and on every device.

Checkpoint libraries notice a truncated file, but not a changed one.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_ODD = 2654435761  # Knuth's multiplier: neighbouring places get unlike factors

# Of what `digest` computes unless told otherwise. Checkpoints say by which version their digests are.
DIGEST_VERSION = 2


def digest(tree: Any, *, version: int = DIGEST_VERSION) -> dict[str, int]:
    """Returns a number in [0, 2^32) for each array of `tree`, by its path, such as "params/out/kernel".

    The sum of h(bits(x_i), i) modulo 2^32, where i counts the elements in row-major order, computed where the arrays
    lie. Version 2: h(bits, i) = mix(bits xor mix(i)) * (i * 2654435761 | 1), with `mix` a one-to-one mixing of 32 bits.
    As each h is one-to-one in its bits, any change of one element changes the sum; a change of several goes unnoticed
    once in about 2^32. Version 1, of older checkpoints: h(bits, i) = bits * (i * 2654435761 | 1), in which an even
    number of flipped signs cancel.

    Args:
      tree: arrays of elements of up to 32 bits.
      version: 1 or 2.
    """
    total = partial(_sum, version=version)
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    if jax.process_count() > 1:
        # One after the other: CPUs run programs at the same time, and hosts whose collectives are then in different
        # orders wait for each other forever.
        sums = [jax.device_get(total(leaf)) for _, leaf in leaves]
    else:
        sums = jax.device_get([total(leaf) for _, leaf in leaves])
    return {_name(path): int(value) for (path, _), value in zip(leaves, sums, strict=True)}


def differing(tree: Any, expected: Mapping[str, int], *, version: int = DIGEST_VERSION) -> list[str]:
    """Lists the arrays whose digest is not the expected one, or that only one of the two has, by path."""
    found = digest(tree, version=version)
    return [path for path in sorted(found.keys() | expected.keys()) if found.get(path) != expected.get(path)]


def _name(path: tuple[Any, ...]) -> str:
    return "/".join(str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in path)


@partial(jax.jit, static_argnames="version")
def _sum(x: jax.Array, *, version: int) -> jax.Array:
    bits = _bits(x)
    # From one iota an axis, not from a reshaped one: each device computes the places of its own part.
    strides = np.cumprod([1, *bits.shape[:0:-1]], dtype=np.uint64)[::-1].astype(np.uint32) if bits.ndim else []
    iota = partial(jax.lax.broadcasted_iota, jnp.uint32, bits.shape)
    place = sum((iota(axis) * stride for axis, stride in enumerate(strides)), jnp.zeros((), jnp.uint32))
    return jnp.sum(_HASHES[version](bits, place), dtype=jnp.uint32)


def _weighted(bits: jax.Array, place: jax.Array) -> jax.Array:
    return bits * (place * jnp.uint32(_ODD) | jnp.uint32(1))


def _mixed(bits: jax.Array, place: jax.Array) -> jax.Array:
    # Weighted too: otherwise the same flip in two places whose mixed numbers differ by just that flip would cancel.
    return _weighted(_mix(bits ^ _mix(place)), place)


_HASHES: Mapping[int, Callable[[jax.Array, jax.Array], jax.Array]] = {1: _weighted, 2: _mixed}


def _mix(x: jax.Array) -> jax.Array:
    """MurmurHash3's finaliser: each step is one-to-one, and each bit put in changes about half of those that come out.

    Multiplications carry changes upwards only, to higher bits; the shifts bring them back down.
    """
    x = (x ^ (x >> jnp.uint32(16))) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> jnp.uint32(13))) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> jnp.uint32(16))


def _bits(x: jax.Array) -> jax.Array:
    """uint32, of the same shape."""
    if x.dtype == jnp.bool:
        return x.astype(jnp.uint32)
    unsigned = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[x.dtype.itemsize]
    return jax.lax.bitcast_convert_type(x, unsigned).astype(jnp.uint32)
