"""A grid of samples of fixed prompts with fixed noise, so that two grids of a run differ by training alone."""

from collections.abc import Iterator, Sequence

import jax
import numpy as np

from imagen_jax.sampling.finite import label_image
from imagen_jax.sampling.images import enlarge, labelled_grid, to_uint8
from imagen_jax.sampling.placement import make_mesh
from imagen_jax.sampling.stage import Stage
from imagen_jax.types import Conditions, Params


class SampleGrid:
    """Yields "samples": the stage's images over their captions; for super-resolution each beside its input."""

    def __init__(
        self,
        stage: Stage,
        *,
        given: Conditions,
        captions: Sequence[str],
        seed: int = 0,
    ):
        """One image a caption, divided among this process's devices.

        Args:
          given: arrays [N,...] that the stage's conditions are made of: see `Stage.sample`.
        """
        self._stage = stage
        self._given = given
        self._captions = list(captions)
        key = jax.random.key(seed)
        self._keys = jax.vmap(lambda index: jax.random.fold_in(key, index))(np.arange(len(self._captions)))
        self._mesh = make_mesh()

    def run(self, params: Params, step: int) -> Iterator[tuple[str, np.ndarray]]:
        """Yields as `Evaluator.run` says.

        Raises:
          NotFiniteError: a prediction was infinite or not a number; the message names the image, by its caption.
        """
        samples = self._stage.sample(
            params,
            self._given,
            keys=self._keys,
            mesh=self._mesh,
            labels=[label_image(index, caption) for index, caption in enumerate(self._captions)],
        )
        images = list(to_uint8(samples))
        if "low_res" in self._given:
            low_res = np.asarray(self._given["low_res"])
            factor = self._stage.image_size // low_res.shape[1]
            inputs = [enlarge(image, factor) for image in to_uint8(low_res)]
            images = [np.concatenate(pair, axis=1) for pair in zip(inputs, images, strict=True)]
        yield "samples", labelled_grid(images, self._captions, columns=min(4, len(images)))
