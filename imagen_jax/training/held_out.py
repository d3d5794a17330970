"""The loss of examples that a run is not trained on, at the same times and with the same noise each time."""

from collections.abc import Iterator

import grain
import jax
import numpy as np

from imagen_jax.training.tasks import Task
from imagen_jax.types import Params


class HeldOutLoss:
    """Yields "eval/held_out_loss", the mean loss of N examples with the averaged parameters: see `Evaluator`.

    Example i is noised at the time (i + 1/2) / N, so that together they cover all noise levels evenly. Where it rises
    while the training loss falls, the run learns its data by heart.
    """

    def __init__(self, task: Task, batches: grain.IterDataset, *, num_examples: int, seed: int):
        """Prepares the evaluation; each host computes it by itself.

        Args:
          task: whose loss it is, of merged parameters and nothing frozen; without dropped captions.
          batches: [B,...] of the examples, in the same order each time; beyond the last it begins again.
          num_examples: N.
          seed: of the noise.
        """
        self._loss = jax.jit(task.loss)
        self._batches, self._num_examples, self._seed = batches, num_examples, seed

    def run(self, params: Params, step: int) -> Iterator[tuple[str, float]]:
        """See `Evaluator.run`."""
        losses: list[np.ndarray] = []
        key, done, batches = jax.random.key(self._seed), 0, iter(self._batches)
        while done < self._num_examples:
            batch = next(batches)
            index = np.arange(done, done + len(batch["image"]))
            keys = jax.vmap(lambda index: jax.random.fold_in(key, index))(index)
            # Of examples of the next round, which are dropped, any time will do.
            t = np.minimum((index + 0.5) / self._num_examples, 1.0).astype(np.float32)
            losses.append(jax.device_get(self._loss(params, {}, batch, keys, t)))
            done += len(index)
        yield "eval/held_out_loss", float(np.mean(np.concatenate(losses)[: self._num_examples]))
