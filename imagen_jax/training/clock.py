"""Progress on the terminal: a bar, and log lines above it; and rates: steps, images/s, time left."""

import contextlib
import logging as std_logging
import sys
import time
from collections.abc import Iterator

from tqdm import tqdm

# Within 80 columns, with room for a bar; the time left is in the log lines, where it is measured as here.
_BAR = "{percentage:3.0f}%|{bar}| step {n_fmt}/{total_fmt}{postfix}"


class Clock:
    """Counts steps and images; shows a bar on a terminal only (the loop logs lines everywhere).

    The first step, which is compiled, is left out of all rates: they start with `started`.
    """

    def __init__(self, *, first_step: int, num_steps: int, batch_size: int):
        """Shows the bar.

        Args:
          first_step: steps done before this start of the run.
          num_steps: of the whole run.
          batch_size: images a step, all devices together.
        """
        self._bar = tqdm(
            total=num_steps,
            initial=first_step,
            unit="step",
            bar_format=_BAR,
            dynamic_ncols=True,
            disable=not sys.stderr.isatty(),
        )
        self._lines = contextlib.ExitStack()
        if not self._bar.disable:
            self._lines.enter_context(_log_above_bars())
        self._batch_size = batch_size
        self._num_steps = num_steps
        self._started = False
        self.pause()

    def started(self) -> None:
        """Starts the time, when the first step of this start has ended."""
        self._started = True
        self.pause()

    def tick(self, *, waited_s: float) -> None:
        """Counts a step; `waited_s`: how long it waited for its batch."""
        if self._started:
            self._interval_steps += 1
            self._waited_s += waited_s
        self._bar.update()

    def interval(self, step: int) -> dict[str, float]:
        """Returns the rates since the last call, and starts anew; none before a step has been timed.

        They are images_per_s (all devices), step_s, data_wait_s (a step) and left_s.
        """
        if not self._interval_steps:
            return {}
        step_s = (time.perf_counter() - self._interval_start) / self._interval_steps
        rates = {
            "images_per_s": self._batch_size / step_s,
            "step_s": step_s,
            "data_wait_s": self._waited_s / self._interval_steps,
            "left_s": step_s * (self._num_steps - step),
        }
        self._bar.set_postfix_str(f"{rates['images_per_s']:.3g} images/s", refresh=False)
        self.pause()
        return rates

    def pause(self) -> None:
        """Leaves out what came since the last step: checkpoints, samples."""
        self._interval_start = time.perf_counter()
        self._interval_steps = 0
        self._waited_s = 0.0

    def close(self) -> None:
        """Leaves the bar as it is."""
        self._lines.close()
        self._bar.close()


@contextlib.contextmanager
def _log_above_bars() -> Iterator[None]:
    """Has all log lines written above the bar, which would otherwise share a line with each."""
    root = std_logging.getLogger()
    before = list(root.handlers)
    root.handlers[:] = [_AboveBars(handler) for handler in before]
    try:
        yield
    finally:
        root.handlers[:] = before


class _AboveBars(std_logging.Handler):
    def __init__(self, handler: std_logging.Handler):
        super().__init__(handler.level)
        self._handler = handler

    def emit(self, record: std_logging.LogRecord) -> None:
        # tqdm clears the bar before, and draws it again after.
        with tqdm.external_write_mode(file=sys.stderr):
            self._handler.handle(record)
