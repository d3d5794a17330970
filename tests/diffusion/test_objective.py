import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax.diffusion import gaussian
from imagen_jax.diffusion.denoise import TO_X
from imagen_jax.diffusion.objective import (
    WEIGHTINGS,
    diffusion_loss,
    logsnr_and_speed,
    relative_weight,
    stratified_times,
)
from imagen_jax.diffusion.schedules import cosine, linear
from imagen_jax.errors import InputError

B = 8
IMAGE = jax.random.uniform(jax.random.key(0), (B, 4, 4, 3), minval=-1.0)
KEYS = jax.random.split(jax.random.key(1), B)


def moderate(t):
    return 10.0 * (0.5 - t)


def loss(network, *, image=IMAGE, keys=KEYS, t=None, schedule=moderate, prediction="eps", weighting="eps"):
    return diffusion_loss(network, image, keys=keys, t=t, schedule=schedule, prediction=prediction, weighting=weighting)


def network_of(x_hat, prediction):
    """The network whose output stands for x_hat(z)."""

    def network(z, logsnr):
        x = x_hat(z)
        eps = gaussian.eps_from_x(z=z, x=x, logsnr=logsnr)
        return {"x": x, "eps": eps, "v": gaussian.v_from_x_eps(x=x, eps=eps, logsnr=logsnr)}[prediction]

    return network


def test_eps_weighting_of_eps_is_the_plain_squared_error():
    seen = []

    def network(z, logsnr):
        seen.append(z)
        return jnp.zeros_like(z)

    # alpha = 0 and sigma = 1 exactly, so that z is eps.
    losses = loss(network, schedule=lambda t: jnp.full_like(t, -1000.0))
    np.testing.assert_array_equal(losses, jnp.mean(jnp.square(seen[0]), axis=(1, 2, 3)))


@pytest.mark.parametrize("prediction", TO_X)
def test_the_weight_of_a_space_in_itself_is_exactly_one_at_any_noise_level(prediction):
    logsnr = jnp.array([-200.0, -20.0, 0.0, 20.0, 200.0])
    for weighting in (prediction, "plain"):
        weights = relative_weight(logsnr, speed=jnp.ones(5), weighting=weighting, prediction=prediction)
        np.testing.assert_array_equal(weights, 1)


@pytest.mark.parametrize("weighting", [name for name in WEIGHTINGS if name != "plain"])
def test_the_loss_of_an_estimate_is_the_same_in_all_three_spaces(weighting):
    def x_hat(z):
        return 0.8 * z - 0.1

    losses = {p: loss(network_of(x_hat, p), prediction=p, weighting=weighting) for p in TO_X}
    # |logsnr| up to 5: eps is x amplified by exp(5 / 2) = 12.
    np.testing.assert_allclose(losses["eps"], losses["x"], rtol=1e-4)
    np.testing.assert_allclose(losses["v"], losses["x"], rtol=1e-4)


# Weights of x_hat's squared error, as the papers have them, of (SNR, speed).
FORMULAS = {
    "eps": lambda snr, speed: snr,
    "v": lambda snr, speed: snr + 1,
    "x": lambda snr, speed: np.ones_like(snr),
    "min_snr": lambda snr, speed: np.minimum(snr, 5),
    "p2": lambda snr, speed: snr / (1 + snr),
    "edm": lambda snr, speed: edm_weight(sigma=snr**-0.5) * edm_density(np.log(snr)) * speed,
}


def edm_weight(*, sigma):
    return (sigma**2 + 0.5**2) / (sigma * 0.5) ** 2


def edm_density(logsnr):
    """Of logsnr = -2 ln sigma, for ln sigma ~ N(-1.2, 1.2^2)."""
    ln_sigma = -logsnr / 2
    return np.exp(-0.5 * ((ln_sigma + 1.2) / 1.2) ** 2) / (1.2 * np.sqrt(2 * np.pi)) / 2


@pytest.mark.parametrize("prediction", TO_X)
@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_weights_follow_their_formula(weighting, prediction):
    snr, speed = np.array([1e-8, 0.01, 1.0, 5.0, 100.0, 1e8]), np.array([1e4, 3.0, 6.0, 7.0, 20.0, 1e4])
    in_x_space = FORMULAS[prediction if weighting == "plain" else weighting](snr, speed)
    logsnr = jnp.asarray(np.log(snr), jnp.float32)
    weights = relative_weight(logsnr, speed=jnp.float32(speed), weighting=weighting, prediction=prediction)
    # float32's rounding of a logsnr of 18.
    np.testing.assert_allclose(weights, in_x_space / FORMULAS[prediction](snr, speed), rtol=1e-5)


@pytest.mark.parametrize("prediction", TO_X)
@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_weights_where_snr_overflows_are_numbers(weighting, prediction):
    logsnr = jnp.array([-200.0, 200.0])
    weights = relative_weight(logsnr, speed=jnp.ones(2), weighting=weighting, prediction=prediction)
    assert not np.isnan(weights).any()


