import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax.models.attention import AttentionPooling, ImageTextAttention, dot_product_attention

X = jax.random.normal(jax.random.key(0), (2, 4, 4, 8))
TEXT_EMB = jax.random.normal(jax.random.key(1), (2, 6, 16))
TEXT_MASK = jnp.arange(6)[None, :] < jnp.array([[3], [5]])
BLOCKS = {
    "image and text": ImageTextAttention(2),
    "text alone": ImageTextAttention(2, use_image=False),
    "pooling": AttentionPooling(16, head_channels=8),
}


@pytest.fixture(scope="module", params=BLOCKS)
def attend(request, random_params):
    """attend(text_emb, text_mask), on the image X where the block has one."""
    block = BLOCKS[request.param]
    image = () if request.param == "pooling" else (X,)
    params = random_params(block, *image, TEXT_EMB, TEXT_MASK)
    apply = jax.jit(block.apply)
    return lambda text_emb, text_mask: np.asarray(apply(params, *image, text_emb, text_mask))


def test_a_padded_token_changes_no_bit(attend):
    other = jnp.where(TEXT_MASK[..., None], TEXT_EMB, 1000.0 * jnp.flip(TEXT_EMB, axis=-1))
    np.testing.assert_array_equal(attend(other, TEXT_MASK), attend(TEXT_EMB, TEXT_MASK))


def test_more_padding_changes_nothing(attend):
    emb = jnp.pad(TEXT_EMB, ((0, 0), (0, 10), (0, 0)), constant_values=3.0)
    mask = jnp.pad(TEXT_MASK, ((0, 0), (0, 10)))
    np.testing.assert_allclose(attend(emb, mask), attend(TEXT_EMB, TEXT_MASK), rtol=0, atol=1e-5)


def test_a_real_token_changes_its_own_example_alone(attend):
    before = attend(TEXT_EMB, TEXT_MASK)
    after = attend(TEXT_EMB.at[0, 2].set(TEXT_EMB[0, 5]), TEXT_MASK)
    assert np.abs(after[0] - before[0]).mean() > 1e-3
    np.testing.assert_array_equal(after[1], before[1])


def test_text_is_a_set(attend):
    # Order comes from the text encoder; here no token has a position.
    order = jnp.array([2, 0, 1, 3, 4, 5])
    emb = TEXT_EMB.at[0].set(TEXT_EMB[0, order])
    np.testing.assert_allclose(attend(emb, TEXT_MASK), attend(TEXT_EMB, TEXT_MASK), rtol=0, atol=1e-5)


@pytest.mark.parametrize("use_image", [True, False])
def test_fresh_attention_passes_the_image_on(use_image):
    block = ImageTextAttention(2, use_image=use_image)
    result, _ = jax.jit(block.init_with_output)(jax.random.key(2), X, TEXT_EMB, TEXT_MASK)
    np.testing.assert_array_equal(result, X)


def layer_norm(text, params):
    text = np.asarray(text, np.float64)
    centred = text - text.mean(axis=-1, keepdims=True)
    normal = centred / np.sqrt(np.square(centred).mean(axis=-1, keepdims=True) + 1e-6)
    return normal * np.asarray(params["scale"]) + np.asarray(params["bias"])


def test_pooling_of_one_token_is_its_value(random_params):
    block = BLOCKS["pooling"]
    mask = jnp.arange(6)[None, :] == jnp.array([[0], [4]])
    params = random_params(block, TEXT_EMB, mask)
    kernel, bias = (np.asarray(params["params"]["kv"][name], np.float64) for name in ("kernel", "bias"))
    text = layer_norm(np.stack([TEXT_EMB[0, 0], TEXT_EMB[1, 4]]), params["params"]["text_norm"])
    expected = (text @ kernel + bias[None, :])[:, 16:]
    np.testing.assert_allclose(jax.jit(block.apply)(params, TEXT_EMB, mask), expected, rtol=0, atol=1e-5)


