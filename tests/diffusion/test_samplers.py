"""Samplers on independent pixels ~ N(m, s^2), whose best denoiser E[x | z] is a line: they must draw N(m, s^2).

The probability flow of that denoiser is a line too, so that a deterministic sampler's error is known for each pixel.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax.diffusion import gaussian
from imagen_jax.diffusion.guidance import ByLevel
from imagen_jax.diffusion.samplers import SAMPLERS, check_levels
from imagen_jax.diffusion.schedules import cosine
from imagen_jax.diffusion.spacings import noise_levels
from imagen_jax.errors import InputError
from imagen_jax.types import Prediction

MEAN, STD = 0.3, 0.5
B = 4
KEYS = jax.random.split(jax.random.key(0), B)
# 49,152 pixels: the standard error of their mean is 0.0023, and of their standard deviation 0.0016.
Z_INIT = jax.random.normal(jax.random.key(1), (B, 64, 64, 3))
SMALL = Z_INIT[:, :8, :8]

ONE_STEP = [name for name, sampler in SAMPLERS.items() if sampler.min_steps == 1]
STOCHASTIC = ["ddpm", "dpmpp_2m_sde"]
DETERMINISTIC = [name for name in SAMPLERS if name not in STOCHASTIC]


def denoise_fn(z, logsnr, *, std=STD):
    """x_hat = m + alpha s^2 / (alpha^2 s^2 + sigma^2) (z - alpha m)."""
    alpha, sigma = gaussian.alpha_sigma(logsnr, z)
    return Prediction(MEAN + alpha * std**2 / (alpha**2 * std**2 + sigma**2) * (z - alpha * MEAN))


def flow_end(z_init, logsnr):
    """Where the probability flow takes z_init from a level: pixels keep their rank."""
    alpha, sigma = gaussian.alpha_sigma(jnp.float32(logsnr), z_init)
    return MEAN + STD * (z_init - alpha * MEAN) / jnp.sqrt(alpha**2 * STD**2 + sigma**2)


def levels(num_steps, spacing="karras"):
    return noise_levels(cosine, num_steps=num_steps, spacing=spacing)


def sample(name, num_steps, *, spacing="karras", keys=KEYS, z_init=Z_INIT, denoise_fn=denoise_fn, **settings):
    draw = partial(SAMPLERS[name].sample, denoise_fn, logsnrs=levels(num_steps, spacing), **settings)
    return np.asarray(jax.jit(draw)(keys, z_init))


# Heun's method refuses so long a first step as the uniform spacing's.
WAYS = [
    (name, spacing) for name in SAMPLERS for spacing in ("uniform", "karras") if (name, spacing) != ("heun", "uniform")
]


@pytest.mark.parametrize(("name", "spacing"), WAYS)
def test_draws_the_datas_distribution_and_better_with_more_steps(name, spacing):
    errors = []
    for num_steps in (4, 16, 128):
        x = sample(name, num_steps, spacing=spacing)
        assert x.shape == Z_INIT.shape and x.dtype == np.float32
        assert x.mean() == pytest.approx(MEAN, abs=0.02 if num_steps < 128 else 0.01)
        # The sample's own standard deviation is 0.002 off.
        errors.append(abs(x.std() - STD) / STD)
    assert errors[2] < 0.035 and errors[2] < 0.5 * max(errors)
    # A normal distribution, not only its first two moments.
    assert np.mean((x - MEAN) ** 3) == pytest.approx(0, abs=0.01)
    assert np.mean((x - MEAN) ** 4) == pytest.approx(3 * STD**4, rel=0.13)


# Slopes of log error over log number of steps, of each deterministic sampler. UniPC's corrector makes it one order
# better than its predictor.
ORDERS = {"ddim": 1, "euler": 1, "heun": 2, "dpmpp_2m": 2, "unipc": 3}


@pytest.mark.parametrize("spacing", ["karras", "uniform_logsnr"])
@pytest.mark.parametrize("name", DETERMINISTIC)
def test_the_error_of_the_flow_falls_with_the_order_of_the_solver(name, spacing):
    errors = []
    for num_steps in (32, 64, 128):
        logsnrs = levels(num_steps, spacing)
        x = sample(name, num_steps, spacing=spacing, z_init=SMALL)
        errors.append(float(np.sqrt(np.mean((x - flow_end(SMALL, logsnrs[0])) ** 2))))
    slopes = -np.diff(np.log2(errors))
    print(f"{name}, {spacing}: errors {errors}, slopes {slopes}")
    np.testing.assert_allclose(slopes, ORDERS[name], atol=0.3)


@pytest.mark.parametrize("name", SAMPLERS)
def test_data_of_one_point_is_drawn_exactly(name):
    x = sample(name, 4, z_init=SMALL, denoise_fn=partial(denoise_fn, std=0.0))
    np.testing.assert_allclose(x, MEAN, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ONE_STEP)
def test_one_step_is_the_denoisers_first_estimate(name):
    x = sample(name, 1, spacing="uniform", z_init=SMALL)
    np.testing.assert_allclose(x, denoise_fn(SMALL, jnp.full(B, cosine(jnp.float32(1.0)))).x, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", SAMPLERS)
def test_an_image_follows_its_key_and_noise_and_not_its_batch(name):
    whole = sample(name, 4, z_init=SMALL)
    # Heun's first step of four starts at 80 times the image's size.
    close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
    close(sample(name, 4, keys=KEYS[2:3], z_init=SMALL[2:3]), whole[2:3])
    order = np.array([2, 0, 3, 1])
    close(sample(name, 4, keys=KEYS[order], z_init=SMALL[order]), whole[order])


def recording(seen, offset=0.0):
    def denoise(z, logsnr):
        jax.debug.callback(lambda value: seen.append(float(value)), logsnr[0] + offset, ordered=True)
        return denoise_fn(z, logsnr)

    return denoise


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_network_is_evaluated_at_the_given_levels_and_nowhere_else(name):
    seen: list[float] = []
    sample(name, 4, z_init=SMALL, denoise_fn=recording(seen))
    jax.effects_barrier()
    wanted = np.repeat(levels(4), 2)[1:] if name == "heun" else levels(4)
    np.testing.assert_array_equal(np.array(seen, np.float32), wanted)


@pytest.mark.parametrize("name", SAMPLERS)
def test_guidance_within_an_interval_is_evaluated_there_only_and_keeps_the_samplers_history(name):
    inside, outside = [], []
    logsnrs = levels(6)
    low, high = float(logsnrs[2]), float(logsnrs[3])
    piecewise = ByLevel([(low, high, recording(inside))], otherwise=recording(outside))
    x = sample(name, 6, z_init=SMALL, denoise_fn=piecewise)
    jax.effects_barrier()
    assert set(inside) == {low, high} and not {low, high} & set(outside)
    # Both are the same function here, so that cutting the scan in three must change nothing.
    np.testing.assert_allclose(x, sample(name, 6, z_init=SMALL), atol=1e-6)


def test_the_evaluations_outside_the_interval_are_not_compiled_with_guidance():
    def twice(z, logsnr):
        return Prediction(denoise_fn(z, logsnr).x + jnp.sin(z) - jnp.sin(z))

    logsnrs = levels(8)
    piecewise = ByLevel([(float(logsnrs[3]), float(logsnrs[4]), twice)], otherwise=denoise_fn)
    program = jax.make_jaxpr(partial(SAMPLERS["ddim"].sample, piecewise, logsnrs=logsnrs))(KEYS, SMALL)
    scans = [equation for equation in program.eqns if equation.primitive.name == "scan"]
    assert [scan.params["length"] for scan in scans] == [3, 2, 3]
    assert ["sin" in str(scan.params["jaxpr"]) for scan in scans] == [False, True, False]


def test_experts_of_some_levels_are_each_evaluated_at_theirs_and_the_first_of_two_is_taken():
    seen: dict[str, list[float]] = {"noisy": [], "middle": [], "rest": []}
    logsnrs = [float(logsnr) for logsnr in levels(6)]
    experts = ByLevel(
        [(-np.inf, logsnrs[1], recording(seen["noisy"])), (logsnrs[1], logsnrs[3], recording(seen["middle"]))],
        otherwise=recording(seen["rest"]),
    )
    sample("ddim", 6, z_init=SMALL, denoise_fn=experts)
    jax.effects_barrier()
    assert seen == {"noisy": logsnrs[:2], "middle": logsnrs[2:4], "rest": logsnrs[4:]}


def test_a_predicted_variance_takes_the_place_of_gamma_pixel_by_pixel():
    """Left of the middle gamma is 0, right of it 1: each half is what that gamma draws for all."""
    width = SMALL.shape[2]
    right = jnp.broadcast_to(jnp.arange(width)[:, None] >= width // 2, SMALL.shape).astype(jnp.float32)

    def with_variance(z, logsnr):
        return denoise_fn(z, logsnr)._replace(gamma=right)

    mixed = sample("ddpm", 8, z_init=SMALL, denoise_fn=with_variance, gamma=0.3)
    small, large = (sample("ddpm", 8, z_init=SMALL, gamma=gamma) for gamma in (0.0, 1.0))
    np.testing.assert_allclose(mixed[:, :, : width // 2], small[:, :, : width // 2], atol=1e-5)
    np.testing.assert_allclose(mixed[:, :, width // 2 :], large[:, :, width // 2 :], atol=1e-5)
    assert np.abs(small - large).mean() > 0.01
    # The others have none of their own, and a variance changes nothing.
    np.testing.assert_array_equal(
        sample("dpmpp_2m", 8, z_init=SMALL, denoise_fn=with_variance), sample("dpmpp_2m", 8, z_init=SMALL)
    )


def test_only_a_start_from_noise_must_begin_with_noise():
    check_levels("ddim", np.array([-2.0, 0.0, 2.0], np.float32), from_noise=False)
    with pytest.raises(InputError, match="almost pure noise"):
        check_levels("ddim", np.array([-2.0, 0.0, 2.0], np.float32))


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_a_deterministic_sampler_draws_nothing(name):
    np.testing.assert_array_equal(sample(name, 4, z_init=SMALL), sample(name, 4, z_init=SMALL, keys=KEYS[::-1]))


@pytest.mark.parametrize("name", STOCHASTIC)
def test_a_stochastic_sampler_draws_by_its_keys(name):
    assert np.abs(sample(name, 8, z_init=SMALL) - sample(name, 8, z_init=SMALL, keys=KEYS[::-1])).mean() > 0.1


def test_ddpm_draws_with_more_noise_for_a_higher_gamma():
    stds = [sample("ddpm", 8, gamma=gamma, z_init=SMALL).std() for gamma in (0.0, 0.3, 1.0)]
    assert stds[0] + 0.01 < stds[1] < stds[2] - 0.01


def test_ddim_with_eta_1_is_ddpm_with_gamma_0():
    one, other = sample("ddim", 8, eta=1.0, z_init=SMALL), sample("ddpm", 8, gamma=0.0, z_init=SMALL)
    np.testing.assert_allclose(one, other, atol=1e-5)
    half = sample("ddim", 8, eta=0.5, z_init=SMALL)
    assert np.abs(half - one).mean() > 0.05


def test_eulers_method_is_a_straight_line_in_sigma():
    logsnrs = levels(2)
    sigma, sigma_next = np.exp(-0.5 * logsnrs)
    alpha, alpha_next = (1 / np.sqrt(1 + s**2) for s in (sigma, sigma_next))
    y, x = SMALL / alpha, denoise_fn(SMALL, jnp.full(B, logsnrs[0])).x
    z_next = alpha_next * (y + (sigma_next - sigma) * (y - x) / sigma)
    wanted = denoise_fn(z_next, jnp.full(B, logsnrs[1])).x
    np.testing.assert_allclose(sample("euler", 2, z_init=SMALL), wanted, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "num_steps", "spacing", "message"),
    [
        ("dpmpp_2m", 1, "uniform", r'"dpmpp_2m" needs at least 2 sampling steps \(got 1\)'),
        ("heun", 1, "karras", r'"heun" needs at least 2 sampling steps'),
        (
            "heun",
            32,
            "uniform",
            r'"heun" may divide the noise by 300 at most \(got 10\d\d\); take the step spacing "karras"',
        ),
    ],
)
def test_levels_that_a_sampler_cannot_use_are_an_error(name, num_steps, spacing, message):
    with pytest.raises(InputError, match=message):
        check_levels(name, levels(num_steps, spacing))


def test_sampling_starts_from_noise():
    check_levels("ddim", np.array([-6.5, 2.0]))
    with pytest.raises(InputError, match=r"logsnr -6 at most \(got -2.0\); begin the times at 1"):
        check_levels("ddim", np.array([-2.0, 2.0]))
