"""The super-resolution stages' Efficient U-Net (Imagen, appendix B.1, F.2, F.3)."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from imagen_jax.errors import InputError
from imagen_jax.fields import Field
from imagen_jax.models.attention import ImageTextAttention
from imagen_jax.models.base import UNET_TAKES, Encoded, text_of, with_low_res
from imagen_jax.models.embeddings import Conditioning
from imagen_jax.models.fields import SHARED_FIELDS, check_levels, check_pooling
from imagen_jax.models.layers import Dtype, EfficientResBlock, conv3x3, group_norm, scale_shift, upsample
from imagen_jax.registry import lookup
from imagen_jax.types import Conditions

# What stands behind a level's residual blocks: nothing, self-attention with the text's keys and values beside the
# image's own (F.2), or a cross-attention to the text alone (F.3).
ATTENTION_KINDS: Mapping[str, tuple[bool, bool]] = {
    "none": (False, False),
    "joint": (True, True),
    "cross": (True, False),
}


class Factors(NamedTuple):
    """What a long skip connection, a residual block's shortcut and a residual block's sum are multiplied by."""

    skip: float = 1.0
    shortcut: float = 1.0
    sum: float = 1.0


# Skip connections are scaled by 1 / sqrt(2) (Imagen, appendix B.1), which is read in three ways: one place in each.
RSQRT2_PLACES: Mapping[str, Factors] = {
    "skip": Factors(skip=2**-0.5),  # the U-Net's long skip connections: imagen-pytorch
    "residual": Factors(sum=2**-0.5),  # (x + h) / sqrt(2), the sum that ends a residual block: DeepFloyd IF
    "shortcut": Factors(shortcut=2**-0.5),  # x / sqrt(2) + h, a residual block's shortcut alone: NVIDIA's NeMo
}


class EfficientUNet(nn.Module):
    """U-Net that strides first on the way down and last on the way up; defaults are the paper's 64 -> 256 stage.

    No skip connection joins input and output at full resolution (appendix B.1): one would carry the noise of z past all
    that could remove it. Down block: strided convolution, scale and shift by the conditioning vector, residual blocks,
    attention. Up block: the skip connection, scale and shift, residual blocks, attention, then doubling and a
    convolution. Skip connections are concatenated.

    Attributes:
      channels: width of the first level.
      channel_mults: width of each level, as a multiple of `channels`.
      num_blocks: residual blocks of each level.
      attention: for each level, a key of `ATTENTION_KINDS`.
      num_heads: heads of an attention.
      skip_per_block: True: one skip connection a residual block (0.57B parameters for F.2, near the 600M stated);
        False: one a level (0.47B for F.3, near the 400M stated). The paper's listings leave it open.
      rsqrt2_on: where the paper's factor 1 / sqrt(2) stands, a key of `RSQRT2_PLACES`, which names who reads it so.
      low_res_residual: add the low-resolution input, scaled by its alpha, to the output. Only for networks that predict
        x: it is then the linear estimate of x from that input, and the network learns the difference. Not in the paper:
        ours, for trainings of minutes.
      out_channels: channels of the output.
      remat: recompute each block's activations in the backward pass.
      dtype: compute type; parameters and output are float32.
    """

    channels: int = 128
    channel_mults: tuple[int, ...] = (1, 2, 4, 8)
    num_blocks: tuple[int, ...] = (2, 4, 8, 8)
    attention: tuple[str, ...] = ("none", "none", "none", "joint")
    num_heads: int = 8
    skip_per_block: bool = True
    rsqrt2_on: str = "skip"
    low_res_residual: bool = False
    out_channels: int = 3
    remat: bool = False
    dtype: Dtype = jnp.bfloat16

    TAKES: ClassVar = UNET_TAKES
    FIELDS: ClassVar[Mapping[str, Field]] = {
        **SHARED_FIELDS,
        "num_blocks": Field(
            int, "Residual blocks of each level, one entry per level.", 1, 64, length=(1, 12), example="(2, 4, 8)"
        ),
        "attention": Field(
            str,
            "For each level, none, joint (to image and text) or cross (to text alone).",
            length=(1, 12),
            example='("none", "none", "joint")',
        ),
        "num_heads": Field(int, "Heads of an attention.", 1, 1_024),
        "skip_per_block": Field(bool, "One skip connection per residual block; False: one per level."),
        "rsqrt2_on": Field(str, "Where the factor 1 / sqrt(2) stands: skip, residual or shortcut."),
        "low_res_residual": Field(bool, "Add the low-resolution input to the output; for networks that predict x."),
    }

    @nn.nowrap
    def check(self) -> None:
        """As `UNet.check`."""
        for name in ("num_blocks", "attention"):
            check_levels(name, getattr(self, name), self.channel_mults)
        for kind in self.attention:
            lookup(ATTENTION_KINDS, kind, what="attention")
        lookup(RSQRT2_PLACES, self.rsqrt2_on, what="rsqrt2_on")
        check_pooling(self.channels)
        for level, (mult, kind) in enumerate(zip(self.channel_mults, self.attention, strict=True)):
            width, heads = mult * self.channels, self.num_heads
            if kind != "none" and width % heads:
                fits = [count for count in range(heads, 0, -1) if not width % count]
                raise InputError(
                    f"num_heads = {heads} doesn't divide level {level}'s width, channels * channel_mults[{level}] = "
                    f"{width}; use {fits[0]}"
                )

    @property
    def downsampling(self) -> int:
        """As `UNet.downsampling`."""
        return 2 ** len(self.channel_mults)

    @nn.compact
    def __call__(
        self,
        z: jax.Array,
        logsnr: jax.Array,
        conditions: Conditions,
        *,
        residuals: Sequence[jax.Array] | None = None,
    ) -> jax.Array:
        """As `UNet.__call__`."""
        output = self.decode(self.encode(z, logsnr, conditions), conditions, residuals=residuals)
        if self.low_res_residual:
            alpha = jnp.sqrt(jax.nn.sigmoid(conditions["aug_logsnr"]))[:, None, None, None]
            output = output + alpha * conditions["low_res"]
        return output

    @nn.nowrap
    def encode(self, z: jax.Array, logsnr: jax.Array, conditions: Conditions) -> Encoded:
        """The way down: as `UNet.encode`. The skip connections are listed from the first block to the last."""
        factor = self.downsampling
        assert z.shape[1] % factor == 0 and z.shape[2] % factor == 0, (z.shape, factor)
        emb = Conditioning(4 * self.channels, dtype=self.dtype, name="conditioning")(logsnr, conditions)
        h = with_low_res(z, conditions)
        h = conv3x3(self.channels, dtype=self.dtype, name="conv_in")(h)
        skips = []
        for level, (mult, num_blocks) in enumerate(zip(self.channel_mults, self.num_blocks, strict=True)):
            width = mult * self.channels
            h = conv3x3(width, dtype=self.dtype, strides=2, name=f"down{level}_conv")(h)
            h = scale_shift(h, emb, dtype=self.dtype, name=f"down{level}_emb")
            level_skips = []
            for block in range(num_blocks):
                h = self._block(width, name=f"down{level}_block{block}")(h)
                level_skips.append(h)
            h = self._attend(h, conditions, level, f"down{level}_attention")
            skips += level_skips if self.skip_per_block else [h]
        return Encoded(h, tuple(skips), emb)

    @nn.nowrap
    def decode(
        self, encoded: Encoded, conditions: Conditions, *, residuals: Sequence[jax.Array] | None = None
    ) -> jax.Array:
        """The way up: as `UNet.decode`."""
        h, skips, emb = encoded.plus(residuals)
        skips = list(skips)
        for level, (mult, num_blocks) in reversed(
            list(enumerate(zip(self.channel_mults, self.num_blocks, strict=True)))
        ):
            width = mult * self.channels
            for block in range(num_blocks):
                if block == 0 or self.skip_per_block:
                    h = jnp.concatenate([h, skips.pop() * RSQRT2_PLACES[self.rsqrt2_on].skip], axis=-1)
                if block == 0:
                    h = scale_shift(h, emb, dtype=self.dtype, name=f"up{level}_emb")
                h = self._block(width, name=f"up{level}_block{block}")(h)
            h = self._attend(h, conditions, level, f"up{level}_attention")
            width_above = self.channel_mults[max(level - 1, 0)] * self.channels
            h = conv3x3(width_above, dtype=self.dtype, name=f"up{level}_conv")(upsample(h))
        assert not skips, len(skips)

        h = nn.swish(group_norm(h.shape[-1], dtype=self.dtype, name="norm_out")(h))
        return conv3x3(self.out_channels, dtype=jnp.float32, name="conv_out", zero_init=True)(h)

    @nn.nowrap
    def _block(self, width: int, *, name: str) -> EfficientResBlock:
        factors = RSQRT2_PLACES[self.rsqrt2_on]
        block = nn.remat(EfficientResBlock) if self.remat else EfficientResBlock
        return block(width, shortcut_factor=factors.shortcut, sum_factor=factors.sum, dtype=self.dtype, name=name)

    @nn.nowrap
    def _attend(self, h: jax.Array, conditions: Conditions, level: int, name: str) -> jax.Array:
        use_text, use_image = ATTENTION_KINDS[self.attention[level]]
        if not use_text:
            return h
        attention = ImageTextAttention(self.num_heads, use_image=use_image, dtype=self.dtype, name=name)
        return attention(h, *text_of(conditions))


class EfficientUNetEncoder(EfficientUNet):
    """As `UNetEncoder`, of an `EfficientUNet`."""

    @nn.compact
    def __call__(self, z: jax.Array, logsnr: jax.Array, conditions: Conditions) -> Encoded:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Arguments as of `UNet.__call__`; returns what `EfficientUNet.encode` does."""
        return self.encode(z, logsnr, conditions)
