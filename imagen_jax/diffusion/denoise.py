"""What the network's output stands for: eps, v or x."""

from collections.abc import Callable, Mapping

import jax

from imagen_jax.diffusion import gaussian
from imagen_jax.registry import lookup
from imagen_jax.types import DenoiseFn

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


def make_denoise_fn(network: DenoiseFn, *, prediction: str) -> DenoiseFn:
    """Wraps network(z, logsnr) -> output into denoise_fn(z, logsnr) -> x_hat."""

    def denoise_fn(z: jax.Array, logsnr: jax.Array) -> jax.Array:
        return to_x_hat(network(z, logsnr), z=z, logsnr=logsnr, prediction=prediction)

    return denoise_fn
