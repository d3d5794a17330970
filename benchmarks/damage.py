"""What can be wrong with a set of images, in steps: for a distance to be tried on."""

import io

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from imagen_jax.types import Array


def blur(x: Array, sigma_px: Array) -> jax.Array:
    """Images [N,H,W,3] of any range, each with a Gaussian of its own sigma_px [N] > 0; at borders of fewer pixels."""

    def weights(size: int) -> jax.Array:
        distance = jnp.arange(size)[:, None] - jnp.arange(size)[None, :]
        powers = -0.5 * (distance[None] / jnp.asarray(sigma_px)[:, None, None]) ** 2
        return jax.nn.softmax(powers, axis=-1)

    x = jnp.asarray(x, jnp.float32)
    x = jnp.einsum("nph,nhwc->npwc", weights(x.shape[1]), x)
    return jnp.einsum("npw,nhwc->nhpc", weights(x.shape[2]), x)


def blurred(images: np.ndarray, sigma_px: float) -> np.ndarray:
    """uint8 [N,H,W,3] -> uint8."""
    return _to_uint8(np.asarray(blur(images, np.full(len(images), sigma_px, np.float32))))


def noised(images: np.ndarray, deviation: float, *, seed: int = 0) -> np.ndarray:
    """uint8 [N,H,W,3] with normal noise of a deviation in 0..255 -> uint8."""
    noise = np.random.default_rng(seed).standard_normal(images.shape, np.float32)
    return _to_uint8(images + np.float32(deviation) * noise)


def shuffled(images: np.ndarray, cells: int, *, seed: int = 0) -> np.ndarray:
    """uint8 [N,H,W,3]: the cells x cells squares of each image in an order of its own."""
    rng = np.random.default_rng(seed)
    n, height, width, _ = images.shape
    squares = images.reshape(n, cells, height // cells, cells, width // cells, 3).swapaxes(2, 3)
    flat = squares.reshape(n, cells * cells, *squares.shape[3:])
    flat = np.stack([image[rng.permutation(cells * cells)] for image in flat])
    return flat.reshape(squares.shape).swapaxes(2, 3).reshape(images.shape)


def colours_swapped(images: np.ndarray, share: float) -> np.ndarray:
    """uint8 [N,H,W,3] with red and blue exchanged in the first `share` of the images."""
    count = round(share * len(images))
    return np.concatenate([images[:count, :, :, ::-1], images[count:]])


def faded(images: np.ndarray, contrast: float) -> np.ndarray:
    """uint8 [N,H,W,3]: distances to white times `contrast`."""
    return _to_uint8(255.0 - np.float32(contrast) * (255.0 - images.astype(np.float32)))


def compressed(images: np.ndarray, quality: int) -> np.ndarray:
    """uint8 [N,H,W,3] after JPEG of this quality."""
    found = []
    for image in images:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=quality)
        found.append(np.asarray(Image.open(file)))
    return np.stack(found)


def _to_uint8(x: np.ndarray) -> np.ndarray:
    return np.round(np.clip(x, 0.0, 255.0)).astype(np.uint8)
