"""The configs of the paper's stages: parameters at full width, training at true resolutions with narrow channels."""

import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax import build
from imagen_jax.training.state import count_parameters

CONFIGS = Path(__file__).parents[2] / "configs"


def load(name):
    return runpy.run_path(str(CONFIGS / f"{name}.py"))["get_config"]()


@pytest.mark.parametrize(
    ("name", "at_least", "at_most"),
    [("imagen_base64", 2.2e9, 2.5e9), ("imagen_sr256", 0.55e9, 0.58e9), ("imagen_sr1024", 0.46e9, 0.48e9)],
)
def test_parameter_counts_are_the_papers(name, at_least, at_most):
    # T5-XXL's width. Shapes only: no memory.
    state = jax.eval_shape(build.create(load(name), text_width=4096), jax.random.key(0))
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
def test_training_at_true_resolution_changes_every_parameter(name, size, low_res_size, changes, randomised):
    config = load(name)
    config.model.update(changes)
    config.data.max_tokens = 8
    config.optimizer.warmup_steps = 1
    config.diffusion.caption_drop_rate = 0.0
    shapes = jax.eval_shape(build.create(config, text_width=32), jax.random.key(0))
    params = randomised(shapes.params)
    # What Adam and Adafactor start from; their `init` would compile an operation for each shape.
    opt_state = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes.opt_state)
    state = shapes.replace(step=jnp.int32(0), params=params, ema_params=params, opt_state=opt_state)
    rng = np.random.default_rng(1)
    batch = {
        "image": rng.uniform(-1, 1, (1, size, size, 3)).astype(np.float32),
        "text_emb": rng.normal(size=(1, 8, 32)).astype(jnp.bfloat16),
        "text_mask": np.arange(8)[None, :] < 5,
    }
    if low_res_size:
        batch["low_res"] = rng.uniform(-1, 1, (1, low_res_size, low_res_size, 3)).astype(np.float32)
    # Half the time to compile; what runs is small.
    options = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    step = jax.jit(build.step(config), static_argnames="axis_name", compiler_options=options)
    # Two steps, because the warm-up's first learning rate is 0.
    for _ in range(2):
        state, metrics = step(state, batch, jax.random.key(0), axis_name=None)
        assert all(np.isfinite(value) for value in metrics.values()), metrics
    assert int(state.step) == 2
    leaves = zip(jax.tree_util.tree_leaves_with_path(params), jax.tree.leaves(state.params), strict=True)
    assert not [jax.tree_util.keystr(path) for (path, old), new in leaves if np.array_equal(old, new)]
