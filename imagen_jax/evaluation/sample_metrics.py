"""Metrics of samples of a stage in training."""

from collections.abc import Iterator, Mapping, Sequence

import jax
import numpy as np

from imagen_jax.errors import NotFiniteError
from imagen_jax.evaluation.base import Metric, Samples, measure
from imagen_jax.evaluation.gather import check_enough, gather_rows, own_rows
from imagen_jax.evaluation.image_sets import ArrayImages
from imagen_jax.sampling.batches import sample_all
from imagen_jax.sampling.images import to_uint8
from imagen_jax.sampling.placement import make_mesh, replicate
from imagen_jax.sampling.stage import Stage
from imagen_jax.text.embeddings import Embeddings
from imagen_jax.types import Params


class SampleMetrics:
    """Yields "eval/NAME" of each measure, and of its bounds, of the same prompts with the same noise each time."""

    def __init__(
        self,
        stage: Stage,
        metrics: Sequence[Metric],
        *,
        text: Embeddings,
        names: Sequence[str],
        given: Mapping[str, np.ndarray],
        batch_size: int,
        seed: int = 0,
    ):
        """On several hosts each samples a part.

        Args:
          stage: that is sampled from.
          metrics: of its samples.
          text: of N prompts.
          names: what the prompts name, if that is known.
          given: arrays [N,...] that conditions besides the text are made of, such as low_res.
          batch_size: images at a time, all devices of a host together.
          seed: of the noise.

        Raises:
          InputError: fewer prompts than hosts.
        """
        check_enough(len(text))
        self._stage, self._metrics, self._text, self._names = stage, metrics, text, names
        self._given, self._batch_size = given, batch_size
        key = jax.random.key(seed)
        self._keys = jax.vmap(lambda index: jax.random.fold_in(key, index))(np.arange(len(text)))
        self._mesh = make_mesh()

    def run(self, params: Params, step: int) -> Iterator[tuple[str, float]]:
        """Yields as `Evaluator.run` says.

        Raises:
          NotFiniteError: a prediction was infinite or not a number, on any host; all raise it.
        """
        rows = own_rows(len(self._text))
        pixels, error = np.zeros((len(rows), self._stage.image_size, self._stage.image_size, 3), np.uint8), None
        try:
            pixels = to_uint8(self._sample(params, rows))
        except NotFiniteError as found:
            # The other hosts wait for this one's images: they must learn of it rather than wait for ever.
            error = found
        failed = gather_rows(np.array([[error is not None]], np.int32))
        if error is not None:
            raise error
        if failed.any():
            raise NotFiniteError(
                f"stage of {self._stage.image_size} px: images that host {int(failed.argmax())} sampled are not "
                "finite, so there is nothing to measure; its log names the first"
            )
        everyones = gather_rows(pixels.reshape(len(pixels), -1)).reshape(-1, *pixels.shape[1:])
        images = {self._stage.image_size: ArrayImages(everyones)}
        if "low_res" in self._given:
            low_res = self._given["low_res"]
            images = {low_res.shape[1]: ArrayImages(to_uint8(low_res)), **images}
        for name, value in measure(self._metrics, Samples(images, self._text.captions, self._names)).items():
            yield from ((f"eval/{key}", number) for key, number in value.flat(name).items())

    def _sample(self, params: Params, rows: range) -> np.ndarray:
        """[n,H,W,3] float32 of this host's rows."""
        own = slice(rows.start, rows.stop)
        return sample_all(
            self._stage,
            replicate(params, self._mesh),
            self._text.take(rows),
            keys=self._keys[own],
            given={name: array[own] for name, array in self._given.items()},
            settings=self._stage.settings,
            negative=None,
            weak_params=None,
            batch_size=self._batch_size,
            mesh=self._mesh,
            first_index=rows.start,
        )
