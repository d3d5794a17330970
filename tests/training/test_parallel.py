from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from imagen_jax.diffusion.objective import diffusion_loss
from imagen_jax.diffusion.schedules import cosine
from imagen_jax.training import parallel
from imagen_jax.training.step import train_step
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


def linear_loss(params, batch, keys, t=None):
    """Of one 1x1 convolution: compiled at once."""

    def network(z, logsnr):
        return z @ params["kernel"] + params["bias"]

    return diffusion_loss(
        network, jnp.asarray(batch["image"]), keys=keys, t=t, schedule=cosine, prediction="v", weighting="edm"
    )


@cache
def run_linear(*, num_devices: int, accumulate_steps: int, unroll: bool = False, stratified_times: bool = False):
    """Parameters and losses of three steps of plain gradient descent: rounding stays as small as it is."""
    devices, optimizer = jax.devices()[:num_devices], optax.sgd(0.1)
    step = partial(
        train_step,
        loss_fn=linear_loss,
        optimizer=optimizer,
        ema_decay=0.99,
        stratified_times=stratified_times,
        accumulate_steps=accumulate_steps,
        unroll=unroll,
    )
    params = {"kernel": np.eye(3, dtype=np.float32), "bias": np.zeros((1, 1, 1, 3), np.float32)}
    state = parallel.replicate(tiny.state_of(params, optimizer), devices)
    pmapped, losses = parallel.pmap_step(step, devices), []
    for index in range(3):
        image = tiny.batch(index, size=32)["image"]
        state, metrics = pmapped(state, {"image": image.reshape(num_devices, -1, *image.shape[1:])}, jax.random.key(1))
        losses.append(float(metrics["loss"]))
    return jax.device_get(state.params), losses


@pytest.mark.parametrize("stratified_times", [False, True])
@pytest.mark.parametrize(
    ("num_devices", "accumulate_steps", "unroll"),
    [(1, 2, False), (1, 4, False), (1, 4, True), (8, 1, False), (8, 2, True), (8, 4, False)],
)
def test_devices_and_parts_do_not_change_what_is_learnt(num_devices, accumulate_steps, unroll, stratified_times):
    params, losses = run_linear(
        num_devices=num_devices, accumulate_steps=accumulate_steps, unroll=unroll, stratified_times=stratified_times
    )
    whole_params, whole_losses = run_linear(num_devices=1, accumulate_steps=1, stratified_times=stratified_times)
    np.testing.assert_allclose(losses, whole_losses, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), params, whole_params)


def test_the_state_has_no_device_axis(on_eight):
    shapes = jax.tree.map(lambda x: x.shape, on_eight[0].params)
    assert shapes == jax.tree.map(lambda x: x.shape, jax.device_get(tiny.state().params))
    assert on_eight[0].step.shape == ()
    assert int(on_eight[0].step) == 3


def test_a_replicated_tree_is_whole_on_every_device():
    tree = parallel.replicate({"a": np.arange(3.0)}, jax.devices())
    assert len(tree["a"].addressable_shards) == 8
    assert all(shard.data.shape == (3,) for shard in tree["a"].addressable_shards)
