from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh

from imagen_jax.diffusion.objective import diffusion_loss
from imagen_jax.diffusion.schedules import cosine
from imagen_jax.errors import InputError
from imagen_jax.planning.collectives import count_collectives
from imagen_jax.training import parallel
from imagen_jax.training.selection import select
from tests.training import tiny


def run(
    strategy: str,
    num_devices: int,
    num_steps: int = 10,
    dtype: Any = jnp.float32,
    accumulate_steps: int = 1,
    trainable: Any = ("*",),
):
    """State, losses and frozen parameters after some steps."""
    devices, optimizer = jax.devices()[:num_devices], tiny.sgd()
    params, frozen = select(tiny.state().params, trainable)
    state = tiny.state_of(params, optimizer)
    task = tiny.task(tiny.MODEL.clone(dtype=dtype), trainable=trainable)
    step = tiny.step(optimizer, task, compute_dtype=dtype, accumulate_steps=accumulate_steps, unroll=True)
    on_devices = parallel.parallelise(strategy, step, devices, state, frozen)
    state = jax.device_put(state, on_devices.state_sharding)
    frozen = jax.device_put(frozen, on_devices.frozen_sharding)
    losses = []
    for index in range(num_steps):
        batch = tiny.batch(index)
        if on_devices.device_axis:
            batch = {name: value.reshape(num_devices, -1, *value.shape[1:]) for name, value in batch.items()}
        state, metrics = on_devices.step(state, frozen, batch, jax.random.key(1))
        losses.append(float(metrics["loss"]))
    return state, losses, frozen


@pytest.fixture(scope="module")
def on_one():
    return run("pmap", 1)


