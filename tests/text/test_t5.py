import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict

from imagen_jax.text.placement import make_mesh, parameter_sharding
from imagen_jax.text.t5 import T5Encoder, relative_position_bucket
from imagen_jax.text.t5_weights import parameter_shapes

SIZES: dict[str, Any] = {"vocab_size": 50, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
LENGTH = 9


@pytest.fixture(scope="module")
def encoder():
    model = T5Encoder(**SIZES)
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 2), jnp.int32), jnp.ones((1, 2), bool))
    return model, params


def ids_and_mask(max_length, *, fill=0):
    ids = np.full((2, max_length), fill, np.int32)
    ids[0, :LENGTH] = np.arange(5, 5 + LENGTH)
    ids[1, :3] = (7, 8, 1)
    mask = np.zeros((2, max_length), bool)
    mask[0, :LENGTH] = True
    mask[1, :3] = True
    return ids, mask


def test_embeddings_do_not_depend_on_the_padded_length(encoder):
    model, params = encoder
    outputs = {}
    for max_length in (16, 32, 64):
        ids, mask = ids_and_mask(max_length)
        outputs[max_length] = np.asarray(jax.jit(model.apply)(params, ids, mask))[:, :16][mask[:, :16]]
    # Other shapes are other programs, which add in another order.
    np.testing.assert_allclose(outputs[32], outputs[16], rtol=0, atol=5e-6)
    np.testing.assert_allclose(outputs[64], outputs[16], rtol=0, atol=5e-6)


def test_a_padded_id_changes_no_bit_of_a_real_token(encoder):
    model, params = encoder
    apply = jax.jit(model.apply)
    ids, mask = ids_and_mask(16)
    other_ids, _ = ids_and_mask(16, fill=33)
    np.testing.assert_array_equal(apply(params, ids, mask)[mask], apply(params, other_ids, mask)[mask])


def test_an_untrained_encoder_spreads_its_outputs(encoder):
    model, params = encoder
    ids = np.arange(50, dtype=np.int32)[:, None]
    emb = np.asarray(jax.jit(model.apply)(params, ids, np.ones_like(ids, bool)))[:, 0]
    unit = emb / np.linalg.norm(emb, axis=1, keepdims=True)
    cosine = unit @ unit.T - np.eye(50)
    assert np.abs(cosine).max() < 0.8
    assert np.abs(cosine.mean()) < 0.1
    np.testing.assert_allclose(np.square(emb).mean(axis=1), 1, rtol=1e-3)


def test_the_order_of_tokens_matters(encoder):
    model, params = encoder
    ids = np.array([[5, 6, 7, 1], [7, 6, 5, 1]], np.int32)
    emb = np.asarray(jax.jit(model.apply)(params, ids, np.ones_like(ids, bool)))
    assert np.abs(emb[0, 3] - emb[1, 3]).max() > 0.01


def test_bfloat16_stays_close_to_float32(encoder):
    model, params = encoder
    ids, mask = ids_and_mask(16)
    full = np.asarray(jax.jit(model.apply)(params, ids, mask))[mask]
    half = jax.jit(T5Encoder(**SIZES, dtype=jnp.bfloat16).apply)(params, ids, mask)
    assert half.dtype == jnp.bfloat16
    error = np.asarray(half.astype(jnp.float32))[mask] - full
    assert np.linalg.norm(error) < 0.02 * np.linalg.norm(full)


def test_parameters_are_float32_and_as_many_as_the_sizes_say(encoder):
    _, params = encoder
    leaves = jax.tree.leaves(params)
    inner = SIZES["num_heads"] * SIZES["d_kv"]
    layer = 4 * SIZES["d_model"] * inner + 3 * SIZES["d_model"] * SIZES["d_ff"] + 2 * SIZES["d_model"]
    expected = SIZES["vocab_size"] * SIZES["d_model"] + 32 * SIZES["num_heads"] + SIZES["d_model"] + 2 * layer
    assert sum(leaf.size for leaf in leaves) == expected
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype(jnp.float32)}


XXL: dict[str, Any] = {
    "vocab_size": 32128,
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10240,
    "num_layers": 24,
    "num_heads": 64,
}


def test_xxl_has_the_published_number_of_parameters():
    assert round(sum(shape.size for shape in parameter_shapes(T5Encoder(**XXL)).values()) / 1e7) == 476


def test_xxl_over_four_chips_holds_a_quarter_each_and_adds_up_twice_a_block():
    model = T5Encoder(**XXL, dtype=jnp.bfloat16)
    mesh = make_mesh(jax.devices()[:4], shards=4, num_bytes=0, divides=64)
    params = unflatten_dict(
        {
            path: jax.ShapeDtypeStruct(shape.shape, jnp.bfloat16, sharding=parameter_sharding(mesh, path))
            for path, shape in parameter_shapes(model).items()
        }
    )
    ids, mask = (jax.ShapeDtypeStruct((8, 128), kind) for kind in (jnp.int32, jnp.bool))
    compiled = jax.jit(model.apply).lower({"params": params}, ids, mask).compile()
    memory = compiled.memory_analysis()
    assert memory is not None
    # Two bytes a parameter, over four chips.
    assert memory.argument_size_in_bytes == pytest.approx(4.762e9 * 2 / 4, rel=1e-3)
    program = compiled.as_text()
    assert program is not None
    assert program.count(" all-reduce(") == 2 * 24 + 1
    assert "all-gather" not in program


def reference_bucket(relative, num_buckets, max_distance):
    """Half the buckets for keys after the query; in each half, half exact and half logarithmic."""
    half = num_buckets // 2
    exact = half // 2
    distance = abs(relative)
    if distance < exact:
        bucket = distance
    else:
        # 1e-9: powers of two are bucket borders, and a logarithm may round to just below.
        fraction = math.log(distance / exact) / math.log(max_distance / exact)
        bucket = min(half - 1, exact + int(fraction * (half - exact) + 1e-9))
    return bucket + (half if relative > 0 else 0)


@pytest.mark.parametrize(("num_buckets", "max_distance"), [(32, 128), (16, 64), (8, 20)])
def test_relative_positions_fall_into_the_buckets_of_a_plain_loop(num_buckets, max_distance):
    relative = np.arange(-300, 301)
    expected = [reference_bucket(int(r), num_buckets, max_distance) for r in relative]
    actual = relative_position_bucket(relative, num_buckets=num_buckets, max_distance=max_distance)
    np.testing.assert_array_equal(actual, expected)
