"""CLIP's embeddings of images, as a `FeatureExtractor`, and of captions."""

from collections.abc import Sequence
from functools import partial

import jax
import numpy as np

from imagen_jax.clip.folder import Clip
from imagen_jax.clip.network import TextTower
from imagen_jax.clip.preprocess import preprocess
from imagen_jax.errors import InputError
from imagen_jax.evaluation.bounds import check_count
from imagen_jax.evaluation.features import FeatureExtractor, FeatureId, FeatureName
from imagen_jax.text.tokenizer import check_captions
from imagen_jax.types import Params

TAP = "image"


def clip_features(clip: Clip, *, batch_size: int = 64) -> FeatureExtractor:
    """CLIP's embeddings of images [n,P], not normalised, at the tap "image".

    Their distances are called "cmmd_clip_vit_l14_336_1b2c3d4e" and the like. Published CMMDs are of OpenAI's ViT-L/14
    at 336 px (Jayasumana et al., arXiv 2401.09603).

    Args:
      batch_size: see `FeatureExtractor`.
    """

    def apply(params: Params, images: jax.Array) -> dict[str, jax.Array]:
        found = clip.vision.apply({"params": params}, preprocess(images, clip.preprocessing))
        assert isinstance(found, jax.Array)
        return {TAP: found}

    ids = {TAP: FeatureId("clip", TAP, clip.settings, clip.weights_sha256)}
    return FeatureExtractor(
        apply, clip.vision_params, ids, name=FeatureName(f"clip_{clip.name}"), batch_size=batch_size
    )


def embed_texts(clip: Clip, captions: Sequence[str], *, prefix: str = "", batch_size: int = 64) -> np.ndarray:
    """CLIP's embeddings of captions, not normalised; those longer than it takes (77 tokens) are cut, with a warning.

    Args:
      prefix: what each begins with besides, of a `Formula`.
      batch_size: captions a call of the compiled program, on one device.

    Returns:
      [N,P] float32.

    Raises:
      InputError: no captions, something that isn't a valid string, or a caption without text.
    """
    check_count("batch_size", batch_size, least=1)
    check_captions(captions)
    for i, caption in enumerate(captions):
        if not caption.strip():
            raise InputError(f"caption {i} is empty ({caption!r}); expected text: leave it out, with its image")
    ids = clip.tokenizer([prefix + caption for caption in captions])
    padded = np.pad(ids, ((0, -len(ids) % batch_size), (0, 0)), mode="edge")
    params = jax.device_put(clip.text_params)
    batches = padded.reshape(-1, batch_size, ids.shape[1])
    return np.concatenate([np.asarray(_embed(clip.text, params, batch)) for batch in batches])[: len(ids)]


@partial(jax.jit, static_argnums=0)
def _embed(tower: TextTower, params: Params, ids: np.ndarray) -> jax.Array:
    found = tower.apply({"params": params}, ids)
    assert isinstance(found, jax.Array)
    return found
