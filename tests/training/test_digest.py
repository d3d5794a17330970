import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from imagen_jax.training.digest import differing, digest


def mix(x: int) -> int:
    x = (x ^ x >> 16) * 0x85EBCA6B % 2**32
    x = (x ^ x >> 13) * 0xC2B2AE35 % 2**32
    return x ^ x >> 16


HASHES = {1: lambda bits, place: bits, 2: lambda bits, place: mix(bits ^ mix(place))}


def by_loop(x, version=2):
    bits = np.asarray(x).ravel().view({1: np.uint8, 2: np.uint16, 4: np.uint32}[x.dtype.itemsize])
    return sum(HASHES[version](int(b), i) * (i * 2654435761 % 2**32 | 1) for i, b in enumerate(bits)) % 2**32


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.int32, jnp.bool, jnp.uint8])
@pytest.mark.parametrize("shape", [(), (7,), (4, 6), (2, 3, 5)])
def test_it_is_the_sum_of_a_plain_loop(shape, dtype):
    x = jax.random.normal(jax.random.key(0), shape) * 3
    x = (x > 0) if dtype == jnp.bool else x.astype(dtype)
    assert digest({"a": {"b": x}}) == {"a/b": by_loop(x)}
    assert digest({"a": {"b": x}}, version=1) == {"a/b": by_loop(x, version=1)}


def test_any_flipped_bit_is_noticed():
    x = np.asarray(jax.random.normal(jax.random.key(0), (8, 16)))
    before = digest({"x": x})
    rng = np.random.default_rng(0)
    for _ in range(100):
        bits = x.copy().view(np.uint32)
        bits[rng.integers(8), rng.integers(16)] ^= np.uint32(1) << np.uint32(rng.integers(32))
        assert differing({"x": bits.view(np.float32)}, before) == ["x"]


@pytest.mark.parametrize("start", ["random", "zeros"])
def test_any_two_flipped_bits_are_noticed(start):
    x = np.zeros(6, np.float32) if start == "zeros" else np.asarray(jax.random.normal(jax.random.key(0), (6,)))
    before = digest({"x": x})
    chances = np.random.default_rng(0)
    pairs = [(bit, bit + 32 * n) for bit in range(32) for n in range(1, 6)]  # the same bit of two elements: worst
    pairs += [tuple(chances.choice(6 * 32, 2, replace=False)) for _ in range(200)]
    for pair in pairs:
        bits = x.copy().view(np.uint32)
        for place in pair:
            bits[place // 32] ^= np.uint32(1) << np.uint32(place % 32)
        assert differing({"x": bits.view(np.float32)}, before) == ["x"], pair


def test_two_flipped_signs_swapped_elements_and_negative_zeros_are_noticed():
    x = np.array([1.5, -2.0, 0.0, 0.0, 3.0], np.float32)
    before = digest({"x": x})
    for changed in ([-1.5, 2.0, 0.0, 0.0, 3.0], [-2.0, 1.5, 0.0, 0.0, 3.0], [1.5, -2.0, -0.0, 0.0, 3.0],
                    [1.5, -2.0, -0.0, -0.0, 3.0], [-1.5, 2.0, -0.0, -0.0, 3.0]):  # fmt: skip
        assert differing({"x": np.array(changed, np.float32)}, before) == ["x"], changed
    # What the first version did not see.
    flipped = np.array([-1.5, 2.0, 0.0, 0.0, 3.0], np.float32)
    assert differing({"x": flipped}, digest({"x": x}, version=1), version=1) == []


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
