"""Arrays in a file, of which type and shape are known before any memory is taken for their values."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class StoredArray(NamedTuple):
    """An array in a file that is open.

    Attributes:
      shape, dtype: as the file declares them.
      read: reads it whole.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]
