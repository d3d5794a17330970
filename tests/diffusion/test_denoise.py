import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax.diffusion import gaussian
from imagen_jax.diffusion.denoise import TO_X, make_denoise_fn, to_x_hat
from imagen_jax.errors import InputError

LOGSNR = jnp.array([-6.0, 0.0, 6.0])


@pytest.mark.parametrize("prediction", TO_X)
def test_what_a_perfect_network_puts_out_is_the_clean_image(prediction):
    x = jax.random.uniform(jax.random.key(0), (3, 4, 4, 3), minval=-1.0)
    eps = jax.random.normal(jax.random.key(1), x.shape)
    outputs = {"eps": eps, "x": x, "v": gaussian.v_from_x_eps(x=x, eps=eps, logsnr=LOGSNR)}
    z = gaussian.diffuse(x=x, eps=eps, logsnr=LOGSNR)
    denoise_fn = make_denoise_fn(lambda z, logsnr: outputs[prediction], prediction=prediction)
    # exp(6 / 2) = 20 roundings of z.
    np.testing.assert_allclose(denoise_fn(z, LOGSNR).x, x, rtol=0, atol=1e-5)


def test_the_network_sees_z_and_logsnr_as_they_are():
    z = jnp.ones((3, 2, 2, 3))
    denoise_fn = make_denoise_fn(lambda z, logsnr: z * logsnr[:, None, None, None], prediction="x")
    np.testing.assert_array_equal(denoise_fn(z, LOGSNR).x[:, 0, 0, 0], LOGSNR)


def test_an_output_of_twice_the_channels_holds_a_variance():
    z = jnp.ones((3, 2, 2, 3))
    variance = jnp.linspace(-1.0, 1.0, z.size).reshape(z.shape)
    denoise_fn = make_denoise_fn(lambda z, logsnr: jnp.concatenate([0.5 * z, variance], axis=-1), prediction="x")
    prediction = denoise_fn(z, LOGSNR)
    np.testing.assert_array_equal(prediction.x, 0.5 * z)
    assert prediction.gamma is not None
    np.testing.assert_allclose(prediction.gamma, 0.5 * (variance + 1.0), atol=1e-7)


def test_an_unknown_prediction_lists_the_choices():
    z = jnp.ones((3, 2, 2, 3))
    with pytest.raises(InputError, match='unknown prediction type "epsilon"; choose from: eps, v, x'):
        to_x_hat(z, z=z, logsnr=LOGSNR, prediction="epsilon")