@pytest.fixture(scope="module")
def on_eight():
    """By strategy, of which each divides what it may, however small."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parallel, "_SMALL", 0)
        return {strategy: run(strategy, 8) for strategy in parallel.STRATEGIES}


@pytest.mark.parametrize("strategy", parallel.STRATEGIES)
def test_eight_devices_train_as_one_does(on_one, on_eight, strategy):
    state, losses, _ = on_eight[strategy]
    np.testing.assert_allclose(losses, on_one[1], rtol=1e-5)
    for part in ("params", "ema_params"):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
            jax.device_get(getattr(state, part)),
            jax.device_get(getattr(on_one[0], part)),
        )


def test_casting_kernels_before_they_are_gathered_changes_nothing(monkeypatch):
    # On one device, where sums are in one order. All kernels but the last layer's, which the network uses in float32;
    # in two parts, whose gradients are summed in float32.
    monkeypatch.setattr(parallel, "_SMALL", 1 + tiny.state().params["conv_out"]["kernel"].size)
    settings: Any = {"num_devices": 1, "num_steps": 3, "dtype": jnp.bfloat16, "accumulate_steps": 2}
    replicated, losses, _ = run("pmap", **settings)
    divided, same_losses, _ = run("fsdp", **settings)
    np.testing.assert_allclose(same_losses, losses, rtol=1e-6)
    for part in ("params", "ema_params"):
        a, b = (jax.device_get(getattr(state, part)) for state in (divided, replicated))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), a, b)


@pytest.mark.parametrize(("strategy", "share"), [("pmap", 1.0), ("zero1", 1.0), ("fsdp", 1 / 8)])
def test_frozen_parameters_stay_what_they_are_and_are_divided_as_the_others_are(strategy, share, monkeypatch):
    monkeypatch.setattr(parallel, "_SMALL", 0)
    settings: Any = {"num_steps": 3, "trainable": ("*attention*",)}
    alone, losses, before = run("pmap", 1, **settings)
    state, same_losses, frozen = run(strategy, 8, **settings)
    np.testing.assert_allclose(same_losses, losses, rtol=1e-5)
    close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    jax.tree.map(close, jax.device_get(state.ema_params), jax.device_get(alone.ema_params))
    trained, fixed = select(tiny.state().params, settings["trainable"])
    for tree in (before, frozen):
        jax.tree.map(np.testing.assert_array_equal, jax.device_get(tree), fixed)
    for tree in (state.params, state.ema_params, alone.params):
        assert jax.tree.structure(tree) == jax.tree.structure(trained)
        assert all(jax.tree.leaves(jax.tree.map(lambda a, b: bool(np.any(a != b)), jax.device_get(tree), trained)))
    whole = sum(leaf.nbytes for leaf in jax.tree.leaves(frozen))
    assert share <= bytes_on_a_device(frozen) / whole < 1.2 * share


def test_what_a_training_begins_with_is_put_where_it_is_used():
    params = {"kernel": np.arange(2.0**18, dtype=np.float32).reshape(512, 512), "bias": np.ones(3, np.float32)}
    put = parallel.put_start(params, jax.devices())
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(put), params)
    assert bytes_on_a_device(put) == 2**20 // 8 + 12


def bytes_on_a_device(tree):
    return sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize(
    ("strategy", "divided"),
    [("pmap", ()), ("zero1", ("opt_state", "ema_params")), ("fsdp", ("opt_state", "ema_params", "params"))],
)
def test_a_device_holds_its_share_of_the_state(on_eight, strategy, divided):
    state, _, _ = on_eight[strategy]
    for part in ("opt_state", "ema_params", "params"):
        tree = getattr(state, part)
        share = bytes_on_a_device(tree) / sum(leaf.nbytes for leaf in jax.tree.leaves(tree))
        # What eight doesn't divide, such as the 3 colours' biases, stays whole.
        assert share == 1 if part not in divided else 1 / 8 <= share < 1.2 / 8


def test_many_devices_divide_the_state_in_groups(on_one, monkeypatch):
    monkeypatch.setattr(parallel, "_SMALL", 0)
    monkeypatch.setattr(parallel, "_MAX_SHARDS", 4)
    state, losses, _ = run("fsdp", 8)
    np.testing.assert_allclose(losses, on_one[1], rtol=1e-5)
    share = bytes_on_a_device(state.params) / sum(leaf.nbytes for leaf in jax.tree.leaves(state.params))
    assert 1 / 4 <= share < 1.2 / 4


@pytest.mark.parametrize(
    ("shape", "divided"),
    [
        ((3, 3, 512, 1024), (None, None, "shards", None)),  # a convolution, by its input channels
        ((4096, 512), ("shards", None)),
        ((3, 3, 3, 4096), (None, None, None, "shards")),  # of the image: its 3 colours can't be divided
        ((1 << 17,), ("shards",)),
        ((1024,), ()),  # small
        ((3, 3, 17, 997), ()),  # by nothing
    ],
)
def test_kernels_are_divided_by_their_input_channels(shape, divided):
    mesh = Mesh(np.array(jax.devices()).reshape(1, 8), ("replicas", "shards"))
    assert tuple(parallel._divide(mesh, jax.ShapeDtypeStruct(shape, jnp.float32)).spec) == divided


def test_an_unknown_strategy_is_refused():
    with pytest.raises(InputError, match="strategy"):
        parallel.parallelise("zero3", tiny.step(), jax.devices(), tiny.state())


class Linear:
    """A network of one 1x1 convolution: compiled at once."""

    def loss(self, trainable, frozen, batch, keys, t):
        def network(z, logsnr):
            return z @ trainable["kernel"] + trainable["bias"]

        return diffusion_loss(
            network, jnp.asarray(batch["image"]), keys=keys, t=t, schedule=cosine, prediction="v", weighting="edm"
        )


@cache
def run_linear(*, num_devices: int, accumulate_steps: int, unroll: bool = False, stratified_times: bool = False):
    """Parameters and losses of three steps of plain gradient descent: rounding stays as small as it is."""
    devices, optimizer = jax.devices()[:num_devices], optax.sgd(0.1)
    step = tiny.step(
        optimizer,
        Linear(),
        stratified_times=stratified_times,
        accumulate_steps=accumulate_steps,
        unroll=unroll,
    )
    params = {"kernel": np.eye(3, dtype=np.float32), "bias": np.zeros((1, 1, 1, 3), np.float32)}
    state = parallel.replicate(tiny.state_of(params, optimizer), devices)
    pmapped, losses = parallel.parallelise("pmap", step, devices, state).step, []
    for index in range(3):
        image = tiny.batch(index, size=32)["image"]
        state, metrics = pmapped(
            state, {}, {"image": image.reshape(num_devices, -1, *image.shape[1:])}, jax.random.key(1)
        )
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
    for state, _, _ in on_eight.values():
        shapes = jax.tree.map(lambda x: x.shape, state.params)
        assert shapes == jax.tree.map(lambda x: x.shape, jax.device_get(tiny.state().params))
        assert state.step.shape == ()
        assert int(state.step) == 10


def test_a_replicated_tree_is_whole_on_every_device():
    tree = parallel.replicate({"a": np.arange(3.0)}, jax.devices())
    assert len(tree["a"].addressable_shards) == 8
    assert all(shard.data.shape == (3,) for shard in tree["a"].addressable_shards)


@pytest.mark.parametrize("strategy", parallel.STRATEGIES)
def test_gradients_and_parameters_are_all_that_is_sent(strategy, monkeypatch):
    monkeypatch.setattr(parallel, "_SMALL", 0)
    state = tiny.state()
    on_devices = parallel.parallelise(strategy, tiny.step(), jax.devices(), state)
    batch = tiny.batch()
    if on_devices.device_axis:
        batch = {name: value.reshape(8, 1, *value.shape[1:]) for name, value in batch.items()}
    program = on_devices.step.lower(state, {}, batch, jax.random.key(0)).compile().as_text()  # pyright: ignore[reportFunctionMemberAccess]
    found = count_collectives(program)
    num_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(state.params))
    # Besides, the loss and the norms of what is divided; a CPU's compiler writes a reduce-scatter as an all-reduce.
    assert found.keys() == ({"all-reduce"} if strategy == "pmap" else {"all-reduce", "all-gather"})
    assert 0.99 * num_bytes < found["all-reduce"].num_bytes < 1.05 * num_bytes
    if strategy != "pmap":
        assert 0.99 * num_bytes < found["all-gather"].num_bytes <= num_bytes
