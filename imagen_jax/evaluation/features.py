"""Features of images: what distances between sets of images are distances of.

A number is comparable with another only if network, weights, layer and resizing are the same: `FeatureId` says which.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from imagen_jax.errors import InputError
from imagen_jax.evaluation.bounds import check_count
from imagen_jax.types import Params

# Of an image of which only the features' shape is wanted.
_ANY_SIZE = 64
# What a metric is called of features that everybody computes so, and of any others.
_PUBLISHED_NAMES = {"fd": "fid", "kd": "kid"}


@dataclasses.dataclass(frozen=True)
class FeatureId:
    """Where features come from. Two sets of features have a distance only if all of it is the same.

    Attributes:
      network: "inception", "clip", "emojicnn_v1".
      tap: the layer, for Inception one of `TAPS`; "" where a network has one.
      resize: how images were brought to the network's size, for Inception one of `FLAVOURS`, for CLIP a hash of its
        settings; "" where there is one way.
      weights_sha256: hex, of the file that the weights were read from.
    """

    network: str
    tap: str
    resize: str
    weights_sha256: str


@dataclasses.dataclass(frozen=True)
class FeatureName:
    """What metrics of features are called.

    Attributes:
      suffix: what tells these features from others, such as "inception_1b2c3d4e".
      published: "" or, where metrics of these features are published numbers' own, what tells these from each other,
        such as "tf_legacy".
    """

    suffix: str
    published: str = ""

    def metric(self, name: str) -> str:
        """ "fid_tf_legacy" for "fd" where that is published, "fd_inception_1b2c3d4e" where it isn't."""
        if self.published:
            return f"{_PUBLISHED_NAMES.get(name, name)}_{self.published}"
        return f"{name}_{self.suffix}"


class FeatureExtractor:
    """Runs a network on all local devices.

    Attributes:
      ids: tap -> `FeatureId`.
      name: `FeatureName` of the tap that distances are measured in.
      batch_size: of all local devices together.
    """

    def __init__(
        self,
        apply: Callable[[Params, jax.Array], dict[str, jax.Array]],
        params: Params,
        ids: Mapping[str, FeatureId],
        *,
        name: FeatureName,
        batch_size: int = 64,
    ):
        """Puts the parameters on the devices.

        Args:
          apply: (params, uint8 [B,H,W,3]) -> tap -> float32 [B,width], an image's features by itself alone.
          ids: of what `apply` returns.
          batch_size: of all local devices together, and rounded up to a multiple of their number.

        Raises:
          InputError: a batch size below 1.
        """
        check_count("batch_size", batch_size, least=1)
        devices = jax.local_devices()
        self.ids, self.name, self._network = ids, name, apply
        self.batch_size = -(-batch_size // len(devices)) * len(devices)
        mesh = Mesh(np.asarray(devices), ("images",))
        everywhere, divided = (NamedSharding(mesh, spec) for spec in (PartitionSpec(), PartitionSpec("images")))
        self._sharding = divided
        self._params = jax.device_put(params, everywhere)
        self._apply = jax.jit(apply, in_shardings=(everywhere, divided), out_shardings=divided)

    def width(self, tap: str) -> int:
        """D of a tap, without computing anything."""
        image = jax.ShapeDtypeStruct((1, _ANY_SIZE, _ANY_SIZE, 3), np.uint8)
        return jax.eval_shape(self._network, self._params, image)[tap].shape[1]

    def __call__(self, images: Iterable[np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
        """Yields the features of a batch of images after the other: tap -> float32 [n,width].

        n is the batch size, and for the last batch what is left: every image counts, and counts once. There is one
        program for each size of images.

        Args:
          images: uint8 [H,W,3], 0..255, all of one size.

        Raises:
          InputError: an image of another size, shape or type.
        """
        # Fetched one batch late, so that the devices work while the next images are read.
        running: tuple[dict[str, jax.Array], int] | None = None
        for batch in _batches(images, self.batch_size):
            padding = np.zeros((self.batch_size - len(batch), *batch.shape[1:]), np.uint8)
            padded = jax.device_put(np.concatenate([batch, padding]), self._sharding)
            before, running = running, (self._apply(self._params, padded), len(batch))
            if before:
                yield _fetch(*before)
        if running:
            yield _fetch(*running)


def _fetch(found: dict[str, jax.Array], count: int) -> dict[str, np.ndarray]:
    return {tap: np.asarray(features)[:count] for tap, features in found.items()}


def _batches(images: Iterable[np.ndarray], batch_size: int) -> Iterator[np.ndarray]:
    shape: tuple[int, ...] | None = None
    batch: list[np.ndarray] = []
    for index, image in enumerate(images):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:
            raise InputError(f"image {index} is {image.dtype} {list(image.shape)}; expected uint8 [H,W,3]")
        shape = shape or image.shape
        if image.shape != shape:
            raise InputError(
                f"image {index} is {list(image.shape)}, those before it {list(shape)}; expected images of one size: "
                "crop and resize them to it first"
            )
        batch.append(image)
        if len(batch) == batch_size:
            yield np.stack(batch)
            batch = []
    if batch:
        yield np.stack(batch)
