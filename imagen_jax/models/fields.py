"""What each attribute of the networks may be, and how attributes must fit each other."""

from collections.abc import Mapping
from typing import Any

from imagen_jax.errors import InputError
from imagen_jax.fields import Field

# Of text pooling, in both networks: `attention.AttentionPooling.head_channels`.
_POOLING_HEAD_CHANNELS = 64
# The conditioning vector is so many times as wide as the first level.
_CONDITIONING_WIDTH = 4

_SHARED: Mapping[str, Field] = {
    "channels": Field(int, "Width of the first level.", 4, 16_384),
    "channel_mults": Field(
        int,
        "Width of each level, as a multiple of channels; as many levels as entries.",
        lower=1,
        upper=64,
        length=(1, 12),
        example="(1, 2, 4)",
    ),
    "out_channels": Field(int, "Channels of the output: 3, as images have, in training.", 1, 64),
    "remat": Field(bool, "Recompute activations in the backward pass: less memory, about a third more compute."),
}
# By a network's name: each of its attributes but `dtype`, which `models.DTYPES` lists.
NETWORK_FIELDS: Mapping[str, Mapping[str, Field]] = {
    "unet": {
        **_SHARED,
        "num_blocks": Field(int, "Residual blocks of each level, one more on the way up.", 1, 64),
        "attention_levels": Field(
            bool,
            "For each level, whether attention follows its blocks.",
            length=(1, 12),
            example="(False, True, True)",
        ),
        "head_channels": Field(int, "Channels of an attention head.", 1, 16_384),
    },
    "efficient_unet": {
        **_SHARED,
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
    },
}


def check_widths(name: str, attributes: Mapping[str, Any]) -> None:
    """Checks that attention heads divide what they attend over. `attributes`: all of a network's, each in its bounds.

    Raises:
      InputError: a width that the heads can't share equally; the message names values that fit.
    """
    channels, mults = attributes["channels"], attributes["channel_mults"]
    pooled = _CONDITIONING_WIDTH * channels
    if pooled % _heads(pooled, _POOLING_HEAD_CHANNELS):
        fits = [width for width in range(channels, 0, -1) if not 4 * width % _heads(4 * width, _POOLING_HEAD_CHANNELS)]
        above = -(-channels // 16) * 16
        raise InputError(
            f"channels = {channels} makes a text vector of {pooled}, which heads of {_POOLING_HEAD_CHANNELS} channels "
            f"can't share; use {fits[0]} or {above}"
        )
    for level, mult in enumerate(mults):
        width = channels * mult
        if name == "unet" and attributes["attention_levels"][level]:
            head = attributes["head_channels"]
            if width % _heads(width, head):
                fits = [size for size in range(min(head, width), 0, -1) if not width % _heads(width, size)]
                raise InputError(
                    f"head_channels = {head} doesn't divide level {level}'s width, channels * channel_mults[{level}] "
                    f"= {width}; use {fits[0]}"
                )
        if name == "efficient_unet" and attributes["attention"][level] != "none":
            heads = attributes["num_heads"]
            if width % heads:
                fits = [count for count in range(heads, 0, -1) if not width % count]
                raise InputError(
                    f"num_heads = {heads} doesn't divide level {level}'s width, channels * channel_mults[{level}] = "
                    f"{width}; use {fits[0]}"
                )


def _heads(width: int, head_channels: int) -> int:
    return max(1, width // head_channels)
