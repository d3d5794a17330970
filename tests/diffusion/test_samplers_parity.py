"""Samplers against diffusers' schedulers: the same z at every evaluation. Needs the extra `parity`.

Both see one denoiser, one first z, the same noise and the same levels of the squaredcos_cap_v2 schedule, whose timestep
i is our time (i + 1) / 1000.
"""

import importlib
import itertools
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax.diffusion.samplers import SAMPLERS
from imagen_jax.diffusion.schedules import discrete_cosine
from imagen_jax.diffusion.spacings import SPACINGS, at_times, noise_levels
from imagen_jax.types import Prediction

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
pytestmark = [
    pytest.mark.parity,
    # The schedulers make NumPy arrays of torch tensors, which don't know NumPy 2's argument yet.
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
]

# Relative to the largest value of z at that level.
TOLERANCE = 2e-5
# Of schedulers that compute with alphas_cumprod: 1 - 0.99996 of the cleanest timestep has three digits in its float32.
TOLERANCE_OF_CUMPROD = 1e-4

SCHEDULE: dict[str, Any] = {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "sample"}
STEPS = [5, 10, 50]
B = 2
SHAPE = (B, 8, 8, 3)
KEYS = jax.random.split(jax.random.key(0), B)
Z_INIT = np.asarray(jax.random.normal(jax.random.key(1), SHAPE))


def x_hat(xp, z, logsnr):
    """E[x | z] of pixels ~ N(mean, std^2), each with its own, and a smooth function of neighbours where there is noise.

    Args:
      xp: numpy or jax.numpy.
    """
    logsnr = logsnr[:, None, None, None]
    alpha2, sigma2 = 1 / (1 + xp.exp(-logsnr)), 1 / (1 + xp.exp(logsnr))
    mean = xp.linspace(-0.6, 0.6, SHAPE[1], dtype=np.float32)[None, :, None, None]
    variance = xp.linspace(0.1, 0.5, SHAPE[2], dtype=np.float32)[None, None, :, None] ** 2
    x = (mean * sigma2 + variance * xp.sqrt(alpha2) * z) / (alpha2 * variance + sigma2)
    return x + 0.5 * sigma2 * xp.tanh(2 * (xp.roll(x, 1, axis=1) + xp.roll(x, -1, axis=2) - 2 * x))


@cache
def noise(index):
    keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(KEYS, index)
    return np.asarray(jax.vmap(partial(jax.random.normal, shape=SHAPE[1:]))(keys))


def draw_in_order():
    indices = itertools.count()
    return lambda *_, **__: torch.tensor(noise(next(indices)))


@pytest.fixture(autouse=True)
def _the_same_noise(monkeypatch):
    # By this and not by `variance_noise`, which DDPMScheduler.step doesn't have.
    for name in ("ddpm", "ddim", "dpmsolver_multistep"):
        monkeypatch.setattr(f"diffusers.schedulers.scheduling_{name}.randn_tensor", draw_in_order())


def ours(name, logsnrs, *, gamma_of_pixels=None, **settings):
    """z at every evaluation, and the image: [N + 1, *SHAPE]."""
    seen = []

    def denoise_fn(z, logsnr):
        jax.debug.callback(seen.append, z, ordered=True)
        return Prediction(x_hat(jnp, z, logsnr), gamma_of_pixels)

    x = jax.jit(partial(SAMPLERS[name].sample, denoise_fn, logsnrs=logsnrs, **settings))(KEYS, Z_INIT)
    jax.effects_barrier()
    return np.stack([*seen, x])


