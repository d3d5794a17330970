"""Samples of a cascade, as a sweep wants them: image k of every point is of the same prompt, from the same noise."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from imagen_jax.errors import InputError, NotFiniteError
from imagen_jax.evaluation.pages.run_folder import Run
from imagen_jax.evaluation.prompts.prompt_lists import PromptList
from imagen_jax.evaluation.sweeps.grid import Point
from imagen_jax.sampling.cascade import Cascade
from imagen_jax.text.embeddings import Embeddings


class CascadeSamples:
    """A cascade with its prompts.

    Attributes:
      sizes: of the stages that run, ascending.
      rows: the number of each image's prompt.
      prompts, ids: of each image.
      identity: what images depend on, and all points share: by name, JSON values.
    """

    def __init__(
        self,
        cascade: Cascade,
        prompts: PromptList,
        *,
        name: str,
        fingerprint: str,
        samples_per_prompt: int,
        stop_at: int | None,
        seed: int,
        encoder_dtype: str,
        **how: Any,
    ):
        """A cascade called `name`; `fingerprint`: see `cascade_fingerprint`.

        Args:
          stop_at: the size of the last stage that runs; None: all run.
          how: batch_size and devices, of `Cascade.sample`: nothing of this changes an image.

        Raises:
          InputError: there is no stage of size `stop_at`.
        """
        sizes = list(cascade.stages)
        if stop_at is not None and stop_at not in sizes:
            raise InputError(f"--stop_at={stop_at}: expected the size of a stage, {', '.join(map(str, sizes))}")
        self.sizes = sizes[: sizes.index(stop_at) + 1] if stop_at else sizes
        self.rows = [number for number in range(len(prompts)) for _ in range(samples_per_prompt)]
        self.prompts, self.ids = ([column[row] for row in self.rows] for column in (prompts.prompts, prompts.ids))
        self.identity: Mapping[str, Any] = {
            "cascade_sha256": fingerprint,
            "prompts": prompts.name,
            "prompts_sha256": prompts.sha256,
            "num_samples": len(self.rows),
            "samples_per_prompt": samples_per_prompt,
            "seed": seed,
            "encoder_dtype": encoder_dtype,
        }
        self._cascade, self._list, self._name, self._how = cascade, prompts, name, how
        self._per_prompt, self._seed = samples_per_prompt, seed
        self._text: Embeddings | None = None

    def sample(self, point: Point, first: int, count: int) -> dict[int, np.ndarray]:
        """Images `first` to `first + count` of a point: uint8 [count,H,W,3] by size, ascending.

        The text encoder runs when the first is asked for, once.

        Raises:
          NotFiniteError: a prediction was infinite or not a number; the message names the point, stage and image.
        """
        if self._text is None:
            self._text = self._cascade.embed(self._list.prompts)
        text = self._text.take(self.rows[first : first + count])
        try:
            return self._cascade.sample(
                text,
                seed=self._seed,
                first_index=first,
                stop_at=self.sizes[-1],
                **self._how,
                **dict[str, Any](point.overrides),
            )
        except NotFiniteError as error:
            raise NotFiniteError(f"{point.name}: {error}") from error

    def settings(self, point: Point) -> dict[int, dict[str, Any]]:
        """Every sampling setting of every stage that runs, by size."""
        of_stages = zip(self._cascade.stages, self._cascade.settings(**point.overrides), strict=True)
        return {size: dataclasses.asdict(settings) for size, settings in of_stages if size in self.sizes}

    def run(self, point: Point) -> Run:
        """What run.json says of a point."""
        settings = {str(size): settings for size, settings in self.settings(point).items()}
        about = {**self.identity, "settings": settings}
        return Run(f"{self._name}, {point.name}", self._list, self._per_prompt, self.sizes[-1], about)
