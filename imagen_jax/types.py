"""Shape legend and array contracts, shared by every module.

Legend: B batch, H W pixels, C channels, h w pixels of the low-resolution input, L text tokens, D text width.
Images are NHWC, RGB.

| name       | shape, dtype      | range and units                                          |
|------------|-------------------|----------------------------------------------------------|
| image      | [B,H,W,3] float32 | [-1, 1]                                                  |
| low_res    | [B,h,w,3] float32 | [-1, 1], neither upsampled nor noised yet                |
| text_emb   | [B,L,D] bfloat16  | last layer of the frozen text encoder                    |
| text_mask  | [B,L] bool        | True = a real token; at least one a row                  |
| t          | [B] float32       | 0 clean, 1 noise                                         |
| logsnr     | [B] float32       | log(alpha^2 / sigma^2); falls as t rises                 |
| aug_logsnr | [B] float32       | noise level of the low-resolution input                  |
| loss       | [B] float32       | per example, before the mean                             |
| samples    | [B,H,W,3] float32 | [-1, 1]; uint8 0..255 by rounding, once they leave JAX   |
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

Array = jax.Array | np.ndarray

# What a network is told besides z and its noise level, by name: text_emb and text_mask; of a super-resolution stage
# low_res and aug_logsnr; and whatever a condition of `conditions`, or of the user's own, adds. Each is [B,...]. Only
# conditions and networks know the names: what stands between them passes the mapping on unread.
Conditions = Mapping[str, Array]

# What the data pipeline makes: "image", and what the conditions are made of.
Batch = Mapping[str, Array]

# A nested dict of arrays (flax.linen parameters).
Params = Mapping[str, Any]


class Prediction(NamedTuple):
    """What a denoiser says of z.

    Attributes:
      x: x_hat, of z's shape.
      gamma: None or, of z's shape and in [0, 1], the variance that the network asks for in an ancestral step:
        small^(1 - gamma) * large^gamma, of the two that `diffusion.gaussian.reverse_step` returns (Nichol & Dhariwal,
        arXiv 2102.09672, Eq. 15).
    """

    x: jax.Array
    gamma: jax.Array | None = None


# (z [B,...], logsnr [B]) -> output [B,...]: a network with all its conditions inside.
NetworkFn = Callable[[jax.Array, jax.Array], jax.Array]

# The same -> Prediction.
DenoiseFn = Callable[[jax.Array, jax.Array], Prediction]
