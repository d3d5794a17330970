"""The smallest real run: a 8 px U-Net on a batch of noise, shared by the tests of training."""

from functools import cache, partial
from typing import Any

import jax
import numpy as np
import optax

from imagen_jax.diffusion.schedules import cosine
from imagen_jax.models import make_model
from imagen_jax.training.state import TrainState, create_state, model_inputs
from imagen_jax.training.step import make_loss_fn, train_step

BATCH, SIZE, TOKENS, WIDTH = 8, 8, 4, 8

MODEL = make_model(
    "unet",
    channels=8,
    channel_mults=[1, 2],
    num_blocks=1,
    attention_levels=[False, True],
    head_channels=8,
    dtype="float32",
)


def batch(seed: int = 0, size: int = BATCH) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "image": rng.uniform(-1, 1, (size, SIZE, SIZE, 3)).astype(np.float32),
        "text_emb": rng.normal(size=(size, TOKENS, WIDTH)).astype(np.float32),
        "text_mask": np.arange(TOKENS)[None, :] < rng.integers(1, TOKENS + 1, (size, 1)),
    }


def optimizer() -> optax.GradientTransformation:
    return optax.adam(1e-3)


def loss_fn(**changes: Any):
    settings = {"schedule": cosine, "prediction": "v", "weighting": "v", "caption_drop_rate": 0.1, "max_aug_level": 1.0}
    return make_loss_fn(MODEL, **settings | changes)


def step(**changes: Any):
    return partial(train_step, loss_fn=loss_fn(**changes), optimizer=optimizer(), ema_decay=0.99)


@cache
def _state(seed: int) -> TrainState:
    def create(key: jax.Array) -> TrainState:
        inputs = model_inputs(batch_size=1, image_size=SIZE, text_width=WIDTH, max_tokens=TOKENS, has_low_res=False)
        fresh = create_state(MODEL, optimizer(), key, inputs)
        # Of the outputs, a zero-initialised one hides differences in all that comes before: start from noise.
        leaves, tree = jax.tree.flatten(fresh.params)
        keys = jax.random.split(key, len(leaves))
        noisy = [leaf + 0.05 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)]
        params = jax.tree.unflatten(tree, noisy)
        return fresh.replace(params=params, ema_params=params)

    return jax.device_get(jax.jit(create)(jax.random.key(seed)))


def state(seed: int = 0) -> TrainState:
    """A state of numpy arrays, its parameters random everywhere."""
    return _state(seed)
