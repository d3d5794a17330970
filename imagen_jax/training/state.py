"""The training state, and the table that describes it."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct
from flax.traverse_util import flatten_dict

from imagen_jax.training.tasks import Task
from imagen_jax.types import Params


class TrainState(struct.PyTreeNode):
    """All that a step changes.

    Attributes:
      step: int32 scalar, the number of steps done, skipped ones included.
      skipped_in_row: int32 scalar, how many of the last steps were skipped, because they were not finite.
      params: float32, the trainable ones.
      opt_state: the optimizer's.
      ema_params: float32, the average of `params`: what is sampled from and exported, with the frozen ones.
    """

    step: jax.Array
    skipped_in_row: jax.Array
    params: Params
    opt_state: Any
    ema_params: Params


class Frozen(NamedTuple):
    """The parameters that a step reads and doesn't change.

    Attributes:
      params: float32, on the devices; {} where all are trained.
      origin: the folder that they were read from.
    """

    params: Params
    origin: str


NOTHING_FROZEN = Frozen({}, "")


def create_state(
    task: Task, optimizer: optax.GradientTransformation, key: jax.Array, start: Params | None = None
) -> tuple[TrainState, Params]:
    """Makes a fresh state, and the frozen parameters.

    Works under `jax.eval_shape`, which costs no memory: shapes of a 2B network in a second.

    Args:
      task: what is learned.
      optimizer: what the state is for.
      key, start: see `Task.init`.
    """
    params, frozen = task.init(key, start)
    state = TrainState(
        step=jnp.int32(0),
        skipped_in_row=jnp.int32(0),
        params=params,
        opt_state=optimizer.init(params),
        # A copy, because a step donates both.
        ema_params=jax.tree.map(jnp.copy, params),
    )
    return state, frozen


def count_parameters(params: Params) -> int:
    """Number of scalars in a tree of arrays or shapes."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def parameter_table(trainable: Params, frozen: Params) -> str:
    """Returns a line for each array, with its path, shape and count, and whether it is frozen; and the totals."""
    parts = [(flatten_dict(dict(tree), sep="/"), mark) for tree, mark in ((trainable, ""), (frozen, "frozen"))]
    flat: dict[str, tuple[Any, str]] = {path: (leaf, mark) for part, mark in parts for path, leaf in part.items()}
    rows = [
        (path, "x".join(map(str, leaf.shape)) or "scalar", f"{leaf.size:,}", mark)
        for path, (leaf, mark) in sorted(flat.items())
    ]
    counts = count_parameters(trainable), count_parameters(frozen)
    rows.append(("total", "", f"{sum(counts):,}", ""))
    if frozen:
        rows += [(name, "", f"{count:,}", "") for name, count in zip(("trained", "frozen"), counts, strict=True)]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = (f"{a:<{widths[0]}}  {b:>{widths[1]}}  {c:>{widths[2]}}  {mark}" for a, b, c, mark in rows)
    return "\n".join(line.rstrip() for line in lines)
