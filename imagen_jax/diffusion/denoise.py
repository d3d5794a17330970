"""What the network's output stands for: eps, v or x, and where it says so, a variance."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from imagen_jax.diffusion import gaussian
from imagen_jax.registry import lookup
from imagen_jax.types import DenoiseFn, NetworkFn, Prediction

# output, z [B,...], logsnr [B] -> x_hat [B,...]
TO_X: Mapping[str, Callable[[jax.Array, jax.Array, jax.Array], jax.Array]] = {
    "eps": lambda output, z, logsnr: gaussian.x_from_eps(z=z, eps=output, logsnr=logsnr),
    "v": lambda output, z, logsnr: gaussian.x_from_v(z=z, v=output, logsnr=logsnr),
    "x": lambda output, z, logsnr: output,
}


def to_x_hat(output: jax.Array, *, z: jax.Array, logsnr: jax.Array, prediction: str) -> jax.Array:
    """The clean image that a network's `output` implies. Shapes [B,...]; logsnr [B].

    Raises:
      InputError: `prediction` is not a key of `TO_X`.
    """
    return lookup(TO_X, prediction, what="prediction type")(output, z, logsnr)


def make_denoise_fn(network: NetworkFn, *, prediction: str) -> DenoiseFn:
    """Wraps network(z, logsnr) -> output into denoise_fn(z, logsnr) -> Prediction.

    An output of twice the channels of z holds a variance in its second half, in [-1, 1] (Nichol & Dhariwal, arXiv
    2102.09672, as guided-diffusion and DeepFloyd IF lay it out): gamma = (output + 1) / 2.
    """

    def denoise_fn(z: jax.Array, logsnr: jax.Array) -> Prediction:
        output, gamma = network(z, logsnr), None
        if output.shape[-1] == 2 * z.shape[-1]:
            output, variance = jnp.split(output, 2, axis=-1)
            gamma = 0.5 * (variance + 1.0)
        return Prediction(to_x_hat(output, z=z, logsnr=logsnr, prediction=prediction), gamma)

    return denoise_fn
