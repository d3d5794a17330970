import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax.diffusion import gaussian
from imagen_jax.diffusion.denoise import TO_X
from imagen_jax.diffusion.objective import WEIGHTINGS, diffusion_loss, relative_weight
from imagen_jax.diffusion.schedules import cosine
from imagen_jax.errors import InputError

B = 8
IMAGE = jax.random.uniform(jax.random.key(0), (B, 4, 4, 3), minval=-1.0)
KEYS = jax.random.split(jax.random.key(1), B)


def moderate(t):
    return 10.0 * (0.5 - t)


def loss(network, *, image=IMAGE, keys=KEYS, schedule=moderate, prediction="eps", weighting="eps"):
    return diffusion_loss(network, image, keys=keys, schedule=schedule, prediction=prediction, weighting=weighting)


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
    np.testing.assert_array_equal(relative_weight(logsnr, weighting=prediction, prediction=prediction), 1)


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_the_loss_of_an_estimate_is_the_same_in_all_three_spaces(weighting):
    def x_hat(z):
        return 0.8 * z - 0.1

    losses = {p: loss(network_of(x_hat, p), prediction=p, weighting=weighting) for p in TO_X}
    # |logsnr| up to 5: eps is x amplified by exp(5 / 2) = 12.
    np.testing.assert_allclose(losses["eps"], losses["x"], rtol=1e-4)
    np.testing.assert_allclose(losses["v"], losses["x"], rtol=1e-4)


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_weights_follow_their_formula_in_x_space(weighting):
    snr = np.array([0.01, 1.0, 5.0, 100.0])
    expected = {"eps": snr, "v": snr + 1, "x": np.ones(4), "min_snr": np.minimum(snr, 5)}[weighting]
    weights = relative_weight(jnp.asarray(np.log(snr), jnp.float32), weighting=weighting, prediction="x")
    np.testing.assert_allclose(weights, expected, rtol=1e-5)


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


def test_t_is_uniform():
    n = 20_000

    def network(t, logsnr):
        return jnp.sqrt(logsnr)[:, None, None, None] * jnp.ones_like(t)

    # The identity as schedule, and a network whose squared error is t: the loss is the t that was drawn.
    t = loss(
        network,
        image=jnp.zeros((n, 1, 1, 1)),
        keys=jax.random.split(jax.random.key(2), n),
        schedule=lambda t: t,
        prediction="x",
        weighting="x",
    )
    counts, _ = np.histogram(np.asarray(t), bins=10, range=(0.0, 1.0))
    assert counts.sum() == n
    # Five standard deviations of a binomial count.
    np.testing.assert_allclose(counts, n / 10, atol=5 * np.sqrt(n * 0.1 * 0.9))


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
    with pytest.raises(InputError, match='unknown loss weighting "snr"; choose from: eps, min_snr, v, x'):
        loss(lambda z, logsnr: z, weighting="snr")
