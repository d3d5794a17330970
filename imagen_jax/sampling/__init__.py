"""Sampling: `load_cascade("CASCADE")(["a prompt"], seed=0)` -> uint8 [N,H,W,3]."""

from imagen_jax.sampling.cascade import Cascade
from imagen_jax.sampling.folder import load_cascade

__all__ = ["Cascade", "load_cascade"]
