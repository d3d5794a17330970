"""Traces of chosen steps, to be looked at in TensorBoard or Perfetto."""

from pathlib import Path

import jax
from absl import logging


class Profiler:
    """Records what the devices of this host do from one step to another."""

    def __init__(self, folder: Path, steps: range):
        """`steps`: range(100, 110) records the ten steps that follow the 100th; an empty one, none.

        A run that goes on from between them records the rest.
        """
        self._folder = folder
        self._steps = steps
        self._recording = False

    def before(self, steps_done: int) -> None:
        """Before each step."""
        if steps_done in self._steps and not self._recording:
            jax.profiler.start_trace(self._folder)
            self._recording = True

    def after(self, steps_done: int, result: object) -> None:
        """After each step; `result`: arrays of it, which are waited for before the recording ends."""
        if self._recording and steps_done >= self._steps.stop:
            jax.block_until_ready(result)
            self.close()

    def close(self) -> None:
        """Writes what has been recorded."""
        if self._recording:
            self._recording = False
            jax.profiler.stop_trace()
            logging.info("%s: the trace of steps up to %d; TensorBoard shows it", self._folder, self._steps.stop)
