"""Convolutional building blocks. Feature maps are [B,H,W,C]; `dtype` is the compute type, parameters are float32."""

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

Dtype = Any
Resample = Literal["none", "down", "up"]


def num_groups(channels: int) -> int:
    """Groups for GroupNorm: 32 as in ADM, fewer where that would leave a group under four channels."""
    return max(groups for groups in range(1, 33) if channels % groups == 0 and (channels >= 4 * groups or groups == 1))


def group_norm(channels: int, *, dtype: Dtype, name: str) -> nn.GroupNorm:
    """GroupNorm with statistics in float32 (flax's default) and the output in `dtype`."""
    return nn.GroupNorm(num_groups(channels), epsilon=1e-5, dtype=dtype, name=name)


def conv3x3(channels: int, *, dtype: Dtype, name: str, strides: int = 1, zero_init: bool = False) -> nn.Conv:
    """3x3 convolution; `zero_init` starts it at exactly zero, so that what it ends contributes nothing at first."""
    init = nn.initializers.zeros if zero_init else nn.linear.default_kernel_init
    return nn.Conv(channels, (3, 3), strides=(strides, strides), dtype=dtype, kernel_init=init, name=name)


def downsample(x: jax.Array) -> jax.Array:
    """2x2 average pooling: [B,H,W,C] -> [B,H/2,W/2,C]."""
    return nn.avg_pool(x, (2, 2), strides=(2, 2))


def upsample(x: jax.Array) -> jax.Array:
    """Nearest neighbour: [B,H,W,C] -> [B,2H,2W,C]."""
    b, h, w, c = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None, :], (b, h, 2, w, 2, c))
    return x.reshape(b, 2 * h, 2 * w, c)


def scale_shift(x: jax.Array, emb: jax.Array, *, dtype: Dtype, name: str) -> jax.Array:
    """x * (1 + scale) + shift, both linear in swish(emb) [B,E]. Must be called inside a compact module."""
    channels = x.shape[-1]
    scale, shift = jnp.split(nn.Dense(2 * channels, dtype=dtype, name=name)(nn.swish(emb)), 2, axis=-1)
    return x * (1.0 + scale[:, None, None, :]) + shift[:, None, None, :]


class ResBlock(nn.Module):
    """BigGAN-style residual block of the ADM U-Net (arXiv 2105.05233; Imagen F.1), with scale-shift norm.

    GN-swish-[resample]-conv3, GN-(scale, shift by emb)-swish-conv3 (from zero), plus the [resampled] input, by a 1x1
    convolution where the channels change.
    """

    channels: int
    resample: Resample = "none"
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, emb: jax.Array) -> jax.Array:
        """x [B,H,W,C], emb [B,E] -> [B,H',W',channels]."""
        resample = {"none": lambda y: y, "down": downsample, "up": upsample}[self.resample]
        h = nn.swish(group_norm(x.shape[-1], dtype=self.dtype, name="norm_in")(x))
        h = conv3x3(self.channels, dtype=self.dtype, name="conv_in")(resample(h))
        h = group_norm(self.channels, dtype=self.dtype, name="norm_out")(h)
        h = nn.swish(scale_shift(h, emb, dtype=self.dtype, name="emb"))
        h = conv3x3(self.channels, dtype=self.dtype, name="conv_out", zero_init=True)(h)
        x = resample(x)
        if x.shape[-1] != self.channels:
            x = nn.Conv(self.channels, (1, 1), dtype=self.dtype, name="shortcut")(x)
        return x + h


class EfficientResBlock(nn.Module):
    """Residual block of the Efficient U-Net (Imagen, appendix B.1): GN-swish-conv3 twice, a 1x1 conv as shortcut.

    (shortcut_factor * shortcut(x) + h) * sum_factor; see `efficient_unet.RSQRT2_PLACES` for the two factors.
    """

    channels: int
    shortcut_factor: float = 1.0
    sum_factor: float = 1.0
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """x [B,H,W,C] -> [B,H,W,channels]."""
        h = nn.swish(group_norm(x.shape[-1], dtype=self.dtype, name="norm_in")(x))
        h = conv3x3(self.channels, dtype=self.dtype, name="conv_in")(h)
        h = nn.swish(group_norm(self.channels, dtype=self.dtype, name="norm_out")(h))
        h = conv3x3(self.channels, dtype=self.dtype, name="conv_out", zero_init=True)(h)
        shortcut = nn.Conv(self.channels, (1, 1), dtype=self.dtype, name="shortcut")(x)
        return (shortcut * self.shortcut_factor + h) * self.sum_factor
