"""The configs of the paper's stages: parameters at full width, gradients at true resolutions with narrow channels."""

import runpy
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax import build
from imagen_jax.training.state import count_parameters
from imagen_jax.training.step import draw_times
from tests.randomised import randomised

CONFIGS = Path(__file__).parents[2] / "configs"


def load(name):
    return runpy.run_path(str(CONFIGS / f"{name}.py"))["get_config"]()


@pytest.mark.parametrize(
    ("name", "at_least", "at_most"),
    [("imagen_base64", 2.2e9, 2.5e9), ("imagen_sr256", 0.55e9, 0.58e9), ("imagen_sr1024", 0.46e9, 0.48e9)],
)
def test_parameter_counts_are_the_papers(name, at_least, at_most):
    # T5-XXL's width. Shapes only: no memory.
    state, _ = build.shapes(load(name), text_width=4096)
    assert at_least < count_parameters(state.params) < at_most
    assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {np.dtype("float32")}


# Narrow, one block a level, and float32 (bfloat16 compiles slowly on a CPU); all else is the config's.
SR_CHANGES = {"channels": 8, "num_blocks": (1, 1, 1, 1), "dtype": "float32"}
# head_channels: as many heads as the paper has at each level.
BASE_CHANGES = {"channels": 16, "num_blocks": 1, "head_channels": 2, "dtype": "float32"}


@pytest.mark.parametrize(
    ("name", "size", "low_res_size", "changes"),
    [
        ("imagen_base64", 64, None, BASE_CHANGES),
        ("imagen_sr256", 256, 64, SR_CHANGES),
        ("imagen_sr1024", 256, 64, SR_CHANGES),  # a crop of 256 px out of 1024
    ],
)
def test_every_parameter_learns_at_true_resolution(name, size, low_res_size, changes):
    config = load(name)
    config.model.update(changes)
    config.data.max_tokens = 8
    config.diffusion.caption_drop_rate = 0.0
    state, _ = build.shapes(config, text_width=32)
    rng = np.random.default_rng(1)
    batch = {
        "image": rng.uniform(-1, 1, (1, size, size, 3)).astype(np.float32),
        "text_emb": rng.normal(size=(1, 8, 32)).astype(jnp.bfloat16),
        "text_mask": np.arange(8)[None, :] < 5,
    }
    if low_res_size:
        batch["low_res"] = rng.uniform(-1, 1, (1, low_res_size, low_res_size, 3)).astype(np.float32)
    task, keys = build.task(config), jax.random.split(jax.random.key(0), 1)
    t = draw_times(keys)
    loss, grads = jax.jit(jax.value_and_grad(lambda params: jnp.mean(task.loss(params, {}, batch, keys, t))))(
        randomised(state.params)
    )
    assert 0 < loss < 100
    for path, grad in jax.tree_util.tree_leaves_with_path(grads):
        assert np.all(np.isfinite(grad)), jax.tree_util.keystr(path)
        assert np.any(grad), jax.tree_util.keystr(path)
    # The whole step keeps shapes and types. By shapes only: to compile Adafactor for all arrays takes half a minute.
    after, _ = jax.eval_shape(build.step(config), state, {}, batch, jax.random.key(0))
    describe = partial(jax.tree.map, lambda leaf: (leaf.shape, leaf.dtype))
    assert describe(after) == describe(state)
