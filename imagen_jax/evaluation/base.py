"""The contract of an evaluator that runs during training."""

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from imagen_jax.types import Params


class Evaluator(Protocol):
    """Constructed before training with all it needs; then called every so many steps."""

    def run(self, params: Params, step: int) -> Iterator[tuple[str, float | np.ndarray]]:
        """Yields names with numbers (logged) or with pictures uint8 [H,W,3] (saved in the workdir).

        Args:
          params: the EMA parameters.
          step: of training.
        """
        ...
