"""PRNG keys: one for each purpose that an example's or an image's own key serves.

Which purpose has which of the keys that a key is split into is fixed. What is added later draws from keys of its own,
by its name, so that nothing else changes.
"""

import zlib

import jax

_TRAINING = ("drop_text", "aug_level", "augment", "loss")
_SAMPLING = ("start", "augment", "sampler")


def training_keys(keys: jax.Array, purpose: str) -> jax.Array:
    """Returns the keys [B] of one purpose, from those of a step's examples [B]."""
    return _keys_of(keys, purpose, _TRAINING)


def sampling_keys(keys: jax.Array, purpose: str) -> jax.Array:
    """Returns the keys [B] of one purpose, from those of the images [B]."""
    return _keys_of(keys, purpose, _SAMPLING)


def _keys_of(keys: jax.Array, purpose: str, first_ones: tuple[str, ...]) -> jax.Array:
    if purpose in first_ones:
        index = first_ones.index(purpose)
        return jax.vmap(lambda key: jax.random.split(key, len(first_ones))[index])(keys)
    return jax.vmap(lambda key: jax.random.fold_in(key, zlib.crc32(purpose.encode())))(keys)
