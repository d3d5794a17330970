import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax.diffusion.guidance import Branch, ByLevel, check_weights, guide, interleave
from imagen_jax.errors import InputError
from imagen_jax.types import Prediction

B = 3
Z = jax.random.normal(jax.random.key(0), (B, 4, 4, 3))
LOGSNR = jnp.array([-1.0, 0.0, 1.0])


class Network:
    """Predicts scale * (slope * z + logsnr): slope of each example, scale of the parameters. Counts its evaluations."""

    def __init__(self):
        self.batches: list[int] = []

    def __call__(self, params, conditions):
        slope = jnp.asarray(conditions["slope"])[:, None, None, None]

        def denoise_fn(z, logsnr):
            self.batches.append(len(z))
            scale = 1.0 if params is None else params["scale"]
            return Prediction(scale * (slope * z + logsnr[:, None, None, None]), gamma=0 * z + slope)

        return denoise_fn


def slope(value):
    return {"slope": jnp.full(B, value)}


def expected(value, scale=1.0):
    return scale * (value * Z + LOGSNR[:, None, None, None])


def guided(*branches, network=None, **settings):
    return guide(network or Network(), branches, **settings)(Z, LOGSNR)


@pytest.mark.parametrize(("weight", "alone"), [(1.0, 2.0), (0.0, 1.0)])
def test_weight_one_is_the_first_branch_and_zero_the_other(weight, alone):
    x = guided(Branch(weight, slope(2.0)), Branch(1.0 - weight, slope(1.0))).x
    np.testing.assert_allclose(x, expected(alone), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("weight", [0.5, 3.0, jnp.float32(7.5)])
def test_other_weights_extrapolate_linearly_by_one_evaluation(weight):
    network = Network()
    x = guided(Branch(weight, slope(2.0)), Branch(1.0 - weight, slope(1.0)), network=network).x
    np.testing.assert_allclose(x, expected(1.0) + weight * (expected(2.0) - expected(1.0)), rtol=1e-5, atol=1e-5)
    assert network.batches == [2 * B]


def test_three_branches_are_the_sum_of_each_times_its_weight():
    network = Network()
    branches = [Branch(4.0, slope(2.0)), Branch(-1.5, slope(1.0)), Branch(-1.5, slope(-1.0))]
    x = guided(*branches, network=network).x
    np.testing.assert_allclose(x, 4.0 * expected(2.0) - 1.5 * (expected(1.0) + expected(-1.0)), rtol=1e-5, atol=1e-5)
    assert network.batches == [3 * B]


def test_branches_of_other_parameters_are_evaluated_by_themselves():
    network, strong, weak = Network(), {"scale": 1.0}, {"scale": 0.5}
    branches = [
        Branch(3.0, slope(2.0), strong),
        Branch(-1.0, slope(2.0), weak),
        Branch(-1.0, slope(1.0), strong),
    ]
    x = guided(*branches, network=network).x
    wanted = 3.0 * expected(2.0) - expected(2.0, scale=0.5) - expected(1.0)
    np.testing.assert_allclose(x, wanted, rtol=1e-5, atol=1e-5)
    assert network.batches == [2 * B, B]


def test_the_variance_is_the_first_branchs():
    gamma = guided(Branch(3.0, slope(0.75)), Branch(-2.0, slope(0.25))).gamma
    np.testing.assert_array_equal(gamma, np.full(Z.shape, 0.75, np.float32))


@pytest.mark.parametrize("phi", [0.0, 0.5, 1.0])
def test_rescaling_brings_the_contrast_back_towards_that_of_the_first_branch(phi):
    branches = [Branch(4.0, slope(2.0)), Branch(-3.0, slope(1.0))]
    plain, rescaled = (np.asarray(guided(*branches, rescale=rescale).x) for rescale in (0.0, phi))
    axes = (1, 2, 3)
    wanted = phi * np.asarray(expected(2.0)).std(axis=axes) + (1 - phi) * plain.std(axis=axes)
    np.testing.assert_allclose(rescaled.std(axis=axes), wanted, rtol=1e-4)
    # A factor for each image, and nothing else.
    ratio = rescaled / plain
    np.testing.assert_allclose(ratio, ratio[:, :1, :1, :1] + 0 * ratio, rtol=1e-4)


def test_rescaling_an_image_of_one_colour_stays_finite():
    branches = [Branch(4.0, slope(0.0)), Branch(-3.0, slope(0.0))]
    assert np.isfinite(guided(*branches, rescale=1.0).x).all()


@pytest.mark.parametrize(
    "weights", [(3.0, -2.0), (1.0,), (0.2, 0.3, 0.5), (np.float32(7.3), np.float32(1) - np.float32(7.3))]
)
def test_weights_of_the_sum_one_are_right(weights):
    check_weights([Branch(weight, {}) for weight in weights])


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ((3.0, -1.0), r"sum 1 \(got 3 \+ -1 = 2\)"),
        ((), r"sum 1 \(got  = 0\)"),
        ((float("nan"), 1.0), "nan"),
        ((float("inf"), 1.0), "inf"),
    ],
)
def test_weights_of_another_sum_are_one_clear_error(weights, message):
    with pytest.raises(InputError, match=message):
        check_weights([Branch(weight, {}) for weight in weights])


def test_batches_are_interleaved_so_that_each_example_stays_where_it_is():
    np.testing.assert_array_equal(interleave(jnp.arange(3), 10 + jnp.arange(3)), [0, 10, 1, 11, 2, 12])


def test_an_interval_includes_its_ends():
    inside, outside = Network()(None, slope(1.0)), Network()(None, slope(2.0))
    choice = ByLevel([(-1.0, 2.0, inside)], otherwise=outside)
    assert [choice.at(logsnr) is inside for logsnr in (-1.1, -1.0, 0.0, 2.0, 2.1)] == [False, True, True, True, False]
