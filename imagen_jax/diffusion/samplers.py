"""Samplers: from noise z_init at t = 1 to an image, one `lax.scan` over a uniform grid of t.

Signature of all: sample(denoise_fn, keys, z_init, *, schedule, num_steps, ...) -> x [B,H,W,C] float32, with keys [B]
(one an image, so that an image does not depend on its batch) and z_init [B,H,W,C] ~ N(0, I). denoise_fn(z, logsnr) ->
x_hat already holds text, low-resolution image, guidance and thresholding. The last step returns x_hat itself.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from imagen_jax.diffusion import gaussian
from imagen_jax.diffusion.schedules import Schedule
from imagen_jax.types import DenoiseFn

Sampler = Callable[..., jax.Array]

# (z, x_hat, logsnr_t [B], logsnr_s [B], keys [B]) -> z_s
_Step = Callable[[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array], jax.Array]


def _scan_steps(
    step: _Step, denoise_fn: DenoiseFn, keys: jax.Array, z_init: jax.Array, *, schedule: Schedule, num_steps: int
) -> jax.Array:
    times = jnp.linspace(1.0, 0.0, num_steps + 1)
    batch = z_init.shape[0]

    def body(z: jax.Array, inputs: tuple[jax.Array, ...]) -> tuple[jax.Array, None]:
        index, t, s = inputs
        logsnr_t = jnp.full((batch,), schedule(t))
        logsnr_s = jnp.full((batch,), schedule(s))
        x_hat = denoise_fn(z, logsnr_t)
        step_keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, index)
        z_s = step(z, x_hat, logsnr_t, logsnr_s, step_keys)
        # One compiled body for all steps, the last one too.
        return jnp.where(index == num_steps - 1, x_hat, z_s), None

    x, _ = jax.lax.scan(body, z_init, (jnp.arange(num_steps), times[:-1], times[1:]))
    return x


def ddpm(
    denoise_fn: DenoiseFn,
    keys: jax.Array,
    z_init: jax.Array,
    *,
    schedule: Schedule,
    num_steps: int,
    gamma: float = 0.3,
) -> jax.Array:
    """Ancestral sampling: z_s ~ N(mean of q(z_s | z_t, x_hat), small^(1 - gamma) * large^gamma).

    Args:
      gamma: stochasticity in [0, 1]: 0 the posterior's variance, 1 that of the forward step. Imagen (appendix,
        "samplers") interpolates in log space; 0.3 is our default, between the two.
    """

    def step(z, x_hat, logsnr_t, logsnr_s, step_keys):
        mean, log_small, log_large = gaussian.reverse_step(z=z, x=x_hat, logsnr_t=logsnr_t, logsnr_s=logsnr_s)
        std = jnp.exp(0.5 * ((1.0 - gamma) * log_small + gamma * log_large))
        noise = jax.vmap(lambda key: jax.random.normal(key, z.shape[1:]))(step_keys)
        return mean + std * noise

    return _scan_steps(step, denoise_fn, keys, z_init, schedule=schedule, num_steps=num_steps)


def ddim(denoise_fn: DenoiseFn, keys: jax.Array, z_init: jax.Array, *, schedule: Schedule, num_steps: int) -> jax.Array:
    """Deterministic: z_s = alpha_s x_hat + sigma_s eps_hat (DDIM, arXiv 2010.02502, Eq. 12 with eta = 0)."""

    def step(z, x_hat, logsnr_t, logsnr_s, step_keys):
        del step_keys
        eps_hat = gaussian.eps_from_x(z=z, x=x_hat, logsnr=logsnr_t)
        return gaussian.diffuse(x=x_hat, eps=eps_hat, logsnr=logsnr_s)

    return _scan_steps(step, denoise_fn, keys, z_init, schedule=schedule, num_steps=num_steps)


SAMPLERS: Mapping[str, Sampler] = {"ddpm": ddpm, "ddim": ddim}
