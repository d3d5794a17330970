"""The training loss per example: draw t and noise, predict, weight."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from imagen_jax.diffusion import gaussian
from imagen_jax.diffusion.schedules import Schedule
from imagen_jax.registry import lookup
from imagen_jax.types import DenoiseFn

# Weights of the squared error of x_hat, as functions of logsnr [B]. In eps space a weight of 1 is SNR in x space, since
# eps_hat - eps = -(alpha / sigma) (x_hat - x); in v space it is SNR + 1.
WEIGHTINGS: Mapping[str, Callable[[jax.Array], jax.Array]] = {
    # Plain squared error of eps: DDPM's simple loss, and Imagen's.
    "eps": lambda logsnr: jnp.exp(logsnr),
    # Plain squared error of v (Salimans & Ho, arXiv 2202.00512: "SNR + 1").
    "v": lambda logsnr: jnp.exp(logsnr) + 1.0,
    # Plain squared error of x.
    "x": lambda logsnr: jnp.ones_like(logsnr),
    # min(SNR, 5) in x space (Hang et al., arXiv 2303.09556, with its recommended gamma).
    "min_snr": lambda logsnr: jnp.minimum(jnp.exp(logsnr), 5.0),
}


# x, eps [B,...], logsnr [B] -> what the network should put out.
TARGETS: Mapping[str, Callable[[jax.Array, jax.Array, jax.Array], jax.Array]] = {
    "eps": lambda x, eps, logsnr: eps,
    "v": lambda x, eps, logsnr: gaussian.v_from_x_eps(x=x, eps=eps, logsnr=logsnr),
    "x": lambda x, eps, logsnr: x,
}


def diffusion_loss(
    network: DenoiseFn,
    image: jax.Array,
    *,
    keys: jax.Array,
    schedule: Schedule,
    prediction: str,
    weighting: str,
) -> jax.Array:
    """E over t ~ U(0, 1) and eps of weight(logsnr_t) * mean((x_hat - x)^2), one draw an example.

    The error is taken where the network's output lives (eps, v or x), and the weight is divided by the factor that
    the change of space brings, so that "eps" with eps prediction is exactly mean((eps_hat - eps)^2), without the
    overflow of exp(logsnr) at the clean end.

    Args:
      network: (z [B,...], logsnr [B]) -> output [B,...].
      image: [B,...] float32 in [-1, 1].
      keys: [B] PRNG keys, one an example, so that the draw does not depend on how the batch is sharded.
      schedule: t -> logsnr.
      prediction: a key of `TARGETS`.
      weighting: a key of `WEIGHTINGS`.

    Returns:
      loss [B] float32.

    Raises:
      InputError: an unknown prediction type or weighting.
    """
    t_keys, eps_keys = jax.vmap(jax.random.split, out_axes=1)(keys)
    t = jax.vmap(lambda key: jax.random.uniform(key))(t_keys)
    eps = jax.vmap(lambda key: jax.random.normal(key, image.shape[1:]))(eps_keys)
    logsnr = schedule(t)
    z = gaussian.diffuse(x=image, eps=eps, logsnr=logsnr)
    output = network(z, logsnr).astype(jnp.float32)
    target = lookup(TARGETS, prediction, what="prediction type")(image, eps, logsnr)
    squared_error = jnp.mean(jnp.square(output - target), axis=tuple(range(1, image.ndim)))
    return relative_weight(logsnr, weighting=weighting, prediction=prediction) * squared_error


def relative_weight(logsnr: jax.Array, *, weighting: str, prediction: str) -> jax.Array:
    """weight(logsnr) / (the weight that plain squared error in the prediction's own space stands for). [B] -> [B]."""
    if weighting == prediction:
        return jnp.ones_like(logsnr)
    weight = lookup(WEIGHTINGS, weighting, what="loss weighting")(logsnr)
    return weight / lookup(WEIGHTINGS, prediction, what="prediction type")(logsnr)
