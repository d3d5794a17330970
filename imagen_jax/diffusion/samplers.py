"""Samplers: from noise z_init to an image, along given noise levels, one `lax.scan` inside a compiled program.

Signature of all: sample(denoise_fn, keys, z_init, *, logsnrs, ...) -> x [B,H,W,C] float32, with keys [B] (one an image,
so that an image does not depend on its batch), z_init [B,H,W,C] a draw of q(z | x) at the first level (N(0, I) where
that is pure noise) and logsnrs [N], concrete and rising (`spacings.noise_levels`). denoise_fn(z, logsnr) -> Prediction
already holds the conditions, guidance and thresholding. It is called once a level, twice by Heun but at the last; the
last call's x_hat is the image.

With alpha, sigma of `gaussian`, h = (logsnr_s - logsnr_t) / 2 is the step from t to s that the exponential integrators'
papers write in lambda = log(alpha / sigma).
"""

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from imagen_jax.diffusion import gaussian
from imagen_jax.diffusion.guidance import ByLevel
from imagen_jax.errors import InputError
from imagen_jax.registry import find
from imagen_jax.types import DenoiseFn

# Evaluated at one level, or chosen by level.
Denoiser = DenoiseFn | ByLevel


def denoiser_at(denoise: Denoiser, logsnr: float) -> DenoiseFn:
    """What a sampler evaluates at a level, chosen before it compiles a step."""
    return denoise.at(logsnr) if isinstance(denoise, ByLevel) else denoise


class Place(NamedTuple):
    """Where a step is, in scalars: its number from 0; logsnr two levels before, one before, here, and after."""

    number: jax.Array
    before2: jax.Array
    before: jax.Array
    here: jax.Array
    after: jax.Array


class State(NamedTuple):
    """What a step sees: z here; the z that the last step left from; x_hat here, one and two evaluations before.

    And `Prediction.gamma` here, which is None between steps.
    """

    z: jax.Array
    z_before: jax.Array
    x: jax.Array
    x_before: jax.Array
    x_before2: jax.Array
    gamma: jax.Array | None = None


# (state, place, keys [B]) -> z at the next level, z here (which a corrector may have changed).
_Step = Callable[[State, Place, jax.Array], tuple[jax.Array, jax.Array]]


def _run(step: _Step, denoise: Denoiser, keys: jax.Array, z_init: jax.Array, logsnrs: np.ndarray) -> jax.Array:
    """Scans over the levels; where `denoise` depends on the level, a scan for each stretch of levels that share it."""
    count, batch = len(logsnrs), z_init.shape[0]
    # At the ends, levels that are never used: a step there must only stay finite.
    padded = np.concatenate([logsnrs[0] - [2.0, 1.0], logsnrs, logsnrs[-1:] + 1.0]).astype(np.float32)
    columns = [np.arange(count), *(padded[first : first + count] for first in range(4))]
    places = Place(*map(jnp.asarray, columns))

    def scan(denoise_fn: DenoiseFn, state: State, places: Place) -> State:
        def body(state: State, place: Place) -> tuple[State, None]:
            x, gamma = denoise_fn(state.z, jnp.full((batch,), place.here))
            state = state._replace(x=x, x_before=state.x, x_before2=state.x_before)
            step_keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, place.number)
            z_next, z_here = step(state._replace(gamma=gamma), place, step_keys)
            return state._replace(z=z_next, z_before=z_here), None

        return jax.lax.scan(body, state, places)[0]

    state = State(z_init, z_init, z_init, z_init, z_init)
    at_level = [denoiser_at(denoise, float(logsnr)) for logsnr in logsnrs]
    for _, stretch in itertools.groupby(range(count), key=lambda index: id(at_level[index])):
        first, *rest = stretch
        last = rest[-1] if rest else first
        state = scan(at_level[first], state, Place(*(values[first : last + 1] for values in places)))
    return state.x


def _noise_like(z: jax.Array, keys: jax.Array) -> jax.Array:
    return jax.vmap(lambda key: jax.random.normal(key, z.shape[1:]))(keys)


