"""Running the pure train step on devices, of `jax.local_devices()`: data-parallel under `jax.pmap`."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from imagen_jax.training.state import TrainState
from imagen_jax.training.step import Metrics
from imagen_jax.types import Batch

AXIS = "batch"
StepFn = Callable[[TrainState, Batch, jax.Array], tuple[TrainState, Metrics]]


def replicate(tree: Any, devices: Sequence[Any]) -> Any:
    """Puts a tree on all devices as plain global arrays: no leading device axis, nothing to undo before saving."""
    return jax.device_put(tree, NamedSharding(Mesh(np.array(devices), (AXIS,)), PartitionSpec()))


def pmap_step(train_step: Callable[..., tuple[TrainState, Metrics]], devices: Sequence[Any]) -> StepFn:
    """`train_step` under pmap: state, key and results are replicated, the batch is [devices, B, ...].

    The state is donated: the old one can't be used after the step.
    """
    return jax.pmap(
        partial(train_step, axis_name=AXIS),
        axis_name=AXIS,
        in_axes=(None, 0, None),
        out_axes=None,
        devices=devices,
        donate_argnums=(0,),
    )
