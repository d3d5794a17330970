"""What attributes that several networks share may be, and how they must fit each other."""

from collections.abc import Mapping, Sequence

from imagen_jax.errors import InputError
from imagen_jax.fields import Field

# Of text pooling: `attention.AttentionPooling.head_channels`.
_POOLING_HEAD_CHANNELS = 64
# The conditioning vector is so many times as wide as the first level.
_CONDITIONING_WIDTH = 4

REMAT = Field(bool, "Recompute activations in the backward pass: less memory, about a third more compute.")
SHARED_FIELDS: Mapping[str, Field] = {
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
    "remat": REMAT,
}


def check_levels(name: str, values: object, channel_mults: Sequence[int]) -> None:
    """Raises InputError where the attribute called `name` is a tuple that hasn't one entry for each level."""
    if isinstance(values, tuple) and len(values) != len(channel_mults):
        raise InputError(
            f"{name} = {values} has {len(values)} entries; channel_mults has {len(channel_mults)}, one per level"
        )


def check_pooling(channels: int) -> None:
    """Raises InputError where the text vector's width is none that its heads can share; it names widths that are."""
    pooled = _CONDITIONING_WIDTH * channels
    if pooled % num_heads(pooled, _POOLING_HEAD_CHANNELS):
        fits = [
            width for width in range(channels, 0, -1) if not 4 * width % num_heads(4 * width, _POOLING_HEAD_CHANNELS)
        ]
        above = -(-channels // 16) * 16
        raise InputError(
            f"channels = {channels} makes a text vector of {pooled}, which heads of {_POOLING_HEAD_CHANNELS} channels "
            f"can't share; use {fits[0]} or {above}"
        )


def num_heads(width: int, head_channels: int) -> int:
    """Returns how many heads of so many channels attend over a width; one at least."""
    return max(1, width // head_channels)