def theirs(scheduler, logsnrs, *, dtype=np.float32, to_output=lambda x: x, **settings):
    """The same, of a scheduler whose timesteps have these levels."""
    if hasattr(scheduler, "set_begin_index"):
        # Else one with two equal timesteps, which Karras' levels have after rounding, begins at the second.
        scheduler.set_begin_index(0)
    # z / alpha where a scheduler wants that, and z where it doesn't. Not init_noise_sigma, which is sigma / alpha in
    # some spacings: equal at pure noise only.
    sample = torch.tensor(Z_INIT.astype(dtype)) / scheduler.scale_model_input(torch.ones(()), scheduler.timesteps[0])
    seen = []
    for timestep, logsnr in zip(scheduler.timesteps, logsnrs, strict=True):
        z = scheduler.scale_model_input(sample, timestep).numpy()
        seen.append(z)
        output = to_output(torch.tensor(x_hat(np, z, np.full(B, logsnr, dtype))))
        sample = scheduler.step(output, timestep, sample, **settings).prev_sample
    return np.stack([*seen, sample.numpy()])


def at_timesteps(timesteps):
    return at_times(discrete_cosine, (np.asarray(timesteps) + 1) / 1000)


def at_sigmas(sigmas):
    """logsnr of sigma / alpha."""
    return (-2 * np.log(np.asarray(sigmas, np.float64))).astype(np.float32)


def assert_same(actual, expected, *, tolerance=TOLERANCE):
    assert actual.shape == expected.shape
    axes = (1, 2, 3, 4)
    errors = np.abs(actual - expected).max(axis=axes) / np.abs(expected).max(axis=axes)
    print(f"largest relative error {errors.max():.1e}")
    assert (errors < tolerance).all(), errors


# DDPMScheduler's variance -> our gamma. "learned_range" interpolates as the paper does, by what the network says.
VARIANCES = {"fixed_small": 0.0, "fixed_small_log": 0.0, "fixed_large": 1.0, "learned_range": 0.3}


def ddpm_scheduler(variance, **settings):
    scheduler = diffusers.DDPMScheduler(**SCHEDULE, clip_sample=False, variance_type=variance, **settings)
    if variance != "learned_range":
        return scheduler, lambda x: x
    return scheduler, lambda x: torch.cat([x, torch.full_like(x, 2 * VARIANCES[variance] - 1)], dim=1)


@pytest.mark.parametrize("num_steps", STEPS)
@pytest.mark.parametrize("spacing", ["linspace", "leading", "trailing"])
@pytest.mark.parametrize("variance", VARIANCES)
def test_ddpm_is_diffusers(variance, spacing, num_steps):
    scheduler, to_output = ddpm_scheduler(variance, timestep_spacing=spacing)
    scheduler.set_timesteps(num_steps)
    logsnrs = at_timesteps(scheduler.timesteps)
    actual = ours("ddpm", logsnrs, gamma=VARIANCES[variance])
    expected = theirs(scheduler, logsnrs, to_output=to_output)
    if spacing == "trailing" and variance == "fixed_large":
        # Theirs adds noise to the last x_hat too, unless it was that of timestep 0. Ours ends with x_hat.
        actual, expected = actual[:-1], expected[:-1]
    assert_same(actual, expected, tolerance=TOLERANCE_OF_CUMPROD)


@pytest.mark.parametrize("name", ["fast27", "smart27", "smart50"])
def test_ddpm_is_diffusers_on_deepfloyds_timesteps(name):
    module = importlib.import_module("diffusers.pipelines.deepfloyd_if.timesteps")
    listed = getattr(module, f"{name}_timesteps")
    logsnrs = noise_levels(discrete_cosine, num_steps=len(listed), spacing=f"if_{name}")
    np.testing.assert_array_equal(logsnrs, at_timesteps(listed))
    scheduler, to_output = ddpm_scheduler("learned_range")
    scheduler.set_timesteps(timesteps=listed)
    actual, expected = ours("ddpm", logsnrs, gamma=0.3), theirs(scheduler, logsnrs, to_output=to_output)
    assert_same(actual, expected, tolerance=TOLERANCE_OF_CUMPROD)


