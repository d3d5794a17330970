import jax
import numpy as np
import pytest

from imagen_jax.training import parallel
from tests.training import tiny


def run(num_devices: int, num_steps: int = 3):
    devices = jax.devices()[:num_devices]
    step = parallel.pmap_step(tiny.step(), devices)
    state = parallel.replicate(tiny.state(), devices)
    key = jax.random.key(1)
    losses = []
    for index in range(num_steps):
        batch = {name: value.reshape(num_devices, -1, *value.shape[1:]) for name, value in tiny.batch(index).items()}
        state, metrics = step(state, batch, key)
        losses.append(float(metrics["loss"]))
    return jax.device_get(state), losses


@pytest.fixture(scope="module")
def on_one():
    return run(1)


@pytest.fixture(scope="module")
def on_eight():
    return run(8)


def test_eight_devices_train_as_one_does(on_one, on_eight):
    np.testing.assert_allclose(on_eight[1], on_one[1], rtol=1e-5)
    jax.tree.map(
        # Adam divides by the gradient's size: where that is tiny, rounding decides the sign of a step of 1e-3.
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4),
        on_eight[0].params,
        on_one[0].params,
    )


def test_the_state_has_no_device_axis(on_eight):
    shapes = jax.tree.map(lambda x: x.shape, on_eight[0].params)
    assert shapes == jax.tree.map(lambda x: x.shape, jax.device_get(tiny.state().params))
    assert on_eight[0].step.shape == ()
    assert int(on_eight[0].step) == 3


def test_a_replicated_tree_is_whole_on_every_device():
    tree = parallel.replicate({"a": np.arange(3.0)}, jax.devices())
    assert len(tree["a"].addressable_shards) == 8
    assert all(shard.data.shape == (3,) for shard in tree["a"].addressable_shards)