def _ddim_step(z: jax.Array, x: jax.Array, *, logsnr_t: jax.Array, logsnr_s: jax.Array) -> jax.Array:
    """alpha_s x + sigma_s eps_hat = sigma_s / sigma_t z + alpha_s (1 - exp(-h)) x: exact where x is constant."""
    return gaussian.diffuse(x=x, eps=gaussian.eps_from_x(z=z, x=x, logsnr=logsnr_t), logsnr=logsnr_s)


def _ancestral_step(
    z: jax.Array, x: jax.Array, noise: jax.Array, *, logsnr_t: jax.Array, logsnr_s: jax.Array, gamma: float | jax.Array
) -> jax.Array:
    mean, log_small, log_large = gaussian.reverse_step(z=z, x=x, logsnr_t=logsnr_t, logsnr_s=logsnr_s)
    return mean + jnp.exp(0.5 * ((1.0 - gamma) * log_small + gamma * log_large)) * noise


def _two_step_x(state: State, place: Place) -> jax.Array:
    """x_hat extrapolated from here and the level before to the middle of the coming step; the first step has x_hat."""
    half_ratio = 0.5 * (place.after - place.here) / (place.here - place.before)
    return jnp.where(place.number == 0, state.x, state.x + half_ratio * (state.x - state.x_before))


def ddpm(
    denoise_fn: Denoiser, keys: jax.Array, z_init: jax.Array, *, logsnrs: np.ndarray, gamma: float = 0.3
) -> jax.Array:
    """Ancestral sampling: z_s ~ N(mean of q(z_s | z_t, x_hat), small^(1 - gamma) * large^gamma).

    Args:
      gamma: stochasticity in [0, 1]: 0 the posterior's variance, 1 that of the forward step. Imagen (appendix,
        "samplers") interpolates in log space; 0.3 is our default, between the two. Where the network predicts one
        (`Prediction.gamma`), for each pixel, that is taken.
    """

    def step(state: State, place: Place, step_keys: jax.Array) -> tuple[jax.Array, jax.Array]:
        noise = _noise_like(z_init, step_keys)
        levels = {"logsnr_t": place.here, "logsnr_s": place.after}
        own = gamma if state.gamma is None else state.gamma
        return _ancestral_step(state.z, state.x, noise, **levels, gamma=own), state.z

    return _run(step, denoise_fn, keys, z_init, logsnrs)


def ddim(
    denoise_fn: Denoiser, keys: jax.Array, z_init: jax.Array, *, logsnrs: np.ndarray, eta: float = 0.0
) -> jax.Array:
    """z_s = alpha_s x_hat + sqrt(sigma_s^2 - eta^2 v) eps_hat + eta sqrt(v) noise, v the posterior's variance.

    Source: DDIM, arXiv 2010.02502, Eq. 12 and 16.

    Args:
      eta: in [0, 1]: 0 deterministic, 1 the ancestral sampler of the posterior's variance.
    """

    def step(state: State, place: Place, step_keys: jax.Array) -> tuple[jax.Array, jax.Array]:
        if eta == 0:
            return _ddim_step(state.z, state.x, logsnr_t=place.here, logsnr_s=place.after), state.z
        eps = gaussian.eps_from_x(z=state.z, x=state.x, logsnr=place.here)
        alpha, sigma = gaussian.alpha_sigma(place.after, state.z)
        noise = _noise_like(z_init, step_keys)
        # sigma_s^2 - eta^2 v without the difference of two nearly equal numbers that it is where eta = 1.
        r = jnp.exp(place.here - place.after)
        old, new = jnp.sqrt(1.0 - eta**2 + eta**2 * r), eta * jnp.sqrt(-jnp.expm1(place.here - place.after))
        return alpha * state.x + sigma * (old * eps + new * noise), state.z

    return _run(step, denoise_fn, keys, z_init, logsnrs)


