"""Running the pure train step on devices: strategies, which differ in where the state lies.

pmap: the state is replicated, and gradients are averaged over the mapped axis. zero1 (arXiv 1910.02054): optimizer
state and average are divided among the devices, of more than 32 among groups of 32. fsdp: parameters too, which are
gathered in the type that the network computes in. In that type zero1 and fsdp also sum gradients over the devices of
TPUs, as their compiler has it; pmap sums them in float32. Frozen parameters lie as the trainable ones do: whole on each
device with pmap and zero1, divided with fsdp.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from imagen_jax.registry import lookup
from imagen_jax.training.state import TrainState
from imagen_jax.training.step import Metrics, Placement
from imagen_jax.types import Batch, Params

AXIS = "batch"
_REPLICAS, _SHARDS = "replicas", "shards"
# More would save little (1/32 of the paper's base is 0.3 GB), and leave parts too thin to be read at full speed.
_MAX_SHARDS = 32
# Biases, norms, Adafactor's factored moments: all together a thousandth of a network, and each would be a collective.
# The last layer too, which is used in float32, and so must not be sent in another type.
_SMALL = 2**16

StepFn = Callable[[TrainState, Params, Batch, jax.Array], tuple[TrainState, Metrics]]
# `step.train_step` with all but state, frozen, batch, key and placement.
TrainStep = Callable[..., tuple[TrainState, Metrics]]


class Parallel(NamedTuple):
    """A train step on devices.

    Attributes:
      step: compiled; donates the state, so that the old one can't be used after the step.
      state_sharding: where the state must lie; a tree like it.
      frozen_sharding: where frozen parameters must lie; a tree like them.
      batch_sharding: where a batch must lie, of which each host gives its own part.
      device_axis: whether that part is [devices, B / devices, ...] instead of [B,...].
    """

    step: StepFn
    state_sharding: Any
    frozen_sharding: Any
    batch_sharding: NamedSharding
    device_axis: bool

    def whole(self, state: TrainState) -> TrainState:
        """The state as arrays of all hosts, without a copy: pmap leaves each host with arrays of its own."""

        def whole(leaf: jax.Array, sharding: NamedSharding) -> jax.Array:
            if not isinstance(leaf, jax.Array) or leaf.sharding.device_set == sharding.device_set:
                return leaf
            parts = [shard.data for shard in leaf.addressable_shards]
            return jax.make_array_from_single_device_arrays(leaf.shape, sharding, parts)

        return jax.tree.map(whole, state, self.state_sharding)


def parallelise(
    strategy: str, train_step: TrainStep, devices: Sequence[Any], state: Any, frozen: Params | None = None
) -> Parallel:
    """`train_step` by the strategy of this name, a key of `STRATEGIES`.

    Args:
      strategy: its name.
      train_step: `step.train_step` of a task.
      devices: that it runs on.
      state: its arrays, or their shapes.
      frozen: the frozen parameters, or their shapes; None: there are none.

    Raises:
      InputError: there is no such strategy.
    """
    return lookup(STRATEGIES, strategy, what="strategy")(train_step, devices, state, frozen or {})


def all_devices() -> list[Any]:
    """jax's devices of all hosts, each host's together, so that it holds a contiguous block of the batch."""
    return sorted(jax.devices(), key=lambda device: (device.process_index, device.id))


def replicate(tree: Any, devices: Sequence[Any]) -> Any:
    """Puts a tree on all devices as plain global arrays: no leading device axis, nothing to undo before saving."""
    return jax.device_put(tree, NamedSharding(_mesh(devices), P()))


def put_start(start: Params, devices: Sequence[Any]) -> Any:
    """Puts parameters that each host has as numpy arrays on all devices, of which each takes its own part."""
    mesh = _sharded_mesh(devices)

    def put(leaf: np.ndarray) -> jax.Array:
        return jax.make_array_from_callback(leaf.shape, _divide(mesh, leaf), lambda index: leaf[index])

    return jax.tree.map(put, start)


def _pmap(train_step: TrainStep, devices: Sequence[Any], state: Any, frozen: Any) -> Parallel:
    step = jax.pmap(
        partial(train_step, placement=Placement(axis_name=AXIS)),
        axis_name=AXIS,
        in_axes=(None, None, 0, None),
        out_axes=None,
        devices=devices,
        donate_argnums=(0,),
    )
    replicated = NamedSharding(_mesh(devices), P())
    # pmap takes from each host what is for its own devices.
    here = [device for device in devices if device.process_index == jax.process_index()]
    batch_sharding = NamedSharding(_mesh(here), P(AXIS))
    state_sharding, frozen_sharding = jax.tree.map(lambda _: replicated, (state, frozen))
    return Parallel(step, state_sharding, frozen_sharding, batch_sharding, device_axis=True)


def _sharded(train_step: TrainStep, devices: Sequence[Any], state: Any, frozen: Any, *, shard_params: bool) -> Parallel:
    """Under `jax.jit`: the compiler puts in the collectives that the shardings ask for."""
    mesh = _sharded_mesh(devices)
    whole: Any = NamedSharding(mesh, P())
    divided = partial(_divide, mesh)
    of_params: Any = divided if shard_params else lambda _: whole
    sharding = TrainState(
        step=whole,
        skipped_in_row=whole,
        params=jax.tree.map(of_params, state.params),
        opt_state=jax.tree.map(divided, state.opt_state),
        ema_params=jax.tree.map(divided, state.ema_params),
    )
    frozen_sharding = jax.tree.map(of_params, frozen)

    def gather(params: Any, compute_dtype: Any) -> Any:
        if shard_params:
            params = jax.tree.map(lambda leaf: _cast_kernel(compute_dtype, leaf, divided(leaf)), params)
        return jax.lax.with_sharding_constraint(params, whole)

    # Without gather and scatter the compiler may divide the computation of a convolution by its channels, which moves
    # activations, not weights, and takes more memory than it saves.
    scatter = partial(jax.lax.with_sharding_constraint, shardings=jax.tree.map(divided, state.params))
    # Before what becomes of the parameters is written to where the old ones lie: a collective can't write there, and
    # what it brought would be copied once more.
    place = partial(jax.lax.with_sharding_constraint, shardings=sharding.params)
    batch_sharding = NamedSharding(mesh, P((_REPLICAS, _SHARDS)))
    step = jax.jit(
        partial(train_step, placement=Placement(gather=gather, scatter=scatter, place=place)),
        in_shardings=(sharding, frozen_sharding, batch_sharding, whole),
        out_shardings=(sharding, whole),
        donate_argnums=(0,),
    )
    return Parallel(step, sharding, frozen_sharding, batch_sharding, device_axis=False)


def _divide(mesh: Mesh, leaf: Any) -> NamedSharding:
    """Among the shards along one axis; an array that is small, or has no axis that they divide, stays whole."""
    shards = mesh.shape[_SHARDS]
    axes = [axis for axis, size in enumerate(leaf.shape) if size % shards == 0]
    if not axes or leaf.size < _SMALL:
        return NamedSharding(mesh, P())
    # A kernel's input channels, if possible: a TPU keeps 8 x 128 numbers of the two last axes together, and would fill
    # up and shift the parts of a last axis that is cut into fewer.
    axis = leaf.ndim - 2 if leaf.ndim - 2 in axes else max(axes, key=lambda axis: leaf.shape[axis])
    return NamedSharding(mesh, P(*[_SHARDS if other == axis else None for other in range(leaf.ndim)]))


def _cast_kernel(compute_dtype: Any, leaf: jax.Array, sharding: NamedSharding) -> jax.Array:
    """A kernel that is divided, in `compute_dtype` and as divided as before; anything else as it is."""
    if leaf.ndim == 1 or not any(sharding.spec):
        return leaf
    # Without the sharding the compiler would gather first, and cast then.
    return jax.lax.with_sharding_constraint(leaf.astype(compute_dtype), sharding)


def _mesh(devices: Sequence[Any]) -> Mesh:
    return Mesh(np.array(devices), (AXIS,))


def _sharded_mesh(devices: Sequence[Any]) -> Mesh:
    shards = max(n for n in range(1, _MAX_SHARDS + 1) if len(devices) % n == 0)
    return Mesh(np.array(devices).reshape(-1, shards), (_REPLICAS, _SHARDS))


STRATEGIES: Mapping[str, Callable[[TrainStep, Sequence[Any], Any, Any], Parallel]] = {
    "pmap": _pmap,
    "zero1": partial(_sharded, shard_params=False),
    "fsdp": partial(_sharded, shard_params=True),
}
