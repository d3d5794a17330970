"""FID's Inception network as a `FeatureExtractor`, and what metrics of its features may be called."""

from collections.abc import Sequence
from typing import Any

import jax

from imagen_jax.evaluation.features import FeatureExtractor, FeatureId, FeatureName
from imagen_jax.evaluation.inception.network import IMAGE_SIZE, TAPS, Inception
from imagen_jax.evaluation.inception.weights import InceptionWeights, is_published
from imagen_jax.registry import lookup
from imagen_jax.resize import FLAVOURS, prepare
from imagen_jax.types import Params

# The layer of FID and KID; the Inception Score is always of "logits_unbiased".
_TAP, _RESIZE = "2048", "tf_legacy"


def inception_features(
    weights: InceptionWeights,
    *,
    resize: str = _RESIZE,
    taps: Sequence[str] = (_TAP,),
    batch_size: int = 64,
) -> FeatureExtractor:
    """Inception's features of images.

    Args:
      resize: one of `FLAVOURS`.
      taps: of `TAPS`, those that are computed; the first is what distances are measured in.
      batch_size: see `FeatureExtractor`.

    Raises:
      InputError: an unknown flavour or tap.
    """
    flavour = lookup(FLAVOURS, resize, what="way to resize")
    for tap in taps:
        lookup(TAPS, tap, what="Inception layer")

    def apply(params: Params, images: jax.Array) -> dict[str, jax.Array]:
        x = prepare(images, flavour=flavour, size=IMAGE_SIZE)
        found: Any = Inception().apply({"params": params}, x)
        # The compiler leaves out what isn't asked for.
        return {tap: found[tap] for tap in taps}

    ids = {tap: FeatureId("inception", tap, resize, weights.sha256) for tap in taps}
    return FeatureExtractor(apply, weights.params, ids, name=name_of(ids[taps[0]]), batch_size=batch_size)


def name_of(features: FeatureId) -> FeatureName:
    """What distances of Inception's features are called.

    "fid_tf_legacy" and "kid_clean" where weights and layer are those of published numbers. Otherwise a name that nobody
    takes for that, "fd_inception_1b2c3d4e": after it the layer and the way to resize, where they aren't the usual ones.
    """
    unusual = [value for value, usual in ((features.tap, _TAP), (features.resize, _RESIZE)) if value != usual]
    suffix = "_".join(["inception", features.weights_sha256[:8], *unusual])
    published = is_published(features.weights_sha256) and features.tap == _TAP
    return FeatureName(suffix, published=features.resize if published else "")
