"""Features of images: what distances between sets of images are distances of.

A number is comparable with another only if network, weights, layer and resizing are the same: `FeatureId` says which.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from imagen_jax.errors import InputError
from imagen_jax.evaluation.inception import IMAGE_SIZE, TAPS, Inception
from imagen_jax.evaluation.inception_weights import InceptionWeights, is_published
from imagen_jax.evaluation.resize import FLAVOURS, prepare
from imagen_jax.registry import lookup
from imagen_jax.types import Params

# What a metric of published FID's own features is called, and what it is called of any others.
_NAMES = {"frechet": ("fid", "fd"), "kernel": ("kid", "kd"), "score": ("inception_score", "score")}
_FID_TAPS = {"score": "logits_unbiased"}


@dataclasses.dataclass(frozen=True)
class FeatureId:
    """Where features come from.

    Attributes:
      network: "inception".
      tap: the layer, for Inception one of `TAPS`.
      resize: how images were brought to the network's size, for Inception one of `FLAVOURS`.
      weights_sha256: hex, of the file that the weights were read from.
    """

    network: str
    tap: str
    resize: str
    weights_sha256: str

    def metric_name(self, metric: str) -> str:
        """What a metric of these features is called.

        "fid_tf_legacy", "kid_clean", "inception_score_pytorch" where network, weights and layer are those of published
        numbers, and otherwise a name that nobody takes for that: "fd_inception_1b2c3d4e_2048_tf_legacy".

        Args:
          metric: "frechet", "kernel", "score", or the name of one without a published form ("precision").
        """
        published, other = _NAMES.get(metric, (metric, metric))
        tap = _FID_TAPS.get(metric, "2048")
        if self.network == "inception" and self.tap == tap and is_published(self.weights_sha256):
            return f"{published}_{self.resize}"
        return f"{other}_{self.network}_{self.weights_sha256[:8]}_{self.tap}_{self.resize}"


class InceptionFeatures:
    """Runs FID's Inception network on all local devices."""

    def __init__(
        self,
        weights: InceptionWeights,
        *,
        resize: str = "tf_legacy",
        taps: Sequence[str] = ("2048",),
        batch_size: int = 64,
    ):
        """Puts the parameters on the devices.

        Args:
          resize: one of `FLAVOURS`.
          taps: of `TAPS`, those that `__call__` yields.
          batch_size: of all local devices together, and rounded up to a multiple of their number.

        Raises:
          InputError: an unknown flavour or tap.
        """
        flavour = lookup(FLAVOURS, resize, what="way to resize")
        self.ids = {}
        for tap in taps:
            lookup(TAPS, tap, what="Inception layer")
            self.ids[tap] = FeatureId("inception", tap, resize, weights.sha256)
        devices = jax.local_devices()
        self.batch_size = -(-batch_size // len(devices)) * len(devices)
        mesh = Mesh(np.asarray(devices), ("images",))
        everywhere, divided = (NamedSharding(mesh, spec) for spec in (PartitionSpec(), PartitionSpec("images")))
        self._sharding = divided
        self._params = jax.device_put(weights.params, everywhere)

        def apply(params: Params, images: jax.Array) -> dict[str, jax.Array]:
            x = prepare(images, flavour=flavour, size=IMAGE_SIZE)
            found: Any = Inception().apply({"params": params}, x)
            # The compiler leaves out what isn't asked for.
            return {tap: found[tap] for tap in taps}

        self._apply = jax.jit(apply, in_shardings=(everywhere, divided), out_shardings=divided)

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