@pytest.mark.parametrize("num_steps", STEPS)
def test_a_variance_for_each_pixel_is_diffusers_learned_range(num_steps):
    gamma = np.random.default_rng(5).uniform(size=SHAPE).astype(np.float32)
    scheduler, _ = ddpm_scheduler("learned_range", timestep_spacing="leading")
    scheduler.set_timesteps(num_steps)
    logsnrs = at_timesteps(scheduler.timesteps)
    actual = ours("ddpm", logsnrs, gamma_of_pixels=jnp.asarray(gamma))
    # Theirs splits axis 1, which is of no meaning here: whatever is joined there is parted there.
    expected = theirs(
        scheduler, logsnrs, to_output=lambda x: torch.cat([x, torch.tensor(2 * gamma - 1, dtype=x.dtype)], dim=1)
    )
    assert_same(actual, expected, tolerance=TOLERANCE_OF_CUMPROD)


# Not linspace: DDIMScheduler steps to timestep - 1000 // N, which isn't the next of that spacing's timesteps.
@pytest.mark.parametrize("num_steps", STEPS)
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_is_diffusers(eta, spacing, num_steps):
    scheduler = diffusers.DDIMScheduler(**SCHEDULE, clip_sample=False, timestep_spacing=spacing)
    if eta == 1 and spacing == "trailing":
        # After pure noise its 1 - alpha_prod_t_prev - std_dev_t**2 is 1e-9 or so, in float32 -6e-8, and the root NaN.
        scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
    scheduler.set_timesteps(num_steps)
    logsnrs = at_timesteps(scheduler.timesteps)
    actual, expected = ours("ddim", logsnrs, eta=eta), theirs(scheduler, logsnrs, eta=eta)
    assert_same(actual, expected, tolerance=TOLERANCE_OF_CUMPROD)


DPM: dict[str, Any] = {"solver_order": 2, "solver_type": "midpoint", "final_sigmas_type": "zero"}
MULTISTEP: dict[str, tuple[str, dict[str, Any]]] = {
    "dpmpp_2m": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++", **DPM}),
    "dpmpp_2m_sde": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++", **DPM}),
    "unipc": ("UniPCMultistepScheduler", {"solver_order": 2, "solver_type": "bh2", "predict_x0": True}),
}


@pytest.mark.parametrize("num_steps", STEPS)
@pytest.mark.parametrize("spacing", ["linspace", "leading", "trailing", "karras"])
@pytest.mark.parametrize("name", MULTISTEP)
def test_a_multistep_solver_is_diffusers(name, spacing, num_steps):
    kind, settings = MULTISTEP[name]
    levels = {"use_karras_sigmas": True} if spacing == "karras" else {"timestep_spacing": spacing}
    scheduler = getattr(diffusers, kind)(**SCHEDULE, **settings, **levels)
    scheduler.set_timesteps(num_steps)
    # The timesteps of Karras' levels are rounded, and the solvers go by sigmas anyway.
    logsnrs = at_sigmas(scheduler.sigmas[:-1]) if spacing == "karras" else at_timesteps(scheduler.timesteps)
    assert_same(ours(name, logsnrs), theirs(scheduler, logsnrs))


@pytest.mark.parametrize("num_steps", STEPS)
@pytest.mark.parametrize(
    ("levels", "tolerance"),
    [
        ({"timestep_spacing": "leading"}, TOLERANCE),
        ({"use_karras_sigmas": True, "sigma_min": 0.002, "sigma_max": 80.0}, TOLERANCE),
        # From timestep 999 on, where z / alpha is 20,291 times z. Theirs is up to 6e-4 from float64, to which it can't
        # be set: its step casts z / alpha to float32. Ours has to agree with float64, below.
        ({"timestep_spacing": "linspace"}, 1e-3),
        ({"timestep_spacing": "trailing"}, 1e-3),
    ],
)
def test_eulers_method_is_diffusers(levels, tolerance, num_steps):
    scheduler = diffusers.EulerDiscreteScheduler(**SCHEDULE, **levels)
    scheduler.set_timesteps(num_steps)
    logsnrs = at_sigmas(scheduler.sigmas[:-1])
    assert_same(ours("euler", logsnrs), theirs(scheduler, logsnrs), tolerance=tolerance)


