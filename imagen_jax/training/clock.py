"""Progress on the terminal: steps, images/s, time left."""

import sys
import time

from tqdm import tqdm


class Clock:
    """Counts steps and images; shows a bar on a terminal only (the loop logs lines everywhere)."""

    def __init__(self, *, first_step: int, num_steps: int, batch_size: int):
        self._bar = tqdm(
            total=num_steps, initial=first_step, unit="step", dynamic_ncols=True, disable=not sys.stderr.isatty()
        )
        self._batch_size = batch_size
        self._num_steps = num_steps
        self._interval_start = time.perf_counter()
        self._interval_steps = 0
        self._waited_s = 0.0

    def tick(self, *, waited_s: float) -> None:
        """After each step; `waited_s`: how long the step waited for its batch."""
        self._interval_steps += 1
        self._waited_s += waited_s
        self._bar.update()

    def interval(self, step: int) -> dict[str, float]:
        """Rates since the last call: images_per_s (all devices), step_s, data_wait_s (a step), left_s; starts anew."""
        step_s = (time.perf_counter() - self._interval_start) / max(1, self._interval_steps)
        rates = {
            "images_per_s": self._batch_size / step_s,
            "step_s": step_s,
            "data_wait_s": self._waited_s / max(1, self._interval_steps),
            "left_s": step_s * (self._num_steps - step),
        }
        self._bar.set_postfix_str(f"{rates['images_per_s']:.0f} images/s", refresh=False)
        self.pause()
        return rates

    def pause(self) -> None:
        """Leaves out what came since the last step: checkpoints, samples."""
        self._interval_start = time.perf_counter()
        self._interval_steps = 0
        self._waited_s = 0.0

    def close(self) -> None:
        """Leaves the bar as it is."""
        self._bar.close()
