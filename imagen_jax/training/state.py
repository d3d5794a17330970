"""The training state, and the table that describes it."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax import struct
from flax.traverse_util import flatten_dict

from imagen_jax.types import Params


class TrainState(struct.PyTreeNode):
    """All that a step changes.

    Attributes:
      step: int32 scalar, the number of steps done, skipped ones included.
      skipped_in_row: int32 scalar, how many of the last steps were skipped, because they were not finite.
      params: float32.
      opt_state: the optimizer's.
      ema_params: float32, the average that is sampled from and exported.
    """

    step: jax.Array
    skipped_in_row: jax.Array
    params: Params
    opt_state: Any
    ema_params: Params


def create_state(
    model: nn.Module, optimizer: optax.GradientTransformation, key: jax.Array, shapes: Mapping[str, Any]
) -> TrainState:
    """A fresh state. Works under `jax.eval_shape`, which costs no memory: shapes of a 2B network in a second.

    Args:
      shapes: of what the network is called with (`conditions.inputs.network_shapes`).
    """
    inputs = jax.tree.map(lambda array: jnp.zeros(array.shape, array.dtype), dict(shapes))
    params = model.init(key, **inputs)["params"]
    return TrainState(
        step=jnp.int32(0),
        skipped_in_row=jnp.int32(0),
        params=params,
        opt_state=optimizer.init(params),
        # A copy, because a step donates both.
        ema_params=jax.tree.map(jnp.copy, params),
    )


def count_parameters(params: Params) -> int:
    """Number of scalars in a tree of arrays or shapes."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def parameter_table(params: Params) -> str:
    """One line an array: path, shape, count; and the total."""
    flat: dict[tuple[str, ...], Any] = flatten_dict(dict(params))
    rows = [
        ("/".join(path), "x".join(map(str, leaf.shape)) or "scalar", f"{leaf.size:,}") for path, leaf in flat.items()
    ]
    rows.append(("total", "", f"{count_parameters(params):,}"))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(f"{a:<{widths[0]}}  {b:>{widths[1]}}  {c:>{widths[2]}}" for a, b, c in rows)
