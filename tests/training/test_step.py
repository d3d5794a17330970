from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax.diffusion.schedules import cosine
from imagen_jax.training.step import make_loss_fn
from tests.training import tiny


@pytest.fixture(scope="module")
def jitted():
    return jax.jit(lambda state, batch, key: tiny.step()(state, batch, key, axis_name=None))


class Probe:
    """In place of a network: keeps what it is given."""

    def apply(self, variables, z, logsnr, **conditioning):
        self.seen = conditioning | {"z": z, "logsnr": logsnr}
        return jnp.zeros_like(z)


def probe(batch, **changes):
    network = Probe()
    settings = {"schedule": cosine, "prediction": "v", "weighting": "v", "caption_drop_rate": 0.1, "max_aug_level": 1.0}
    keys = jax.random.split(jax.random.key(0), len(batch["image"]))
    make_loss_fn(cast(Any, network), **settings | changes)({}, batch, keys)
    return network.seen


def test_captions_are_dropped_one_by_one_at_the_given_rate():
    batch = tiny.batch(size=4096)
    seen = probe(batch, caption_drop_rate=0.1)
    dropped = np.all(np.asarray(seen["text_emb"]) == 0, axis=(1, 2))
    # Standard deviation of the share: sqrt(0.1 * 0.9 / 4096) = 0.005.
    assert abs(dropped.mean() - 0.1) < 0.02
    np.testing.assert_array_equal(np.asarray(seen["text_emb"])[~dropped], batch["text_emb"][~dropped])


def test_every_example_has_its_own_time_and_augmentation_level():
    batch = tiny.batch(size=512)
    batch["low_res"] = batch["image"][:, ::4, ::4]
    seen = probe(batch, max_aug_level=0.5)
    assert len(np.unique(seen["logsnr"])) == 512
    assert len(np.unique(seen["aug_logsnr"])) > 500  # float32 rounds a few to the same
    # Level 0.5 of the cosine schedule is logsnr 0: less is less noise.
    assert float(seen["aug_logsnr"].min()) > -1e-4
    assert seen["low_res"].shape == batch["image"].shape


def test_steps_learn(jitted):
    batch = tiny.batch()
    # The same times and noises before and after.
    keys = jax.random.split(jax.random.key(5), tiny.BATCH)
    loss = jax.jit(lambda params: jnp.mean(tiny.loss_fn()(params, batch, keys)))
    state = tiny.state()
    before = float(loss(state.params))
    for _ in range(60):
        state, _ = jitted(state, batch, jax.random.key(0))
    assert float(loss(state.params)) < 0.9 * before


def test_a_step_is_a_function_of_state_batch_and_key(jitted):
    one, _ = jitted(tiny.state(), tiny.batch(), jax.random.key(0))
    again, _ = jitted(tiny.state(), tiny.batch(), jax.random.key(0))
    other, _ = jitted(tiny.state(), tiny.batch(), jax.random.key(1))
    jax.tree.map(np.testing.assert_array_equal, one, again)
    assert any(jax.tree.leaves(jax.tree.map(lambda a, b: bool(np.any(a != b)), one.params, other.params)))


def test_noise_differs_from_step_to_step(jitted):
    state = tiny.state()
    _, first = jitted(state, tiny.batch(), jax.random.key(0))
    _, second = jitted(state.replace(step=state.step + 1), tiny.batch(), jax.random.key(0))
    assert float(first["loss"]) != float(second["loss"])


def test_metrics_tell_the_size_of_gradient_parameters_and_update(jitted):
    _, metrics = jitted(tiny.state(), tiny.batch(), jax.random.key(0))
    assert set(metrics) == {"loss", "grad_norm", "param_norm", "update_norm"}
    assert all(float(value) > 0 for value in metrics.values())