def euler(denoise_fn: Denoiser, keys: jax.Array, z_init: jax.Array, *, logsnrs: np.ndarray) -> jax.Array:
    """Euler's method in EDM's sigma (arXiv 2206.00364, algorithm 1 uncorrected): y_s = y + (sigma_s - sigma) slope.

    Times alpha_s that is a step of DDIM, whatever the levels, and is computed as one: y is 22,000 times z at the noisy
    end of the cosine schedule, and float32 would lose three digits.
    """
    return ddim(denoise_fn, keys, z_init, logsnrs=logsnrs)


def heun(denoise_fn: Denoiser, keys: jax.Array, z_init: jax.Array, *, logsnrs: np.ndarray) -> jax.Array:
    """Heun's method in EDM's sigma: second order, 2 N - 1 evaluations for N levels (EDM, algorithm 1).

    For z = alpha y the correction of Euler's step is alpha (sigma_s - sigma_t) (eps_s - eps_t) / 2, with EDM's
    sigma = exp(-logsnr / 2) and slope eps_hat.
    """

    def step(state: State, place: Place, step_keys: jax.Array) -> tuple[jax.Array, jax.Array]:
        del step_keys
        euler_step = _ddim_step(state.z, state.x, logsnr_t=place.here, logsnr_s=place.after)
        eps_before = gaussian.eps_from_x(z=state.z_before, x=state.x_before, logsnr=place.before)
        eps = gaussian.eps_from_x(z=state.z, x=state.x, logsnr=place.here)
        alpha, _ = gaussian.alpha_sigma(place.here, state.z)
        width = jnp.exp(-0.5 * place.here) - jnp.exp(-0.5 * place.before)
        corrected = state.z + 0.5 * alpha * width * (eps - eps_before)
        return jnp.where(place.number % 2 == 0, euler_step, corrected), state.z

    # Each level but the first twice: to correct the step to it, then to step on. One network in the program, not two.
    return _run(step, denoise_fn, keys, z_init, np.repeat(logsnrs, 2)[1:])


def dpmpp_2m(denoise_fn: Denoiser, keys: jax.Array, z_init: jax.Array, *, logsnrs: np.ndarray) -> jax.Array:
    """DPM-Solver++(2M): a DDIM step with x_hat extrapolated to its middle (arXiv 2211.01095, algorithm 2)."""

    def step(state: State, place: Place, step_keys: jax.Array) -> tuple[jax.Array, jax.Array]:
        del step_keys
        return _ddim_step(state.z, _two_step_x(state, place), logsnr_t=place.here, logsnr_s=place.after), state.z

    return _run(step, denoise_fn, keys, z_init, logsnrs)


def dpmpp_2m_sde(denoise_fn: Denoiser, keys: jax.Array, z_init: jax.Array, *, logsnrs: np.ndarray) -> jax.Array:
    """SDE-DPM-Solver++(2M): the same with an ancestral step of the posterior's variance (its appendix)."""

    def step(state: State, place: Place, step_keys: jax.Array) -> tuple[jax.Array, jax.Array]:
        noise = _noise_like(z_init, step_keys)
        levels = {"logsnr_t": place.here, "logsnr_s": place.after}
        return _ancestral_step(state.z, _two_step_x(state, place), noise, **levels, gamma=0.0), state.z

    return _run(step, denoise_fn, keys, z_init, logsnrs)


