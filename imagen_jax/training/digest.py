"""A digest of arrays that notices a single flipped bit, the same for every sharding and on every device.

Checkpoint libraries notice a truncated file, but not a changed one.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# Checkpoints say which digest they hold. The first, which they hold that don't say, was a sum of bits(x_i) times odd
# factors: the top bit of a product is that of its bits, so that two flipped signs in one array cancelled.
VERSION = 2
_ODD = 2654435761  # Knuth's multiplier: neighbouring places get unlike numbers


def digest(tree: Any, *, version: int = VERSION) -> dict[str, int]:
    """Returns a number in [0, 2^32) for each array of `tree`, by its path, such as "params/out/kernel".

    It is the sum of mix(bits(x_i) xor i * 2654435761) modulo 2^32, where i counts the elements in row-major order and
    mix is a bijection whose every output bit depends on every input bit. So any change of one element changes the sum,
    and several changes leave it as it was with a chance of 2^-32. It is computed where the arrays lie.

    Args:
      version: 2; or 1, to check what an earlier version of this code wrote.
    """
    _sum = _SUMS[version]
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    if jax.process_count() > 1:
        # One after the other: CPUs run programs at the same time, and hosts whose collectives are then in different
        # orders wait for each other forever.
        sums = [jax.device_get(_sum(leaf)) for _, leaf in leaves]
    else:
        sums = jax.device_get([_sum(leaf) for _, leaf in leaves])
    return {_name(path): int(value) for (path, _), value in zip(leaves, sums, strict=True)}


def differing(tree: Any, expected: dict[str, int], *, version: int = VERSION) -> list[str]:
    """Returns the paths of arrays whose digest is not the expected one, or that only one of the two has."""
    found = digest(tree, version=version)
    return [path for path in sorted(found.keys() | expected.keys()) if found.get(path) != expected.get(path)]


def _name(path: tuple[Any, ...]) -> str:
    return "/".join(str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in path)


def _places(bits: jax.Array) -> jax.Array:
    """The number of each element in row-major order, times an odd number, uint32."""
    # From one iota an axis, not from a reshaped one: each device computes the places of its own part.
    strides = np.cumprod([1, *bits.shape[:0:-1]], dtype=np.uint64)[::-1].astype(np.uint32) if bits.ndim else []
    iota = partial(jax.lax.broadcasted_iota, jnp.uint32, bits.shape)
    place = sum((iota(axis) * stride for axis, stride in enumerate(strides)), jnp.uint32(0))
    return place * jnp.uint32(_ODD)


@jax.jit
def _sum_of_mixed(x: jax.Array) -> jax.Array:
    bits = _bits(x)
    h = bits ^ _places(bits)
    # The finaliser of MurmurHash3: xors with the upper half and products with odd numbers, each of them a bijection.
    h = (h ^ h >> 16) * jnp.uint32(0x85EBCA6B)
    h = (h ^ h >> 13) * jnp.uint32(0xC2B2AE35)
    return jnp.sum(h ^ h >> 16, dtype=jnp.uint32)


@jax.jit
def _sum_of_products(x: jax.Array) -> jax.Array:
    bits = _bits(x)
    return jnp.sum(bits * (_places(bits) | jnp.uint32(1)), dtype=jnp.uint32)


_SUMS = {1: _sum_of_products, VERSION: _sum_of_mixed}


def _bits(x: jax.Array) -> jax.Array:
    """uint32, of the same shape."""
    if x.dtype == jnp.bool:
        return x.astype(jnp.uint32)
    unsigned = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[x.dtype.itemsize]
    return jax.lax.bitcast_convert_type(x, unsigned).astype(jnp.uint32)
