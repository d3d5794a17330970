"""The pure train step: (state, batch, key) -> state, metrics. `parallel` runs it on devices."""

from collections.abc import Callable
from typing import cast

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from imagen_jax.diffusion import augment, guidance
from imagen_jax.diffusion.objective import diffusion_loss
from imagen_jax.diffusion.schedules import Schedule
from imagen_jax.training import ema
from imagen_jax.training.state import TrainState
from imagen_jax.types import Batch, Params

# (params, batch, keys [B]) -> loss [B]
LossFn = Callable[[Params, Batch, jax.Array], jax.Array]
Metrics = dict[str, jax.Array]


def make_loss_fn(
    model: nn.Module,
    *,
    schedule: Schedule,
    prediction: str,
    weighting: str,
    caption_drop_rate: float,
    max_aug_level: float,
) -> LossFn:
    """The loss of a stage: captions dropped per example, the low-resolution input (if any) noised at a random level.

    Args:
      model: a network of `models`, called as `UNet.__call__`.
      schedule, prediction, weighting: see `diffusion.objective.diffusion_loss`.
      caption_drop_rate: share of examples that see the null text (Imagen: 0.1).
      max_aug_level: aug_level ~ U(0, max_aug_level) (Imagen: 1).
    """

    def loss_fn(params: Params, batch: Batch, keys: jax.Array) -> jax.Array:
        drop_keys, level_keys, aug_keys, loss_keys = jax.vmap(lambda key: jax.random.split(key, 4), out_axes=1)(keys)
        image = jnp.asarray(batch["image"])
        drop = jax.vmap(lambda key: jax.random.bernoulli(key, caption_drop_rate))(drop_keys)
        text_emb, text_mask = guidance.drop_text(
            jnp.asarray(batch["text_emb"]), jnp.asarray(batch["text_mask"]), drop=drop
        )
        low_res, aug_logsnr = None, None
        if "low_res" in batch:
            aug_level = max_aug_level * jax.vmap(lambda key: jax.random.uniform(key))(level_keys)
            aug_logsnr = augment.aug_logsnr_from_level(aug_level)
            _, height, width, _ = image.shape
            low_res = augment.augment(
                jnp.asarray(batch["low_res"]), size=(height, width), aug_logsnr=aug_logsnr, keys=aug_keys
            )

        def network(z: jax.Array, logsnr: jax.Array) -> jax.Array:
            output = model.apply(
                {"params": params},
                z,
                logsnr,
                text_emb=text_emb,
                text_mask=text_mask,
                low_res=low_res,
                aug_logsnr=aug_logsnr,
            )
            return cast(jax.Array, output)

        return diffusion_loss(
            network, image, keys=loss_keys, schedule=schedule, prediction=prediction, weighting=weighting
        )

    return loss_fn


def train_step(
    state: TrainState,
    batch: Batch,
    key: jax.Array,
    *,
    loss_fn: LossFn,
    optimizer: optax.GradientTransformation,
    ema_decay: float,
    axis_name: str | None,
) -> tuple[TrainState, Metrics]:
    """One step on this device's share of the batch.

    Randomness comes from (key, step, index in the global batch), so that it is the same for every number of devices.

    Args:
      state: the same on all devices.
      batch: arrays [B,...], this device's share.
      key: the run's key, the same at every step.
      axis_name: the mapped axis over which losses and gradients are averaged; None on a single device.

    Returns:
      The new state, and float32 scalars: loss, grad_norm, param_norm, update_norm.
    """
    local_size = batch["image"].shape[0]
    first = 0 if axis_name is None else jax.lax.axis_index(axis_name) * local_size
    step_key = jax.random.fold_in(key, state.step)
    keys = jax.vmap(lambda index: jax.random.fold_in(step_key, index))(first + jnp.arange(local_size))

    def mean_loss(params: Params) -> jax.Array:
        return jnp.mean(loss_fn(params, batch, keys))

    loss, grads = jax.value_and_grad(mean_loss)(state.params)
    if axis_name is not None:
        loss, grads = jax.lax.pmean((loss, grads), axis_name)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = cast(Params, optax.apply_updates(state.params, updates))
    metrics = {
        "loss": loss,
        "grad_norm": optax.tree.norm(grads),
        "param_norm": optax.tree.norm(params),
        "update_norm": optax.tree.norm(updates),
    }
    ema_params = ema.update(state.ema_params, params, step=state.step, decay=ema_decay)
    return TrainState(step=state.step + 1, params=params, opt_state=opt_state, ema_params=ema_params), metrics