def unipc(denoise_fn: Denoiser, keys: jax.Array, z_init: jax.Array, *, logsnrs: np.ndarray) -> jax.Array:
    """UniPC-2 (arXiv 2302.04867, with B_2(h) = exp(h) - 1): each x_hat also corrects the step that led to it.

    The predictor is that of DPM-Solver++(2M). The corrector is a DDIM step from the level before with
    x_hat = x0 + rho1 (x1 - x0) / r + rho2 (x2 - x0), of the values before, two before, and here.
    """

    def step(state: State, place: Place, step_keys: jax.Array) -> tuple[jax.Array, jax.Array]:
        del step_keys
        h = 0.5 * (place.here - place.before)
        ratio = (place.before2 - place.before) / (place.here - place.before)
        e = jnp.expm1(-h)
        b1 = (e / -h - 1.0) / e
        b2 = 2.0 * ((e / -h - 1.0) / -h - 0.5) / e
        rho1 = (b1 - b2) / (1.0 - ratio)
        x0 = state.x_before
        second = rho1 * (state.x_before2 - x0) / ratio + (b1 - rho1) * (state.x - x0)
        x = x0 + jnp.where(place.number == 1, 0.5 * (state.x - x0), second)
        corrected = _ddim_step(state.z_before, x, logsnr_t=place.before, logsnr_s=place.here)
        z = jnp.where(place.number == 0, state.z, corrected)
        return _ddim_step(z, _two_step_x(state, place), logsnr_t=place.here, logsnr_s=place.after), z

    return _run(step, denoise_fn, keys, z_init, logsnrs)


@dataclasses.dataclass(frozen=True)
class Sampler:
    """An entry of SAMPLERS.

    Attributes:
      sample: see the top of this file.
      settings: its own keyword arguments.
      min_steps: what it needs to be more than its first step.
      max_first_ratio: of the first two levels' sigma = exp(-logsnr / 2).
    """

    sample: Callable[..., jax.Array]
    settings: tuple[str, ...] = ()
    min_steps: int = 1
    max_first_ratio: float = np.inf


SAMPLERS: Mapping[str, Sampler] = {
    "ddpm": Sampler(ddpm, settings=("gamma",)),
    "ddim": Sampler(ddim, settings=("eta",)),
    "euler": Sampler(euler),
    # An error of the first slope is multiplied by this ratio: at 32 uniform steps of the cosine schedule it is 1,100,
    # and an image's standard deviation comes out a third too large.
    "heun": Sampler(heun, min_steps=2, max_first_ratio=300.0),
    "dpmpp_2m": Sampler(dpmpp_2m, min_steps=2),
    "dpmpp_2m_sde": Sampler(dpmpp_2m_sde, min_steps=2),
    "unipc": Sampler(unipc, min_steps=2),
}


def find_sampler(name: str) -> Sampler:
    """The sampler called `name`, a key of `SAMPLERS` or the import path of a `Sampler` of the caller's own.

    Raises:
      InputError: there is none.
    """
    found = find(SAMPLERS, name, what="sampler")
    if not isinstance(found, Sampler):
        raise InputError(f'sampler "{name}" is no diffusion.samplers.Sampler (it is {found!r:.80})')
    return found


# Sampling starts from pure noise, and at this logsnr an image is still 1/20 of it. Chosen by us.
_MAX_FIRST_LOGSNR = -6.0


def check_levels(name: str, logsnrs: np.ndarray, *, from_noise: bool = True) -> None:
    """Checks that the sampler called `name` can run along `logsnrs`.

    Args:
      from_noise: whether it starts from pure noise, rather than from an image with noise of the first level.

    Raises:
      InputError: too few, a first step that is too long for it, or a first level that is not noise and should be.
    """
    sampler = find_sampler(name)
    if len(logsnrs) < sampler.min_steps:
        raise InputError(f'sampler "{name}" needs at least {sampler.min_steps} sampling steps (got {len(logsnrs)})')
    ratio = float(np.exp(0.5 * (logsnrs[1] - logsnrs[0]))) if len(logsnrs) > 1 else 1.0
    if ratio > sampler.max_first_ratio:
        raise InputError(
            f'the first step of sampler "{name}" may divide the noise by {sampler.max_first_ratio:g} at most '
            f'(got {ratio:.0f}); take the step spacing "karras", or more steps'
        )
    if from_noise and logsnrs[0] > _MAX_FIRST_LOGSNR:
        raise InputError(
            f"the first noise level must be almost pure noise, logsnr {_MAX_FIRST_LOGSNR:g} at most "
            f"(got {logsnrs[0]:.1f}); begin the times at 1"
        )