@pytest.mark.parametrize("num_steps", STEPS)
@pytest.mark.parametrize(
    ("levels", "dtype", "tolerance"),
    [
        ({"timestep_spacing": "leading"}, np.float32, TOLERANCE),
        ({"timestep_spacing": "leading", "use_karras_sigmas": True}, np.float32, TOLERANCE),
        # From timestep 999 on, the difference of the first two slopes is multiplied by 10,000: their float32 is up to
        # 4e-2 from their float64.
        ({"timestep_spacing": "linspace"}, np.float64, 1e-4),
        ({"timestep_spacing": "trailing"}, np.float64, 1e-4),
    ],
)
def test_heuns_method_is_diffusers(levels, dtype, tolerance, num_steps):
    scheduler = diffusers.HeunDiscreteScheduler(**SCHEDULE, **levels)
    scheduler.set_timesteps(num_steps)
    # sigma_0, sigma_1, sigma_1, sigma_2, sigma_2, ..., 0: one an evaluation.
    repeated = at_sigmas(scheduler.sigmas[:-1])
    logsnrs = np.concatenate([repeated[:1], repeated[1::2]])
    scheduler.sigmas = torch.tensor(scheduler.sigmas.numpy().astype(dtype))
    assert_same(ours("heun", logsnrs), theirs(scheduler, repeated, dtype=dtype), tolerance=tolerance)


@pytest.mark.parametrize("num_steps", STEPS)
@pytest.mark.parametrize("spacing", ["linspace", "trailing"])
def test_eulers_method_from_pure_noise_is_that_of_float64(spacing, num_steps):
    scheduler = diffusers.EulerDiscreteScheduler(**SCHEDULE, timestep_spacing=spacing)
    scheduler.set_timesteps(num_steps)
    logsnrs = at_sigmas(scheduler.sigmas[:-1]).astype(np.float64)
    sigmas, alphas = np.exp(-0.5 * logsnrs), np.sqrt(1 / (1 + np.exp(-logsnrs)))
    y, trajectory = Z_INIT.astype(np.float64) / alphas[0], []
    for sigma, sigma_next, alpha, logsnr in zip(sigmas, [*sigmas[1:], 0.0], alphas, logsnrs, strict=True):
        trajectory.append(alpha * y)
        y = y + (sigma_next - sigma) * (y - x_hat(np, alpha * y, np.full(B, logsnr))) / sigma
    assert_same(ours("euler", logsnrs.astype(np.float32)), np.stack([*trajectory, y]))


@pytest.mark.parametrize("num_steps", STEPS)
def test_spacings_are_diffusers(num_steps):
    def scheduler(**settings):
        made = diffusers.EulerDiscreteScheduler(**SCHEDULE, **settings)
        made.set_timesteps(num_steps)
        return made

    def levels(name):
        return SPACINGS[name](discrete_cosine, num_steps)

    # The same range of times in both; this schedule is less clean at the end than the one that EDM's range is of.
    sigma_max, sigma_min = np.exp(-0.5 * levels("karras")[[0, -1]]).tolist()
    edm: dict[str, Any] = {"sigma_min": sigma_min, "sigma_max": sigma_max}
    trailing = scheduler(timestep_spacing="trailing").timesteps
    np.testing.assert_allclose(levels("uniform"), at_timesteps(trailing), rtol=0, atol=1e-5)
    karras = scheduler(use_karras_sigmas=True, **edm).sigmas[:-1]
    np.testing.assert_allclose(levels("karras"), at_sigmas(karras), rtol=0, atol=1e-5)
    exponential = scheduler(use_exponential_sigmas=True, **edm).sigmas[:-1]
    np.testing.assert_allclose(levels("uniform_logsnr"), at_sigmas(exponential), rtol=0, atol=1e-5)
