import jax
import jax.numpy as jnp
import numpy as np

from imagen_jax.conditions.text import Text, drop_text

B = 3
TEXT = {
    "text_emb": jax.random.normal(jax.random.key(1), (B, 5, 7)).astype(jnp.bfloat16),
    "text_mask": jnp.arange(5)[None, :] < jnp.array([[1], [3], [5]]),
}


def test_text_is_dropped_per_example():
    dropped = drop_text(TEXT, drop=jnp.array([False, True, False]))
    for name, array in TEXT.items():
        assert dropped[name].dtype == array.dtype
        for kept in (0, 2):
            np.testing.assert_array_equal(dropped[name][kept], array[kept])
    assert not np.asarray(dropped["text_emb"][1]).any()


def test_the_null_text_says_nothing_of_the_caption_or_its_length():
    null = Text(max_tokens=5, width=7).null(TEXT)
    assert not np.asarray(null["text_emb"]).any()
    # One token, because attention needs something to attend to.
    np.testing.assert_array_equal(null["text_mask"], [[True, False, False, False, False]] * B)


def test_nothing_is_dropped_in_sampling():
    keys = jax.random.split(jax.random.key(0), B)
    seen = Text(max_tokens=5, width=7, drop_rate=1.0).for_sampling(TEXT, keys, shape=(8, 8, 3), settings=None)
    for name, array in TEXT.items():
        np.testing.assert_array_equal(seen[name], array)
