"""The training loss per example: draw t and noise, predict, weight."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from imagen_jax.diffusion import gaussian
from imagen_jax.diffusion.schedules import Schedule
from imagen_jax.registry import lookup
from imagen_jax.types import NetworkFn

# logsnr [B] -> [B]: log of the weight of x_hat's squared error that plain squared error in each space stands for, since
# eps_hat - eps = -(alpha / sigma) (x_hat - x), and v's is SNR + 1 (Salimans & Ho, arXiv 2202.00512).
PLAIN: Mapping[str, Callable[[jax.Array], jax.Array]] = {
    "eps": lambda logsnr: logsnr,
    "v": jax.nn.softplus,
    "x": jnp.zeros_like,
}

# EDM (Karras et al., arXiv 2206.00364), table 1: of the data, and of ln sigma's normal density while training.
_EDM_SIGMA_DATA, _EDM_MEAN, _EDM_STD = 0.5, -1.2, 1.2


def _edm(logsnr: jax.Array, speed: jax.Array) -> jax.Array:
    """Log of (sigma^2 + sigma_data^2) / (sigma sigma_data)^2 * N(logsnr) / p(logsnr), with sigma = exp(-logsnr / 2).

    EDM draws the noise level from N; here t ~ U(0, 1) draws it with the schedule's density p = 1 / speed. The ratio of
    the two makes the expected loss EDM's, whatever the schedule (Kingma & Gao, arXiv 2303.00848).
    """
    mean, std = -2.0 * _EDM_MEAN, 2.0 * _EDM_STD  # of logsnr = -2 ln sigma
    return (
        jnp.logaddexp(logsnr, -2.0 * jnp.log(_EDM_SIGMA_DATA))  # 1 / sigma^2 + 1 / sigma_data^2
        + jax.scipy.stats.norm.logpdf(logsnr, mean, std)
        + jnp.log(speed)
    )


# logsnr, speed = -dlogsnr / dt, PLAIN of the prediction, all [B] -> log of the weight of x_hat's squared error [B].
# Logs, because SNR itself overflows float32 beyond a logsnr of 88.
WEIGHTINGS: Mapping[str, Callable[[jax.Array, jax.Array, jax.Array], jax.Array]] = {
    # Plain squared error of the prediction, whatever it is.
    "plain": lambda logsnr, speed, plain: plain,
    # Plain squared error of eps: DDPM's simple loss, and Imagen's.
    "eps": lambda logsnr, speed, plain: PLAIN["eps"](logsnr),
    # Plain squared error of v.
    "v": lambda logsnr, speed, plain: PLAIN["v"](logsnr),
    # Plain squared error of x.
    "x": lambda logsnr, speed, plain: PLAIN["x"](logsnr),
    # min(SNR, 5) in x space (Hang et al., arXiv 2303.09556, with its recommended gamma).
    "min_snr": lambda logsnr, speed, plain: jnp.minimum(logsnr, jnp.log(5.0)),
    # 1 / (1 + SNR) in eps space (P2: Choi et al., arXiv 2204.00227, with its recommended k = 1 and gamma = 1).
    "p2": lambda logsnr, speed, plain: jax.nn.log_sigmoid(logsnr),
    # EDM's weight and density of noise levels.
    "edm": lambda logsnr, speed, plain: _edm(logsnr, speed),
}


# x, eps [B,...], logsnr [B] -> what the network should put out.
TARGETS: Mapping[str, Callable[[jax.Array, jax.Array, jax.Array], jax.Array]] = {
    "eps": lambda x, eps, logsnr: eps,
    "v": lambda x, eps, logsnr: gaussian.v_from_x_eps(x=x, eps=eps, logsnr=logsnr),
    "x": lambda x, eps, logsnr: x,
}


def stratified_times(key: jax.Array, *, index: jax.Array, batch_size: int) -> jax.Array:
    """t_i = (u + i / batch_size) mod 1 with one u ~ U(0, 1): each is uniform, and together they cover [0, 1) evenly.

    The mean loss of a batch varies less than with independent times. Source: VDM (arXiv 2107.00630), appendix I.1, the
    low-discrepancy sampler.

    Args:
      key: one PRNG key a step.
      index: [B] int32, of examples in the global batch, which may be spread over devices.
      batch_size: of the global batch.

    Returns:
      t [B] float32 in [0, 1).
    """
    return (jax.random.uniform(key) + index / batch_size) % 1.0


def draw_times(keys: jax.Array) -> jax.Array:
    """Draws the times that `diffusion_loss` draws from the same `keys` [B] when it is given none: t ~ U(0, 1), [B]."""
    return jax.vmap(lambda key: jax.random.uniform(jax.random.split(key)[0]))(keys)


def logsnr_and_speed(schedule: Schedule, t: jax.Array) -> tuple[jax.Array, jax.Array]:
    """logsnr and speed = -dlogsnr / dt at t, each of t's shape; 1 / speed is logsnr's density under t ~ U(0, 1)."""
    logsnr, slope = jax.jvp(schedule, (t,), (jnp.ones_like(t),))
    return logsnr, -slope


def diffusion_loss(
    network: NetworkFn,
    image: jax.Array,
    *,
    keys: jax.Array,
    t: jax.Array | None = None,
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
      t: [B] float32 in [0, 1], times to take; None draws them from the keys. The noise is the same either way.
      schedule: t -> logsnr.
      prediction: a key of `TARGETS`.
      weighting: a key of `WEIGHTINGS`.

    Returns:
      loss [B] float32.

    Raises:
      InputError: an unknown prediction type or weighting.
    """
    t_keys, eps_keys = jax.vmap(jax.random.split, out_axes=1)(keys)
    if t is None:
        t = jax.vmap(lambda key: jax.random.uniform(key))(t_keys)
    eps = jax.vmap(lambda key: jax.random.normal(key, image.shape[1:]))(eps_keys)
    logsnr, speed = logsnr_and_speed(schedule, t)
    z = gaussian.diffuse(x=image, eps=eps, logsnr=logsnr)
    output = network(z, logsnr).astype(jnp.float32)
    target = lookup(TARGETS, prediction, what="prediction type")(image, eps, logsnr)
    squared_error = jnp.mean(jnp.square(output - target), axis=tuple(range(1, image.ndim)))
    return relative_weight(logsnr, speed=speed, weighting=weighting, prediction=prediction) * squared_error


def relative_weight(logsnr: jax.Array, *, speed: jax.Array, weighting: str, prediction: str) -> jax.Array:
    """The weight of squared error in the prediction's own space: weight(logsnr) / exp(PLAIN). Exactly 1 for plain.

    Args:
      logsnr, speed: [B], see `logsnr_and_speed`.
      weighting, prediction: see `diffusion_loss`.

    Returns:
      [B] float32.

    Raises:
      InputError: an unknown prediction type or weighting.
    """
    plain = lookup(PLAIN, prediction, what="prediction type")(logsnr)
    if weighting in ("plain", prediction):
        return jnp.ones_like(logsnr)  # exactly, without the logs
    return jnp.exp(lookup(WEIGHTINGS, weighting, what="loss weighting")(logsnr, speed, plain) - plain)
