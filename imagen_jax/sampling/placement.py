"""Where images are sampled: a batch is divided among devices and, if asked, every image's rows too.

The axes of the mesh are batch and rows. Parameters are whole on every device.
"""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from imagen_jax.errors import InputError
from imagen_jax.sampling.arguments import is_whole
from imagen_jax.types import Array

_BATCH, _ROWS = "batch", "rows"


def make_mesh(devices: int | None = None, *, image_shards: int = 1, coarsest_rows: int = 1) -> Mesh:
    """A mesh of this process's devices: `image_shards` of them for each image.

    Args:
      devices: how many; None: all.
      image_shards: devices that share an image, each with a block of its rows.
      coarsest_rows: rows of an image at the network's coarsest level, which `image_shards` must divide.

    Raises:
      InputError: there aren't so many devices, or they and the rows can't be divided so.
    """
    there = jax.local_devices()
    for name, value in (("devices", devices), ("image_shards", image_shards)):
        if not is_whole(value) and (name, value) != ("devices", None):
            raise InputError(f"{name} must be a whole number, at least 1 (got {value!r:.80})")
    count = len(there) if devices is None else int(devices)
    if not 1 <= count <= len(there):
        raise InputError(f"devices = {count}; expected 1 to {len(there)}: this process has {len(there)}")
    possible = [n for n in range(1, count + 1) if count % n == coarsest_rows % n == 0]
    if image_shards not in possible:
        raise InputError(
            f"image_shards = {image_shards}; expected a divisor of the {count} device(s) and of the {coarsest_rows} "
            f"row(s) of an image at the network's coarsest level: {', '.join(map(str, possible))}"
        )
    return Mesh(np.array(there[:count]).reshape(-1, image_shards), (_BATCH, _ROWS))


def round_up(count: int, mesh: Mesh) -> int:
    """The fewest images, `count` at least, that the devices divide."""
    return -(-count // mesh.shape[_BATCH]) * mesh.shape[_BATCH]


def replicate(tree: Any, mesh: Mesh) -> Any:
    """A tree of arrays, whole on every device, wherever and however divided it was; no copy if it is so already."""
    return jax.device_put(tree, NamedSharding(mesh, P()))


def divide(tree: Any, mesh: Mesh) -> Any:
    """Arrays [B,...] of a batch -> [round_up(B),...], divided among the devices; the last row is repeated."""

    def put(array: Any) -> jax.Array:
        count = len(array)
        if count != round_up(count, mesh):
            array = array[np.minimum(np.arange(round_up(count, mesh)), count - 1)]
        return jax.device_put(array, NamedSharding(mesh, P(_BATCH)))

    return jax.tree.map(put, tree)


def split_rows(images: Array, mesh: Mesh) -> jax.Array:
    """Inside a compiled program: has [B,H,W,C] divided by images and rows.

    All that is computed from them follows: the compiler sends the rows that a convolution sees of its neighbours', and
    sums statistics of whole images.
    """
    return jax.lax.with_sharding_constraint(images, NamedSharding(mesh, P(_BATCH, _ROWS)))
