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
from typing import Any

import jax
import numpy as np

Array = jax.Array | np.ndarray

# image, text_emb, text_mask and, for super-resolution stages, low_res.
Batch = Mapping[str, Array]

# A nested dict of arrays (flax.linen parameters).
Params = Mapping[str, Any]

# (z [B,H,W,3], logsnr [B]) -> x_hat [B,H,W,3]: the network with all its conditioning inside.
DenoiseFn = Callable[[jax.Array, jax.Array], jax.Array]
