"""The smallest real run: a 8 px U-Net on a batch of noise, shared by the tests of training."""

from functools import cache, partial
from typing import Any

import grain
import jax
import numpy as np
import optax
from flax import linen as nn

from imagen_jax.conditions import Text
from imagen_jax.diffusion.schedules import cosine
from imagen_jax.models import make_model
from imagen_jax.training.state import TrainState, create_state
from imagen_jax.training.step import StepSettings, train_step
from imagen_jax.training.tasks import Diffusion
from tests.randomised import randomised

BATCH, SIZE, TOKENS, WIDTH = 8, 8, 4, 8

TEXT = Text(TOKENS, WIDTH, drop_rate=0.1)
MODEL = make_model(
    "unet",
    channels=8,
    channel_mults=[1],
    num_blocks=1,
    attention_levels=[True],
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


def positions() -> grain.DatasetIterator:
    """In place of a run's data: 0, 1, 2 ..."""
    return iter(grain.MapDataset.range(100).to_iter_dataset())


def optimizer() -> optax.GradientTransformation:
    return optax.adam(1e-3)


def sgd() -> optax.GradientTransformation:
    """Plain gradient descent, whose rounding stays as small as it is."""
    return optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1, momentum=0.9))


def task(model: nn.Module = MODEL, **changes: Any) -> Diffusion:
    settings: Any = {"conditions": (TEXT,), "shape": (SIZE, SIZE, 3), "schedule": cosine}
    return Diffusion(model, **settings | {"prediction": "v", "weighting": "v"} | changes)


def step(
    optimizer: optax.GradientTransformation = optimizer(),  # noqa: B008 (it has no state)
    task: Any = task(),  # noqa: B008 (likewise)
    **settings: Any,
):
    settings = {"ema_decay": 0.99} | settings
    return partial(train_step, task=task, optimizer=optimizer, settings=StepSettings(**settings))


@cache
def _shapes() -> TrainState:
    return jax.eval_shape(partial(create_state, task(), optimizer()), jax.random.key(0))[0]


def state_of(params: Any, optimizer: optax.GradientTransformation, *, step: int = 0) -> TrainState:
    """A fresh state of any parameters."""
    return TrainState(
        step=np.int32(step),  # pyright: ignore[reportArgumentType]
        skipped_in_row=np.int32(0),  # pyright: ignore[reportArgumentType]
        params=params,
        opt_state=optimizer.init(params),
        ema_params=params,
    )


def state(seed: int = 0) -> TrainState:
    """A state of numpy arrays, its parameters random everywhere; nothing is compiled."""
    # Zeros are what Adam starts from.
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), _shapes())
    params = randomised(zeros.params, seed)
    return zeros.replace(params=params, ema_params=params)
