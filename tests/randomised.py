"""Random parameters without `init`, whose compilation would take seconds."""

from typing import Any

import jax
import numpy as np


def randomised(shapes: Any, seed: int = 0) -> Any:
    """Parameters or their shapes -> every array drawn at random, zero-initialised ones too: no path is closed.

    Kernels ~ N(0, 1 / fan-in), biases ~ N(0, 0.1^2), scales of norms ~ N(1, 0.1^2).
    """
    rng = np.random.default_rng(seed)

    def draw(path: Any, leaf: Any) -> np.ndarray:
        noise = rng.normal(size=leaf.shape).astype(np.float32)
        match path[-1].key:
            case "kernel":
                return noise * np.float32((leaf.size // leaf.shape[-1]) ** -0.5)
            case "scale":
                return 1 + np.float32(0.1) * noise
            case _:
                return np.float32(0.1) * noise

    return jax.tree_util.tree_map_with_path(draw, shapes)
