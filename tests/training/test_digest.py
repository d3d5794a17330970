import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from imagen_jax.training.digest import differing, digest


def bits_of(x):
    return np.asarray(x).ravel().view({1: np.uint8, 2: np.uint16, 4: np.uint32}[x.dtype.itemsize])


def by_loop(x):
    def mix(h):
        for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
            h = (h ^ h >> shift) * factor % 2**32
        return h ^ h >> 16

    return sum(mix(int(b) ^ i * 2654435761 % 2**32) for i, b in enumerate(bits_of(x))) % 2**32


def first_version_by_loop(x):
    return sum(int(b) * ((i * 2654435761) % 2**32 | 1) for i, b in enumerate(bits_of(x))) % 2**32


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.int32, jnp.bool, jnp.uint8])
@pytest.mark.parametrize("shape", [(), (7,), (4, 6), (2, 3, 5)])
def test_it_is_the_sum_of_a_plain_loop(shape, dtype):
    x = jax.random.normal(jax.random.key(0), shape) * 3
    x = (x > 0) if dtype == jnp.bool else x.astype(dtype)
    assert digest({"a": {"b": x}}) == {"a/b": by_loop(x)}
    assert digest({"a": {"b": x}}, version=1) == {"a/b": first_version_by_loop(x)}


def test_any_flipped_bit_is_noticed():
    x = np.asarray(jax.random.normal(jax.random.key(0), (8, 16)))
    before = digest({"x": x})
    rng = np.random.default_rng(0)
    for _ in range(100):
        bits = x.copy().view(np.uint32)
        bits[rng.integers(8), rng.integers(16)] ^= np.uint32(1) << np.uint32(rng.integers(32))
        assert differing({"x": bits.view(np.float32)}, before) == ["x"]


def test_two_flipped_signs_and_swapped_numbers_are_noticed():
    x = np.asarray(jax.random.normal(jax.random.key(0), (8, 16)))
    before, earlier = digest({"x": x}), digest({"x": x}, version=1)
    flipped = x.copy()
    flipped[0, 0], flipped[3, 5] = -x[0, 0], -x[3, 5]
    swapped = x.copy()
    swapped[0, 0], swapped[0, 1] = x[0, 1], x[0, 0]
    zero = np.zeros_like(x)
    assert differing({"x": flipped}, before) == differing({"x": swapped}, before) == ["x"]
    assert differing({"x": zero}, digest({"x": -zero})) == ["x"]
    assert differing({"x": flipped}, earlier, version=1) == []  # why there is a second version


def test_any_two_flipped_bits_are_noticed():
    x = np.asarray(jax.random.normal(jax.random.key(0), (8, 16)))
    before = digest({"x": x})
    rng = np.random.default_rng(0)
    for _ in range(200):
        bits = x.copy().view(np.uint32)
        for place in rng.choice(x.size, 2, replace=False):
            bits.flat[place] ^= np.uint32(1) << np.uint32(rng.integers(32))
        assert differing({"x": bits.view(np.float32)}, before) == ["x"]


def test_it_is_the_same_for_every_sharding():
    x = jax.random.normal(jax.random.key(0), (16, 8))
    mesh = Mesh(np.array(jax.devices()).reshape(4, 2), ("a", "b"))
    for spec in (P(), P("a"), P(None, "b"), P("b", "a"), P(("a", "b"))):
        assert digest([jax.device_put(x, NamedSharding(mesh, spec))]) == {"0": by_loop(x)}


def test_swapped_and_missing_arrays_are_named():
    a, b = jnp.arange(3.0), jnp.arange(3.0) + 1
    before = digest({"a": a, "b": b})
    assert differing({"a": b, "b": a}, before) == ["a", "b"]
    assert differing({"a": a}, before) == ["b"]
    assert differing({"a": a, "b": b}, before) == []
