from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from imagen_jax.conditions import LowRes, Text
from imagen_jax.training.step import draw_times
from tests.training import tiny


@pytest.fixture(scope="module")
def jitted():
    return jax.jit(lambda state, batch, key: tiny.step()(state, {}, batch, key))


class Probe:
    """In place of a network: keeps what it is given."""

    def apply(self, variables, z, logsnr, conditions):
        self.seen = conditions | {"z": z, "logsnr": logsnr}
        return jnp.zeros_like(z)


def probe(batch, *conditions):
    network = Probe()
    keys = jax.random.split(jax.random.key(0), len(batch["image"]))
    task = tiny.task(cast(Any, network), conditions=conditions)
    task.loss({}, {}, batch, keys, draw_times(keys))
    return network.seen


def test_captions_are_dropped_one_by_one_at_the_given_rate():
    batch = tiny.batch(size=4096)
    seen = probe(batch, Text(tiny.TOKENS, tiny.WIDTH, drop_rate=0.1))
    dropped = np.all(np.asarray(seen["text_emb"]) == 0, axis=(1, 2))
    # Standard deviation of the share: sqrt(0.1 * 0.9 / 4096) = 0.005.
    assert abs(dropped.mean() - 0.1) < 0.02
    np.testing.assert_array_equal(np.asarray(seen["text_emb"])[~dropped], batch["text_emb"][~dropped])


def test_every_example_has_its_own_time_and_augmentation_level():
    batch = tiny.batch(size=512)
    batch["low_res"] = batch["image"][:, ::4, ::4]
    seen = probe(batch, LowRes(4, max_aug_level=0.5))
    assert len(np.unique(seen["logsnr"])) == 512
    assert len(np.unique(seen["aug_logsnr"])) > 500  # float32 rounds a few to the same
    # Level 0.5 of the cosine schedule is logsnr 0: less is less noise.
    assert float(seen["aug_logsnr"].min()) > -1e-4
    assert seen["low_res"].shape == batch["image"].shape


def test_steps_learn(jitted):
    batch = tiny.batch()
    # The same times and noises before and after.
    keys = jax.random.split(jax.random.key(5), tiny.BATCH)
    loss = jax.jit(lambda params: jnp.mean(tiny.task().loss(params, {}, batch, keys, draw_times(keys))))
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


class Asked:
    """A task that keeps the times and keys that a step asks its loss with."""

    def __init__(self):
        self.times, self.keys = [], []

    def loss(self, trainable, frozen, batch, keys, t):
        self.times.append(t)
        self.keys.append(keys)
        return jnp.zeros(len(keys))


def asked(**settings):
    """By two steps."""
    task = Asked()
    for index in range(2):
        state = tiny.state_of({}, optax.identity(), step=index)
        tiny.step(optax.identity(), task, **settings)(state, {}, tiny.batch(size=16), jax.random.key(0))
    return task


def test_stratified_times_are_one_in_each_interval_and_new_at_every_step():
    first, second = (np.asarray(t) for t in asked(stratified_times=True).times)
    for t in (first, second):
        np.testing.assert_array_equal(np.sort(np.floor(t * 16)), np.arange(16))
    assert (np.abs(first - second) > 1e-3).all()


def test_times_are_drawn_from_the_examples_keys_and_new_at_every_step():
    task = asked()
    for keys, t in zip(task.keys, task.times, strict=True):
        np.testing.assert_array_equal(t, draw_times(keys))
        # One by one: an example's time is the same in every batch.
        np.testing.assert_array_equal(t[3:4], draw_times(keys[3:4]))
    first, second = task.times
    assert (first != second).all()


class OfImage:
    """A task whose loss is the image's first number."""

    def loss(self, trainable, frozen, batch, keys, t):
        return batch["image"][:, 0, 0, 0] * trainable["one"]


