"""A grid of samples of fixed prompts with fixed noise, so that two grids of a run differ by training alone."""

from collections.abc import Iterator, Sequence

import jax
import numpy as np

from imagen_jax.sampling.finite import label_image
from imagen_jax.sampling.images import enlarge, labelled_grid, to_uint8
from imagen_jax.sampling.placement import make_mesh
from imagen_jax.sampling.stage import Stage
from imagen_jax.types import Params


class SampleGrid:
    """Yields "samples": the stage's images over their captions; for super-resolution each beside its input."""

    def __init__(
        self,
        stage: Stage,
        *,
        text_emb: np.ndarray,
        text_mask: np.ndarray,
        captions: Sequence[str],
        low_res: np.ndarray | None = None,
        seed: int = 0,
    ):
        """One image a caption, divided among this process's devices.

        Args:
          text_emb: [N,L,D].
          text_mask: [N,L] bool.
          low_res: [N,h,w,3] float32 in [-1, 1], for a super-resolution stage.
        """
        self._stage = stage
        self._text_emb, self._text_mask = text_emb, text_mask
        self._captions = list(captions)
        self._low_res = low_res
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
            self._text_emb,
            self._text_mask,
            keys=self._keys,
            low_res=self._low_res,
            mesh=self._mesh,
            labels=[label_image(index, caption) for index, caption in enumerate(self._captions)],
        )
        images = list(to_uint8(samples))
        if self._low_res is not None:
            factor = self._stage.image_size // self._low_res.shape[1]
            inputs = [enlarge(image, factor) for image in to_uint8(self._low_res)]
            images = [np.concatenate(pair, axis=1) for pair in zip(inputs, images, strict=True)]
        yield "samples", labelled_grid(images, self._captions, columns=min(4, len(images)))
