"""The base stage's U-Net: ADM's, with text keys and values in its self-attention (Imagen, appendix F.1)."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from imagen_jax.errors import InputError
from imagen_jax.fields import Field
from imagen_jax.models.attention import ImageTextAttention
from imagen_jax.models.base import UNET_TAKES, Encoded, text_of, with_low_res
from imagen_jax.models.embeddings import Conditioning
from imagen_jax.models.fields import SHARED_FIELDS, check_levels, check_pooling, num_heads
from imagen_jax.models.layers import Dtype, Resample, ResBlock, conv3x3, group_norm
from imagen_jax.types import Conditions


class UNet(nn.Module):
    """U-Net with BigGAN-style residual blocks; defaults are the paper's 64 px base.

    Each level but the last ends in a block that halves the image, and each but the first, on the way up, in one that
    doubles it; every block's output is kept as a skip connection and concatenated on the way up.

    Attributes:
      channels: width of the first level.
      channel_mults: width of each level, as a multiple of `channels`.
      num_blocks: residual blocks a level (one more on the way up).
      attention_levels: for each level, whether its blocks are followed by attention (the paper: at 32, 16 and 8 px).
      head_channels: channels of an attention head.
      out_channels: channels of the output.
      remat: recompute each block's activations in the backward pass: less memory, about a third more compute.
      dtype: compute type; parameters and output are float32.
    """

    channels: int = 512
    channel_mults: tuple[int, ...] = (1, 2, 3, 4)
    num_blocks: int = 3
    attention_levels: tuple[bool, ...] = (False, True, True, True)
    head_channels: int = 64
    out_channels: int = 3
    remat: bool = False
    dtype: Dtype = jnp.bfloat16

    TAKES: ClassVar = UNET_TAKES
    FIELDS: ClassVar[Mapping[str, Field]] = {
        **SHARED_FIELDS,
        "num_blocks": Field(int, "Residual blocks of each level, one more on the way up.", 1, 64),
        "attention_levels": Field(
            bool,
            "For each level, whether attention follows its blocks.",
            length=(1, 12),
            example="(False, True, True)",
        ),
        "head_channels": Field(int, "Channels of an attention head.", 1, 16_384),
    }

    @nn.nowrap
    def check(self) -> None:
        """Raises InputError where attributes, each in its bounds, don't fit each other."""
        check_levels("attention_levels", self.attention_levels, self.channel_mults)
        check_pooling(self.channels)
        for level, (mult, has_attention) in enumerate(zip(self.channel_mults, self.attention_levels, strict=True)):
            width, head = mult * self.channels, self.head_channels
            if has_attention and width % num_heads(width, head):
                fits = [size for size in range(min(head, width), 0, -1) if not width % num_heads(width, size)]
                raise InputError(
                    f"head_channels = {head} doesn't divide level {level}'s width, channels * channel_mults[{level}] "
                    f"= {width}; use {fits[0]}"
                )

    @property
    def downsampling(self) -> int:
        """How many times smaller the coarsest level is than the image; H and W must be divisible by it."""
        return 2 ** (len(self.channel_mults) - 1)

    @nn.compact
    def __call__(
        self,
        z: jax.Array,
        logsnr: jax.Array,
        conditions: Conditions,
        *,
        residuals: Sequence[jax.Array] | None = None,
    ) -> jax.Array:
        """Predicts from the noisy image.

        Args:
          z: [B,H,W,3] float32; H and W divisible by `downsampling`.
          logsnr: [B] noise level of z.
          conditions: as `types` has them: the caption and, of a super-resolution stage, low_res [B,H,W,3], upsampled
            and noised (`conditions.low_res`), and aug_logsnr.
          residuals: see `decode`.

        Returns:
          [B,H,W,out_channels] float32, exactly zero at initialisation.
        """
        return self.decode(self.encode(z, logsnr, conditions), conditions, residuals=residuals)

    @nn.nowrap
    def encode(self, z: jax.Array, logsnr: jax.Array, conditions: Conditions) -> Encoded:
        """The way down and the middle. Called from a compact method, as by `__call__` and `UNetEncoder`."""
        factor = self.downsampling
        assert z.shape[1] % factor == 0 and z.shape[2] % factor == 0, (z.shape, factor)
        emb = Conditioning(4 * self.channels, dtype=self.dtype, name="conditioning")(logsnr, conditions)
        h = with_low_res(z, conditions)
        h = conv3x3(self.channels, dtype=self.dtype, name="conv_in")(h)
        skips = [h]
        last = len(self.channel_mults) - 1
        for level, mult in enumerate(self.channel_mults):
            for block in range(self.num_blocks):
                h = self._block(mult * self.channels, name=f"down{level}_block{block}")(h, emb)
                h = self._attend(h, conditions, level, f"down{level}_attention{block}")
                skips.append(h)
            if level != last:
                h = self._block(h.shape[-1], "down", name=f"down{level}_resample")(h, emb)
                skips.append(h)

        h = self._block(h.shape[-1], name="middle_block0")(h, emb)
        h = self._attend(h, conditions, last, "middle_attention")
        h = self._block(h.shape[-1], name="middle_block1")(h, emb)
        return Encoded(h, tuple(skips), emb)

    @nn.nowrap
    def decode(
        self, encoded: Encoded, conditions: Conditions, *, residuals: Sequence[jax.Array] | None = None
    ) -> jax.Array:
        """The way up. Called from a compact method.

        Args:
          encoded: of `encode`.
          conditions: see `__call__`.
          residuals: added to what `encode` has found, as a control branch does (arXiv 2302.05543): one for each of
            `encoded.skips`, in their order, and the last for `encoded.h`; each of the shape of what it is added to.

        Returns:
          [B,H,W,out_channels] float32.
        """
        h, skips, emb = encoded.plus(residuals)
        skips = list(skips)
        for level, mult in reversed(list(enumerate(self.channel_mults))):
            for block in range(self.num_blocks + 1):
                h = jnp.concatenate([h, skips.pop()], axis=-1)
                h = self._block(mult * self.channels, name=f"up{level}_block{block}")(h, emb)
                h = self._attend(h, conditions, level, f"up{level}_attention{block}")
            if level != 0:
                h = self._block(h.shape[-1], "up", name=f"up{level}_resample")(h, emb)
        assert not skips, len(skips)

        h = nn.swish(group_norm(h.shape[-1], dtype=self.dtype, name="norm_out")(h))
        return conv3x3(self.out_channels, dtype=jnp.float32, name="conv_out", zero_init=True)(h)

    @nn.nowrap
    def _block(self, channels: int, resample: Resample = "none", *, name: str) -> ResBlock:
        return (nn.remat(ResBlock) if self.remat else ResBlock)(channels, resample, dtype=self.dtype, name=name)

    @nn.nowrap
    def _attend(self, h: jax.Array, conditions: Conditions, level: int, name: str) -> jax.Array:
        if not self.attention_levels[level]:
            return h
        attention = ImageTextAttention(num_heads(h.shape[-1], self.head_channels), dtype=self.dtype, name=name)
        return attention(h, *text_of(conditions))


class UNetEncoder(UNet):
    """The first half of a `UNet` as a network of its own, with the same parameters by the same names.

    A control branch is one, its parameters copied from those of the network that it controls.
    """

    @nn.compact
    def __call__(self, z: jax.Array, logsnr: jax.Array, conditions: Conditions) -> Encoded:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Arguments as of `UNet.__call__`; returns what `UNet.encode` does."""
        return self.encode(z, logsnr, conditions)