def test_pixels_attend_to_pixels_and_text_in_one_softmax(random_params):
    """Against one head written out in numpy."""
    block = ImageTextAttention(1)
    params = random_params(block, X, TEXT_EMB, TEXT_MASK)
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params["params"])

    def dense(x, name):
        return x @ p[name]["kernel"] + p[name]["bias"]

    result = jax.jit(block.apply)(params, X, TEXT_EMB, TEXT_MASK)
    for b in range(2):
        pixels = np.asarray(X[b], np.float64).reshape(16, 2, 4)  # GroupNorm of 8 channels: 2 groups
        centred = pixels - pixels.mean(axis=(0, 2), keepdims=True)
        h = centred / np.sqrt(np.square(centred).mean(axis=(0, 2), keepdims=True) + 1e-5)
        q, image_k, image_v = np.split(
            dense(h.reshape(16, 8) * p["norm"]["scale"] + p["norm"]["bias"], "qkv"), 3, axis=-1
        )
        text = layer_norm(TEXT_EMB[b][np.asarray(TEXT_MASK[b])], p["text_norm"])
        text_k, text_v = np.split(dense(text, "text_kv"), 2, axis=-1)
        logits = q @ np.concatenate([image_k, text_k]).T / np.sqrt(8)
        weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        expected = np.asarray(X[b]).reshape(16, 8) + dense(weights @ np.concatenate([image_v, text_v]), "out")
        np.testing.assert_allclose(result[b].reshape(16, 8), expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_values_and_gradients_are_those_of_plain_attention(dtype):
    keys = jax.random.split(jax.random.key(3), 4)
    q, grad = (jax.random.normal(key, (2, 5, 2, 8), dtype) for key in keys[:2])
    k, v = (jax.random.normal(key, (2, 6, 2, 8), dtype) for key in keys[2:])

    def with_gradients(attend, dtype):
        def run(*qkv):
            values, pull_back = jax.vjp(lambda *qkv: attend(*qkv, TEXT_MASK), *qkv)
            return values, *pull_back(grad.astype(dtype))

        return jax.jit(run)(*(x.astype(dtype) for x in (q, k, v)))

    def plain(q, k, v, mask):
        return jax.nn.dot_product_attention(q, k, v, mask=mask[:, None, None, :])

    got, exact = with_gradients(dot_product_attention, dtype), with_gradients(plain, jnp.float32)
    tolerance = 1e-5 if dtype == jnp.float32 else 1e-2
    for ours, theirs in zip(got, exact, strict=True):
        assert ours.dtype == dtype
        assert jnp.linalg.norm(ours.astype(jnp.float32) - theirs) < tolerance * jnp.linalg.norm(theirs)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_largest_of_huge_logits_takes_all(dtype):
    q = jnp.full((1, 1, 1, 4), 100.0, dtype)
    k = jnp.array([100.0, 90.0, 110.0], dtype)[None, :, None, None] * jnp.ones((1, 1, 1, 4), dtype)
    v = jnp.array([1.0, 2.0, 3.0], dtype)[None, :, None, None] * jnp.ones((1, 1, 1, 4), dtype)
    mask = jnp.array([[True, True, False]])
    np.testing.assert_array_equal(dot_product_attention(q, k, v, mask).astype(np.float32), 1.0)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_where_every_token_is_masked_all_weigh_the_same(dtype):
    q, k = (jax.random.normal(jax.random.key(index), (1, 1, 1, 4), dtype) for index in (5, 6))
    v = jnp.array([1.0, 2.0, 6.0], dtype)[None, :, None, None] * jnp.ones((1, 1, 1, 4), dtype)
    mask = jnp.zeros((1, 3), bool)
    np.testing.assert_array_equal(dot_product_attention(q, jnp.tile(k, (1, 3, 1, 1)), v, mask).astype(np.float32), 3.0)
