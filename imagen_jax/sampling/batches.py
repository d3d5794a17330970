"""Many images, a batch at a time."""

from collections.abc import Mapping

import jax
import numpy as np
from jax.sharding import Mesh

from imagen_jax.sampling.finite import label_image
from imagen_jax.sampling.placement import round_up
from imagen_jax.sampling.settings import SamplingSettings
from imagen_jax.sampling.stage import Stage
from imagen_jax.text.embeddings import Embeddings
from imagen_jax.types import Params


def sample_all(
    stage: Stage,
    params: Params,
    text: Embeddings,
    *,
    keys: jax.Array,
    given: Mapping[str, np.ndarray],
    settings: SamplingSettings,
    negative: Embeddings | None,
    weak_params: Params | None,
    batch_size: int,
    mesh: Mesh,
    first_index: int = 0,
) -> np.ndarray:
    """Samples N images in batches of one size, so that one program is compiled; the last one is filled up.

    Args:
      stage, params, settings, mesh: see `Stage.sample`.
      text, negative: of N prompts; negative: what guidance leads away from, as `weak_params`.
      keys: [N].
      given: arrays [N,...] that the stage's other conditions are made of: see `Stage.sample`.
      batch_size: images at a time; at least one a device.
      first_index: the number of the first image, for messages.

    Returns:
      [N,H,W,3] float32 in [-1, 1].

    Raises:
      NotFiniteError: see `Stage.sample`; it names an image by its number and its prompt.
    """
    count = len(keys)
    batch_size = round_up(min(batch_size, count), mesh)
    parts = []
    for first in range(0, count, batch_size):
        rows = np.minimum(np.arange(first, first + batch_size), count - 1)
        samples = stage.sample(
            params,
            text.padded(rows) | {name: array[rows] for name, array in given.items()},
            keys=keys[rows],
            settings=settings,
            against=None if negative is None else negative.padded(rows),
            weak_params=weak_params,
            mesh=mesh,
            labels=[label_image(first_index + row, text.captions[row]) for row in rows],
        )
        parts.append(samples[: count - first])
    return np.concatenate(parts)
