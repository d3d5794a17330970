"""How well images fit their captions, by CLIP. Numbers compare only of one model and one formula: the name has both."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from imagen_jax.clip.folder import Clip
from imagen_jax.registry import lookup


@dataclass(frozen=True)
class Formula:
    """A score of cosines.

    Attributes:
      score: cosines [N] -> [N].
      prefix: of captions, when they are embedded.
    """

    score: Callable[[np.ndarray], np.ndarray]
    prefix: str = ""


FORMULAS = {
    "cosine": Formula(lambda cosine: cosine),
    "100max": Formula(lambda cosine: 100.0 * np.maximum(cosine, 0.0)),
    # CLIPScore: Hessel et al., arXiv 2104.08718, section 3, for ViT-B/32.
    "clipscore": Formula(lambda cosine: 2.5 * np.maximum(cosine, 0.0), prefix="A photo depicts "),
}


def clip_score(image_embeddings: np.ndarray, text_embeddings: np.ndarray, formula: str) -> np.ndarray:
    """An image's score with its caption; a set's is the mean.

    Args:
      image_embeddings: [N,P], normalised or not.
      text_embeddings: [N,P], likewise; of captions with the formula's prefix.
      formula: one of `FORMULAS`.

    Returns:
      [N] float64.

    Raises:
      InputError: no such formula.
    """
    score = lookup(FORMULAS, formula, what="formula of the CLIP score").score
    assert image_embeddings.ndim == 2 and image_embeddings.shape == text_embeddings.shape, (
        image_embeddings.shape,
        text_embeddings.shape,
    )
    images, texts = (x.astype(np.float64) for x in (image_embeddings, text_embeddings))
    return score(np.sum(images * texts, axis=1) / (np.linalg.norm(images, axis=1) * np.linalg.norm(texts, axis=1)))


def score_name(clip: Clip, formula: str) -> str:
    """ "clip_score_cosine_vit_l14_336_1b2c3d4e": what `clip_score` with this formula and model is called.

    Raises:
      InputError: no such formula.
    """
    lookup(FORMULAS, formula, what="formula of the CLIP score")
    return f"clip_score_{formula}_{clip.name}"