@pytest.mark.parametrize("schedule", [cosine, linear])
def test_the_expected_edm_loss_is_edms_with_any_schedule(schedule):
    # The mean squared error of x_hat as a function of logsnr; small where schedules end: the linear one at -10 and 9.
    def error(logsnr):
        return np.exp(-np.square(logsnr) / 8)

    grid = np.linspace(-30, 30, 100_001)
    expected = np.trapezoid(edm_weight(sigma=np.exp(-grid / 2)) * edm_density(grid) * error(grid), grid)
    t = (jnp.arange(100_000) + 0.5) / 100_000
    logsnr, speed = logsnr_and_speed(schedule, t)
    weights = relative_weight(logsnr, speed=speed, weighting="edm", prediction="x")
    np.testing.assert_allclose(np.mean(np.asarray(weights) * error(np.asarray(logsnr))), expected, rtol=1e-4)


@pytest.mark.parametrize("schedule", [cosine, linear])
def test_the_loss_takes_the_speed_of_its_schedule(schedule):
    t = jnp.linspace(0.1, 0.9, B)
    plain, edm = (
        loss(lambda z, logsnr: 0.5 * z, t=t, schedule=schedule, prediction="x", weighting=weighting)
        for weighting in ("plain", "edm")
    )
    logsnr = np.asarray(schedule(t))
    speed = (np.asarray(schedule(t - 1e-3)) - np.asarray(schedule(t + 1e-3))) / 2e-3
    np.testing.assert_allclose(edm / plain, FORMULAS["edm"](np.exp(logsnr), speed), rtol=1e-3)


@pytest.mark.parametrize("prediction", TO_X)
def test_a_perfect_network_has_no_loss(prediction):
    losses = loss(network_of(lambda z: IMAGE, prediction), schedule=cosine, prediction=prediction, weighting=prediction)
    assert losses.shape == (B,) and losses.dtype == jnp.float32
    np.testing.assert_allclose(losses, 0, atol=1e-6)


def test_the_loss_of_an_example_does_not_depend_on_the_others():
    def network(z, logsnr):
        return 0.5 * z

    whole = loss(network)
    mixed = loss(network, image=IMAGE.at[1:].set(-IMAGE[1:]), keys=KEYS.at[1:].set(KEYS[:-1]))
    np.testing.assert_array_equal(mixed[0], whole[0])
    assert (np.abs(mixed[1:] - whole[1:]) > 1e-4).all()
    part = loss(network, image=IMAGE[2:4], keys=KEYS[2:4])
    np.testing.assert_allclose(part, whole[2:4], rtol=1e-6)


def times_of(*, t=None, keys=KEYS):
    """The times that a loss took: with t as schedule, and a network whose squared error is logsnr."""

    def network(z, logsnr):
        return jnp.sqrt(logsnr)[:, None, None, None] * jnp.ones_like(z)

    image = jnp.zeros((len(keys), 1, 1, 1))
    return loss(network, image=image, keys=keys, t=t, schedule=lambda t: t, prediction="x", weighting="x")


def assert_uniform(t):
    n = len(t)
    counts, _ = np.histogram(np.asarray(t), bins=10, range=(0.0, 1.0))
    assert counts.sum() == n
    # Five standard deviations of a binomial count.
    np.testing.assert_allclose(counts, n / 10, atol=5 * np.sqrt(n * 0.1 * 0.9))


def test_t_is_uniform():
    assert_uniform(times_of(keys=jax.random.split(jax.random.key(2), 20_000)))


def test_given_times_are_taken_and_the_noise_stays():
    seen = []

    def network(z, logsnr):
        seen.append(z)
        return z

    t = jnp.linspace(0.0, 1.0, B)
    np.testing.assert_allclose(times_of(t=t), t, atol=1e-6)
    # Pure noise, whatever the time.
    for times in (None, t):
        loss(network, t=times, schedule=lambda t: jnp.full_like(t, -1000.0))
    np.testing.assert_array_equal(*seen)


def test_each_stratified_time_is_uniform():
    keys = jax.random.split(jax.random.key(4), 2_000)
    t = jax.vmap(lambda key: stratified_times(key, index=jnp.arange(3), batch_size=3))(keys)
    for column in np.asarray(t).T:
        assert_uniform(column)


@pytest.mark.parametrize("seed", range(5))
def test_each_of_as_many_intervals_as_examples_has_one_stratified_time(seed):
    t = np.asarray(stratified_times(jax.random.key(seed), index=jnp.arange(64), batch_size=64))
    np.testing.assert_array_equal(np.sort(np.floor(t * 64)), np.arange(64))


def test_stratified_times_of_a_share_are_those_of_the_whole():
    whole, share = (
        stratified_times(jax.random.key(0), index=index, batch_size=64)
        for index in (jnp.arange(64), 24 + jnp.arange(8))
    )
    np.testing.assert_array_equal(share, whole[24:32])


def test_t_and_eps_are_drawn_independently():
    drawn = []

    def network(z, logsnr):
        drawn.append((z, logsnr))
        return z

    n = 2_000
    loss(
        network, image=jnp.zeros((n, 1, 1, 2)), keys=jax.random.split(jax.random.key(3), n), schedule=lambda t: t - 1000
    )
    ((z, t),) = drawn
    correlation = np.corrcoef(np.concatenate([np.asarray(t)[None], np.asarray(z).reshape(n, 2).T]))
    np.testing.assert_allclose(correlation, np.eye(3), atol=5 / np.sqrt(n))


def test_an_unknown_weighting_lists_the_choices():
    with pytest.raises(
        InputError, match='unknown loss weighting "snr"; choose from: edm, eps, min_snr, p2, plain, v, x'
    ):
        loss(lambda z, logsnr: z, weighting="snr")
