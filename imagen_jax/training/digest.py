"""A digest of arrays that notices a single flipped bit, the same for every sharding and on every device.

Checkpoint libraries notice a truncated file, but not a changed one.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_ODD = 2654435761  # Knuth's multiplier: neighbouring places get unlike factors


def digest(tree: Any) -> dict[str, int]:
    """A number in [0, 2^32) for each array of `tree`, by its path, such as "params/out/kernel".

    The sum of bits(x_i) * (i * 2654435761 | 1) modulo 2^32, where i counts the elements in row-major order. The factors
    are odd, so any change of one element changes the sum. It is computed where the arrays lie.
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    if jax.process_count() > 1:
        # One after the other: CPUs run programs at the same time, and hosts whose collectives are then in different
        # orders wait for each other forever.
        sums = [jax.device_get(_sum(leaf)) for _, leaf in leaves]
    else:
        sums = jax.device_get([_sum(leaf) for _, leaf in leaves])
    return {_name(path): int(value) for (path, _), value in zip(leaves, sums, strict=True)}


def differing(tree: Any, expected: dict[str, int]) -> list[str]:
    """The arrays whose digest is not the expected one, or that only one of the two has, by path."""
    found = digest(tree)
    return [path for path in sorted(found.keys() | expected.keys()) if found.get(path) != expected.get(path)]


def _name(path: tuple[Any, ...]) -> str:
    return "/".join(str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in path)


@jax.jit
def _sum(x: jax.Array) -> jax.Array:
    bits = _bits(x)
    # From one iota an axis, not from a reshaped one: each device computes the places of its own part.
    strides = np.cumprod([1, *bits.shape[:0:-1]], dtype=np.uint64)[::-1].astype(np.uint32) if bits.ndim else []
    iota = partial(jax.lax.broadcasted_iota, jnp.uint32, bits.shape)
    place = sum((iota(axis) * stride for axis, stride in enumerate(strides)), jnp.uint32(0))
    return jnp.sum(bits * (place * jnp.uint32(_ODD) | jnp.uint32(1)), dtype=jnp.uint32)


def _bits(x: jax.Array) -> jax.Array:
    """uint32, of the same shape."""
    if x.dtype == jnp.bool:
        return x.astype(jnp.uint32)
    unsigned = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[x.dtype.itemsize]
    return jax.lax.bitcast_convert_type(x, unsigned).astype(jnp.uint32)