@pytest.mark.parametrize("accumulate_steps", [1, 2])
def test_losses_are_summed_by_noise_level(accumulate_steps):
    t = np.array([0.0, 0.19, 0.2, 0.5, 0.95, 1.0, 0.99, 0.81], np.float32)

    batch = {"image": np.arange(8.0, dtype=np.float32)[:, None, None, None]}
    step = tiny.step(optax.identity(), OfImage(), accumulate_steps=accumulate_steps)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("imagen_jax.training.step.draw_times", lambda keys: jnp.asarray(t))
        state = tiny.state_of({"one": np.ones((), np.float32)}, optax.identity())
        _, metrics = step(state, {}, batch, jax.random.key(0))
    np.testing.assert_allclose(metrics["level_counts"], [2, 1, 1, 0, 4])
    np.testing.assert_allclose(metrics["level_losses"], [0 + 1, 2, 3, 0, 4 + 5 + 6 + 7])
    assert float(metrics["loss"]) == 3.5


def test_the_learning_rate_is_that_of_the_update_and_a_skipped_step_is_none():
    schedule = optax.linear_schedule(0.0, 1.0, 10)
    optimizer = optax.adam(schedule)

    step = tiny.step(optimizer, OfImage(), learning_rate=schedule)
    state, rates = tiny.state_of({"one": np.ones((), np.float32)}, optimizer), []
    for value in (1.0, np.inf, 1.0):
        batch = {"image": np.full((4, 1, 1, 1), value, np.float32)}
        state, metrics = step(state, {}, batch, jax.random.key(0))
        rates.append(float(metrics["learning_rate"]))
    np.testing.assert_allclose(rates, [0.0, 0.1, 0.1], rtol=1e-5)


# test_parallel has the other numbers of parts, with a smaller network.
def test_in_two_parts_the_network_learns_the_same(jitted):
    in_parts = jax.jit(tiny.step(accumulate_steps=2))
    whole, metrics = jitted(tiny.state(), tiny.batch(), jax.random.key(0))
    parts, metrics_of_parts = in_parts(tiny.state(), {}, tiny.batch(), jax.random.key(0))
    for name, value in metrics.items():
        np.testing.assert_allclose(metrics_of_parts[name], value, rtol=1e-4)
    # Adam's first step is 1e-3 times the gradient's sign: one that is tiny may change it.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), parts.params, whole.params)


def test_metrics_tell_the_size_of_gradient_parameters_and_update(jitted):
    _, metrics = jitted(tiny.state(), tiny.batch(), jax.random.key(0))
    names = {"loss", "grad_norm", "param_norm", "update_norm", "skipped_in_row"}
    assert set(metrics) == names | {"level_losses", "level_counts"}
    assert all((float(metrics[name]) > 0) == (name != "skipped_in_row") for name in names)
    assert float(metrics["level_counts"].sum()) == tiny.BATCH
    np.testing.assert_allclose(metrics["level_losses"].sum() / tiny.BATCH, metrics["loss"], rtol=1e-5)


def test_a_step_that_is_not_finite_changes_nothing_but_the_counters(jitted):
    state, _ = jitted(tiny.state(), tiny.batch(), jax.random.key(0))
    bad = tiny.batch() | {"image": np.full_like(tiny.batch()["image"], np.inf)}
    skipped, metrics = jitted(state, bad, jax.random.key(0))
    assert not np.isfinite(metrics["loss"])
    assert (int(skipped.step), int(skipped.skipped_in_row), int(metrics["skipped_in_row"])) == (2, 1, 1)
    np.testing.assert_allclose(metrics["param_norm"], optax.tree.norm(state.params), rtol=1e-6)
    for part in ("params", "opt_state", "ema_params"):
        jax.tree.map(np.testing.assert_array_equal, getattr(skipped, part), getattr(state, part))
    again, _ = jitted(skipped, bad, jax.random.key(0))
    assert int(again.skipped_in_row) == 2
    better, _ = jitted(again, tiny.batch(), jax.random.key(0))
    assert int(better.skipped_in_row) == 0
