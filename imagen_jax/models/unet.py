"""The base stage's U-Net: ADM's, with text keys and values in its self-attention (Imagen, appendix F.1)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from imagen_jax.models.attention import ImageTextAttention
from imagen_jax.models.embeddings import Conditioning
from imagen_jax.models.layers import Dtype, ResBlock, conv3x3, group_norm


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

    @property
    def downsampling(self) -> int:
        """How many times smaller the coarsest level is than the image; H and W must be divisible by it."""
        return 2 ** (len(self.channel_mults) - 1)

    @nn.compact
    def __call__(
        self,
        z: jax.Array,
        logsnr: jax.Array,
        *,
        text_emb: jax.Array,
        text_mask: jax.Array,
        low_res: jax.Array | None = None,
        aug_logsnr: jax.Array | None = None,
    ) -> jax.Array:
        """Predicts from the noisy image.

        Args:
          z: [B,H,W,3] float32; H and W divisible by `downsampling`.
          logsnr: [B] noise level of z.
          text_emb: [B,L,D].
          text_mask: [B,L] bool.
          low_res: [B,H,W,3] float32 or None: the low-resolution input, upsampled and noised (`diffusion.augment`).
          aug_logsnr: [B] or None: its noise level.

        Returns:
          [B,H,W,out_channels] float32, exactly zero at initialisation.
        """
        factor = self.downsampling
        assert z.shape[1] % factor == 0 and z.shape[2] % factor == 0, (z.shape, factor)
        res_block = nn.remat(ResBlock) if self.remat else ResBlock
        emb = Conditioning(4 * self.channels, dtype=self.dtype, name="conditioning")(
            logsnr, text_emb=text_emb, text_mask=text_mask, aug_logsnr=aug_logsnr
        )

        def attend(h: jax.Array, level: int, name: str) -> jax.Array:
            if not self.attention_levels[level]:
                return h
            heads = max(1, h.shape[-1] // self.head_channels)
            return ImageTextAttention(heads, dtype=self.dtype, name=name)(h, text_emb, text_mask)

        h = z if low_res is None else jnp.concatenate([z, low_res], axis=-1)
        h = conv3x3(self.channels, dtype=self.dtype, name="conv_in")(h)
        skips = [h]
        last = len(self.channel_mults) - 1
        for level, mult in enumerate(self.channel_mults):
            for block in range(self.num_blocks):
                h = res_block(mult * self.channels, dtype=self.dtype, name=f"down{level}_block{block}")(h, emb)
                h = attend(h, level, f"down{level}_attention{block}")
                skips.append(h)
            if level != last:
                h = res_block(h.shape[-1], "down", dtype=self.dtype, name=f"down{level}_resample")(h, emb)
                skips.append(h)

        h = res_block(h.shape[-1], dtype=self.dtype, name="middle_block0")(h, emb)
        h = attend(h, last, "middle_attention")
        h = res_block(h.shape[-1], dtype=self.dtype, name="middle_block1")(h, emb)

        for level, mult in reversed(list(enumerate(self.channel_mults))):
            for block in range(self.num_blocks + 1):
                h = jnp.concatenate([h, skips.pop()], axis=-1)
                h = res_block(mult * self.channels, dtype=self.dtype, name=f"up{level}_block{block}")(h, emb)
                h = attend(h, level, f"up{level}_attention{block}")
            if level != 0:
                h = res_block(h.shape[-1], "up", dtype=self.dtype, name=f"up{level}_resample")(h, emb)
        assert not skips, len(skips)

        h = nn.swish(group_norm(h.shape[-1], dtype=self.dtype, name="norm_out")(h))
        return conv3x3(self.out_channels, dtype=jnp.float32, name="conv_out", zero_init=True)(h)
