"""The pure train step: (state, frozen parameters, batch, key) -> state, metrics. `parallel` runs it on devices."""

import dataclasses
from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
import optax

from imagen_jax.conditions.keys import training_keys
from imagen_jax.diffusion import objective
from imagen_jax.training import ema
from imagen_jax.training.state import TrainState
from imagen_jax.training.tasks import Task
from imagen_jax.types import Batch, Params

Metrics = dict[str, jax.Array]

# Losses are averaged by noise level too: t in [0, 0.2), [0.2, 0.4) ... [0.8, 1].
NUM_LEVELS = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepSettings:
    """How a step computes.

    Attributes:
      ema_decay: of the average of the parameters.
      learning_rate: of the optimizer, by the number of its updates; only to be reported.
      stratified_times: spread the times evenly over the global batch (`objective.stratified_times`), instead of drawing
        each by itself.
      accumulate_steps: compute the gradient in so many equal parts of B, one after the other, and average them: the
        activations of one part at a time, for one update.
      unroll: write the parts out instead of looping over them. For CPUs, where gradients of convolutions inside a loop
        are 7 to 29 times slower; but there XLA keeps the activations of all parts, and no memory is saved.
      compute_dtype: what the network casts its large kernels to before it uses them.
    """

    ema_decay: float
    learning_rate: optax.Schedule | None = None
    stratified_times: bool = False
    accumulate_steps: int = 1
    unroll: bool = False
    compute_dtype: Any = jnp.float32


@dataclasses.dataclass(frozen=True, kw_only=True)
class Placement:
    """Where a step's arrays lie, which a strategy of `parallel` says. The default: all on one device.

    Attributes:
      axis_name: the mapped axis over which losses and gradients are averaged; None: there is none.
      gather: of parameters before they are used, in their own type or the one given.
      scatter: of gradients, and of parameters before the update.
      place: of the updated parameters.
    """

    axis_name: str | None = None
    gather: Callable[[Params, Any], Params] = lambda params, compute_dtype: params
    scatter: Callable[[Params], Params] = lambda grads: grads
    place: Callable[[Params], Params] = lambda params: params


def draw_times(keys: jax.Array) -> jax.Array:
    """Draws the time [B] of each example, uniform in [0, 1], from the examples' keys [B]."""
    return objective.draw_times(training_keys(keys, "loss"))


