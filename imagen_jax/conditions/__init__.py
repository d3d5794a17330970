"""What a network is told besides z and its noise level: one file for each kind, see `base.Condition`."""

from imagen_jax.conditions.base import Condition
from imagen_jax.conditions.low_res import LowRes
from imagen_jax.conditions.text import Text

__all__ = ["Condition", "LowRes", "Text"]
