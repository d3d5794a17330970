"""Optimizers and learning rates: the paper's Adafactor and Adam, and AdamW; warm-up and cosine decay."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax

from imagen_jax.errors import InputError
from imagen_jax.registry import lookup


def _kernels(params: Any) -> Any:
    """True for the arrays that decay: of rank 2 and more, which biases and the scales of norms are not."""
    return jax.tree.map(lambda leaf: leaf.ndim >= 2, params)


# learning rate schedule, b1, b2, weight_decay -> transformation.
OPTIMIZERS: Mapping[str, Callable[[optax.Schedule, float, float, float], optax.GradientTransformation]] = {
    "adam": lambda learning_rate, b1, b2, weight_decay: optax.adam(learning_rate, b1=b1, b2=b2),
    # Loshchilov & Hutter, arXiv 1711.05101, with the decay multiplied by the learning rate, as optax and torch do.
    "adamw": lambda learning_rate, b1, b2, weight_decay: optax.adamw(
        learning_rate, b1=b1, b2=b2, weight_decay=weight_decay, mask=_kernels
    ),
    # With optax's defaults (Imagen F.1), which have no b1 and b2.
    "adafactor": lambda learning_rate, b1, b2, weight_decay: optax.adafactor(learning_rate),
}


def learning_rate_schedule(learning_rate: float, *, warmup_steps: int, decay_steps: int) -> optax.Schedule:
    """Linear warm-up from 0, then a cosine to 0 at step `decay_steps`; `decay_steps` 0: constant after the warm-up.

    Imagen, appendix F (whose `end_value=2500000` is read as the decay's length, with 0 at its end).
    """
    if decay_steps == 0:
        # optax's warm-up of no steps would stay at 0.
        constant = optax.schedules.constant_schedule(learning_rate)
        return optax.schedules.warmup_constant_schedule(0.0, learning_rate, warmup_steps) if warmup_steps else constant
    return optax.schedules.warmup_cosine_decay_schedule(0.0, learning_rate, warmup_steps, decay_steps, 0.0)


def make_optimizer(
    name: str,
    *,
    learning_rate: float,
    warmup_steps: int,
    decay_steps: int,
    grad_clip_norm: float,
    b1: float = 0.9,
    b2: float = 0.999,
    weight_decay: float = 0.0,
) -> optax.GradientTransformation:
    """Clips the gradient's global norm to `grad_clip_norm` (0: no clipping), then the optimizer called `name`.

    The state's structure depends on `name` alone, so that a run can go on with other values.

    Args:
      name: a key of `OPTIMIZERS`.
      learning_rate, warmup_steps, decay_steps: see `learning_rate_schedule`.
      b1, b2: of adam and adamw.
      weight_decay: of adamw: a step takes learning_rate * weight_decay of every kernel away.

    Raises:
      InputError: `name` is not in `OPTIMIZERS`, or has no use for the `weight_decay` given.
    """
    schedule = learning_rate_schedule(learning_rate, warmup_steps=warmup_steps, decay_steps=decay_steps)
    optimizer = lookup(OPTIMIZERS, name, what="optimizer")(schedule, b1, b2, weight_decay)
    if weight_decay and name != "adamw":
        raise InputError(f"weight_decay = {weight_decay} is for adamw; with {name} it must be 0")
    # The same state with and without clipping.
    clip = optax.clip_by_global_norm(grad_clip_norm) if grad_clip_norm else optax.identity()
    return optax.chain(clip, optimizer)