def train_step(
    state: TrainState,
    frozen: Params,
    batch: Batch,
    key: jax.Array,
    *,
    task: Task,
    optimizer: optax.GradientTransformation,
    settings: StepSettings,
    placement: Placement = Placement(),
) -> tuple[TrainState, Metrics]:
    """One step on this device's share of the batch.

    Randomness comes from (key, step, index in the global batch), so that it is the same for every number of devices and
    of parts.

    Args:
      state: the same on all devices.
      frozen: parameters that the loss needs besides the state's; {}: none.
      batch: arrays [B,...], this device's share.
      key: the run's key, the same at every step.
      task: what is learned.
      optimizer: makes updates of gradients.
      settings: how the step computes.
      placement: where its arrays lie.

    Returns:
      The new state, and scalars: loss, grad_norm, param_norm, update_norm, learning_rate (if given), float32;
      skipped_in_row, int32; and [NUM_LEVELS] float32: level_losses, the sum of losses by noise level, and level_counts,
      of how many examples (both over the number of devices). Where the loss or the gradient's norm is not finite,
      parameters, optimizer and average stay what they are.
    """
    axis_name = placement.axis_name
    local_size = batch["image"].shape[0]
    first, batch_size = 0, local_size
    if axis_name is not None:
        first = jax.lax.axis_index(axis_name) * local_size
        batch_size = jax.lax.axis_size(axis_name) * local_size
    index = first + jnp.arange(local_size)
    step_key = jax.random.fold_in(key, state.step)
    keys = jax.vmap(lambda index: jax.random.fold_in(step_key, index))(index)
    if settings.stratified_times:
        # Folded with the index after the last example's, whose key is nobody's.
        t = objective.stratified_times(jax.random.fold_in(step_key, batch_size), index=index, batch_size=batch_size)
    else:
        t = draw_times(keys)

    frozen = placement.gather(frozen, settings.compute_dtype)
    (loss, levels), grads = _mean_loss_and_gradient(
        lambda params, *part: task.loss(params, frozen, *part),
        placement.gather(state.params, settings.compute_dtype),
        (batch, keys, t),
        num_parts=settings.accumulate_steps,
        unroll=settings.unroll,
    )
    if axis_name is not None:
        loss, levels, grads = jax.lax.pmean((loss, levels, grads), axis_name)
    # The update reads and writes each number many times over: of its own part of the parameters alone.
    grads, own_params = placement.scatter(grads), placement.scatter(state.params)
    grads = jax.tree.map(lambda grad, param: grad.astype(param.dtype), grads, own_params)
    updates, opt_state = optimizer.update(grads, state.opt_state, own_params)
    params = cast(Params, optax.apply_updates(own_params, updates))
    ema_params = ema.update(state.ema_params, params, step=state.step, decay=settings.ema_decay)
    grad_norm = optax.tree.norm(grads)
    ok = jnp.isfinite(loss) & jnp.isfinite(grad_norm)

    def keep(new: Any, old: Any) -> Any:
        """A step that isn't finite changes nothing but the counters."""
        return jax.tree.map(lambda new, old: jnp.where(ok, new, old), new, old)

    new_state = TrainState(
        step=state.step + 1,
        skipped_in_row=jnp.where(ok, 0, state.skipped_in_row + 1),
        params=keep(placement.place(params), state.params),
        opt_state=keep(opt_state, state.opt_state),
        ema_params=keep(ema_params, state.ema_params),
    )
    metrics = {
        "loss": loss,
        "level_losses": levels[0],
        "level_counts": levels[1],
        "grad_norm": grad_norm,
        # Of what is written anyway: for the norm of anything else pmap would read all parameters once more.
        "param_norm": optax.tree.norm(keep(params, own_params)),
        "update_norm": optax.tree.norm(updates),
        "skipped_in_row": new_state.skipped_in_row,
    }
    if settings.learning_rate is not None:
        # The optimizer's own count: a skipped step is none of its updates.
        _, num_updates = optax.tree_utils.tree_get_all_with_path(state.opt_state, "count")[0]
        metrics["learning_rate"] = jnp.asarray(settings.learning_rate(num_updates), jnp.float32)
    return new_state, metrics


def _mean_loss_and_gradient(
    loss_fn: Callable[..., jax.Array], params: Params, examples: Any, *, num_parts: int, unroll: bool
) -> tuple[tuple[jax.Array, jax.Array], Params]:
    """The mean loss of `examples`, arguments [B,...] of `loss_fn` after `params`, and its gradient, in parts.

    Returns:
      (loss, sums and counts by noise level [2, NUM_LEVELS]), gradient.
    """

    def mean_loss(params: Params, part: Any) -> tuple[jax.Array, jax.Array]:
        losses = loss_fn(params, *part)
        return jnp.mean(losses), _by_level(losses, part[2])

    value_and_grad = jax.value_and_grad(mean_loss, has_aux=True)
    if num_parts == 1:
        return value_and_grad(params, examples)
    # B / num_parts is whole: `config.validate` checks it. Every num_parts-th example is in a part, so that each device
    # has an equal share of all parts where the batch is divided among devices.
    parts = jax.tree.map(lambda x: x.reshape(-1, num_parts, *x.shape[1:]).swapaxes(0, 1), examples)

    def add(total: Any, part: Any) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, value_and_grad(params, part)), None

    # In float32, in whatever type the parameters, and so the gradients of a part, were gathered.
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.float32), params)
    nothing = (jnp.float32(0), jnp.zeros((2, NUM_LEVELS), jnp.float32))
    ((loss, levels), grads), _ = jax.lax.scan(add, (nothing, zeros), parts, unroll=num_parts if unroll else 1)
    loss, grads = jax.tree.map(lambda x: x / num_parts, (loss, grads))
    return (loss, levels), grads


def _by_level(losses: jax.Array, t: jax.Array) -> jax.Array:
    """Sums of `losses` [B] by noise level, and how many there were: [2, NUM_LEVELS] float32. Not differentiated."""
    level = jnp.minimum((t * NUM_LEVELS).astype(jnp.int32), NUM_LEVELS - 1)
    is_of = jax.nn.one_hot(level, NUM_LEVELS)
    losses = jax.lax.stop_gradient(losses)[:, None]
    # Not a product: infinity times 0 would be no number in all levels.
    return jnp.stack([jnp.sum(jnp.where(is_of > 0, losses, 0.0), axis=0), jnp.sum(is_of, axis=0)])
