from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from tests.randomised import randomised


@pytest.fixture(scope="session")
def random_params() -> Callable[..., Any]:
    """random_params(model, *inputs) -> `randomised` variables; only shapes come from `init`, so nothing is compiled."""

    def random_params(model: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return randomised(jax.eval_shape(model.init, jax.random.key(0), *args, **kwargs))

    return random_params


@pytest.fixture(scope="session")
def inputs() -> dict[str, Any]:
    """What a network of 8 px is called with: two images, captions of 3 and 5 real tokens out of 6."""
    keys = jax.random.split(jax.random.key(2), 3)
    return {
        "z": jax.random.normal(keys[0], (2, 8, 8, 3)),
        "logsnr": jnp.array([-2.0, 3.0]),
        "conditions": {
            "text_emb": jax.random.normal(keys[1], (2, 6, 16)).astype(jnp.bfloat16),
            "text_mask": jnp.arange(6)[None, :] < jnp.array([[3], [5]]),
            "low_res": jax.random.normal(keys[2], (2, 8, 8, 3)),
            "aug_logsnr": jnp.array([1.0, 4.0]),
        },
    }
