"""Where an encoder lies: each copy of its weights on one device or split over several, the batch over the copies."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from imagen_jax.errors import InputError

# Which axis of a parameter is split, by the module that owns it: heads and hidden units (arXiv 1909.08053), so that
# each block needs two sums over devices, and the vocabulary, which needs one more.
_COLUMNS, _ROWS = ("q", "k", "v", "wi", "wi_0", "wi_1"), ("o", "wo", "shared")
# Of a device's free memory, for weights; the rest is for activations.
_SHARE = 0.8


def make_mesh(devices: Sequence[Any] | None, *, shards: int | None, num_bytes: int, divides: int) -> Mesh:
    """A mesh with the axes data (copies of the weights) and model (devices that share a copy).

    Args:
      devices: to use, all of them; None: as few of this process's as hold one copy.
      shards: devices a copy; None: the fewest that hold it, by the memory that they report. A CPU reports none: 1.
      num_bytes: of the weights.
      divides: what shards must divide: heads, hidden units and vocabulary, which are what is split.

    Raises:
      InputError: there are no devices, they can't be divided so, or they can't hold a copy.
    """
    candidates = list(jax.local_devices() if devices is None else devices)
    if not candidates or len(set(candidates)) < len(candidates):
        raise InputError(f"encoder devices: expected at least one, and each once (got {candidates})")
    if shards is None:
        shards = fewest_shards(candidates, num_bytes, divides=divides)
    elif shards < 1 or len(candidates) % shards or divides % shards:
        possible = [n for n in range(1, len(candidates) + 1) if len(candidates) % n == divides % n == 0]
        raise InputError(
            f"encoder shards = {shards}; expected a divisor of the number of devices and of the encoder's heads, "
            f"hidden units and vocabulary: {', '.join(map(str, possible))}"
        )
    used = candidates[:shards] if devices is None else candidates
    return Mesh(np.array(used).reshape(-1, shards), ("data", "model"))


def parameter_sharding(mesh: Mesh, path: tuple[str, ...]) -> NamedSharding:
    """Of the parameter with this path in the tree, such as ("block_0_ff", "wo", "kernel")."""
    owner = path[-2]
    spec = P(None, "model") if owner in _COLUMNS else P("model", None) if owner in _ROWS else P()
    return NamedSharding(mesh, spec)


def fewest_shards(devices: Sequence[Any], num_bytes: int, *, divides: int) -> int:
    """How many of `devices` must share a copy of `num_bytes`, so that it fits: a divisor of their number and `divides`.

    Raises:
      InputError: so many can't hold it.
    """
    stats = devices[0].memory_stats() or {}
    if "bytes_limit" not in stats:
        return 1
    free = _SHARE * (stats["bytes_limit"] - stats.get("bytes_in_use", 0))
    for shards in range(1, len(devices) + 1):
        if len(devices) % shards == divides % shards == 0 and num_bytes <= shards * free:
            return shards
    raise InputError(
        f"the text encoder's weights are {num_bytes / 1e9:.1f} GB, and {len(devices)} device(s) have "
        f"{free / 1e9:.1f} GB free each; use bfloat16, more devices, or the CPU (--encoder_devices=cpu)"
    )
