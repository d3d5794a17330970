"""Optimizers and learning rates of the paper: Adafactor or Adam, warm-up and cosine decay."""

from collections.abc import Callable, Mapping

import optax

from imagen_jax.registry import lookup

# learning rate schedule, b1, b2 -> transformation. Adafactor with optax's defaults (Imagen F.1) has no b1 and b2.
OPTIMIZERS: Mapping[str, Callable[[optax.Schedule, float, float], optax.GradientTransformation]] = {
    "adam": lambda learning_rate, b1, b2: optax.adam(learning_rate, b1=b1, b2=b2),
    "adafactor": lambda learning_rate, b1, b2: optax.adafactor(learning_rate),
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
) -> optax.GradientTransformation:
    """Clips the gradient's global norm to `grad_clip_norm` (0: no clipping), then the optimizer called `name`.

    Raises:
      InputError: `name` is not in `OPTIMIZERS`.
    """
    schedule = learning_rate_schedule(learning_rate, warmup_steps=warmup_steps, decay_steps=decay_steps)
    optimizer = lookup(OPTIMIZERS, name, what="optimizer")(schedule, b1, b2)
    # The same state with and without clipping, so that a run can go on with another value.
    clip = optax.clip_by_global_norm(grad_clip_norm) if grad_clip_norm else optax.identity()
    return optax.chain(clip, optimizer)
