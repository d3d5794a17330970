"""The three ways in which FIDs bring images to the network's size. They give different distances, and never compare.

Each is linear in rows and in columns, and so a matrix for each.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from imagen_jax.types import Array


class Flavour(NamedTuple):
    """How uint8 images become what the network sees.

    Attributes:
      weights: (size_in, size_out) -> float64 [size_out, size_in], of one axis.
      scale: of resized values in 0..255 to the network's range.
    """

    weights: Callable[[int, int], np.ndarray]
    scale: Callable[[jax.Array], jax.Array]


def prepare(images: Array, *, flavour: Flavour, size: int) -> jax.Array:
    """uint8 [N,H,W,3] -> float32 [N,size,size,3], resized and scaled."""
    rows, columns = (
        jnp.asarray(flavour.weights(length, size).astype(np.float32)) for length in (images.shape[1], images.shape[2])
    )
    highest = jax.lax.Precision.HIGHEST
    x = jnp.einsum("pw,nhwc->nhpc", columns, jnp.asarray(images, jnp.float32), precision=highest)
    x = jnp.einsum("ph,nhwc->npwc", rows, x, precision=highest)
    return flavour.scale(x)


def tf1_bilinear(size_in: int, size_out: int) -> np.ndarray:
    """TensorFlow 1's bilinear: pixel i is at i * size_in / size_out, and nothing is smoothed before shrinking."""
    # TensorFlow's own float32: between hundreds of pixels its rounding is 1e-5 of a pixel.
    at = np.arange(size_out, dtype=np.float32) * np.float32(size_in / size_out)
    return _linear(at, size_in)


def half_pixel_bilinear(size_in: int, size_out: int) -> np.ndarray:
    """PyTorch's bilinear: pixel i is at (i + 1/2) * size_in / size_out - 1/2; nothing is smoothed before shrinking."""
    half = np.float32(0.5)
    at = (np.arange(size_out, dtype=np.float32) + half) * np.float32(size_in / size_out) - half
    return _linear(np.maximum(at, 0.0), size_in)


def pil_bicubic(size_in: int, size_out: int) -> np.ndarray:
    """Pillow's bicubic: half-pixel, Keys' cubic with a = -1/2, as wide as the ratio where the image shrinks."""
    ratio = size_in / size_out
    centres = (np.arange(size_out) + 0.5) * ratio
    x = np.abs(np.arange(size_in)[None, :] + 0.5 - centres[:, None]) / max(ratio, 1.0)
    near = 1.5 * x**3 - 2.5 * x**2 + 1.0
    far = -0.5 * x**3 + 2.5 * x**2 - 4.0 * x + 2.0
    weights = np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))
    return weights / weights.sum(axis=1, keepdims=True)


def _linear(at: np.ndarray, size_in: int) -> np.ndarray:
    lower = np.floor(at).astype(int)
    share = at.astype(np.float64) - lower
    pixels = np.eye(size_in)
    return (1.0 - share)[:, None] * pixels[lower] + share[:, None] * pixels[np.minimum(lower + 1, size_in - 1)]


def _around_128(x: jax.Array) -> jax.Array:
    return (x - 128.0) / 128.0


def _to_unit(x: jax.Array) -> jax.Array:
    return 2.0 * (x / 255.0) - 1.0


def _clipped_around_128(x: jax.Array) -> jax.Array:
    # A cubic overshoots at edges.
    return _around_128(jnp.clip(x, 0.0, 255.0))


# Sources: TTUR's fid.py (Heusel et al., arXiv 1706.08500), as in torch-fidelity; pytorch-fid; clean-fid (Parmar et
# al., arXiv 2104.11222).
FLAVOURS = {
    "tf_legacy": Flavour(tf1_bilinear, _around_128),
    "pytorch": Flavour(half_pixel_bilinear, _to_unit),
    "clean": Flavour(pil_bicubic, _clipped_around_128),
}
