"""The CLIP score as a metric of samples and their prompts."""

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from imagen_jax.clip.folder import Clip
from imagen_jax.evaluation.base import Measure, Samples
from imagen_jax.evaluation.clip.features import TAP, embed_texts
from imagen_jax.evaluation.clip.score import FORMULAS, clip_score, score_name
from imagen_jax.evaluation.feature_metrics import check_finite, features_of
from imagen_jax.evaluation.features import FeatureExtractor
from imagen_jax.evaluation.uncertainty import mean_interval


class ClipAlignment:
    """ "clip_score_cosine_vit_l14_336_1b2c3d4e": the mean over samples, by a formula of `FORMULAS`."""

    alignment = True

    def __init__(self, clip: Clip, extractor: FeatureExtractor, formula: str, *, seed: int):
        """`extractor`: `clip_features` of the same; `seed`: of resamples."""
        self._clip, self._extractor, self._formula, self._seed = clip, extractor, formula, seed
        self._name = score_name(clip, formula)
        # Of the same prompts at every point of a sweep.
        self._embed = functools.lru_cache(maxsize=1)(self._embed_texts)
        self.made_of: Mapping[str, Any] = {
            "clip_weights_sha256": clip.weights_sha256,
            "clip_settings": clip.settings,
            "clip_formula": formula,
            "seed": seed,
        }

    def __call__(self, samples: Samples) -> dict[str, Measure]:
        """See `Metric`. Every process embeds all prompts."""
        images = features_of(self._extractor, samples.final)[TAP]
        scores = clip_score(images, self._embed(tuple(samples.prompts)), self._formula)
        return {self._name: mean_interval(scores, kind="alignment", seed=self._seed)}

    def _embed_texts(self, prompts: tuple[str, ...]) -> np.ndarray:
        # Of those that are there several times, one.
        rows = {prompt: row for row, prompt in enumerate(dict.fromkeys(prompts))}
        found = embed_texts(self._clip, list(rows), prefix=FORMULAS[self._formula].prefix)
        check_finite(found, network=f"clip_{self._clip.name}", what="prompts")
        return found[[rows[prompt] for prompt in prompts]]
