"""The training loop: restore, step, log, evaluate, save."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import grain
import jax
import numpy as np
from absl import logging

from imagen_jax.errors import NotFiniteError
from imagen_jax.training import hosts
from imagen_jax.training.checkpoint import Checkpointer
from imagen_jax.training.clock import Clock
from imagen_jax.training.metrics import MetricWriter
from imagen_jax.training.parallel import Parallel
from imagen_jax.training.profile import Profiler
from imagen_jax.training.state import TrainState
from imagen_jax.training.step import Metrics
from imagen_jax.training.watchdog import Watchdog
from imagen_jax.types import Params

# (ema_params, step) -> names with numbers, or with pictures uint8 [H,W,3]: `evaluation.base.Evaluator`.
EvaluateFn = Callable[[Params, int], Iterator[tuple[str, float | np.ndarray]]]


# A few bad steps are skipped and forgotten; so many in a row are a run that has diverged.
_MAX_SKIPPED_IN_ROW = 20


def train(
    state: TrainState,
    run: Parallel,
    batches: grain.DatasetIterator,
    key: jax.Array,
    *,
    workdir: Path,
    num_steps: int,
    batch_size: int,
    log_every: int,
    checkpoint_every: int,
    keep_checkpoints: int,
    evaluators: Sequence[tuple[int, EvaluateFn]],
    seconds_at_peak: float | None = None,
    check_claim: Callable[[], None] = lambda: None,
    stall_s: float = 0.0,
    profile_steps: range = range(0),
) -> tuple[TrainState, bool]:
    """Trains to `num_steps`, going on from the newest checkpoint in `workdir`; a resumed run ends with the same bits.

    On several hosts all call it, with the same arguments but for `batches`. The first writes what comes of it.

    Args:
      state: a fresh state on the devices; a checkpoint replaces it.
      run: the step on devices.
      batches: of `data.pipeline.prefetch_to_devices`, where `run` wants them.
      key: the run's PRNG key.
      batch_size: images a step, all devices together.
      log_every, checkpoint_every: steps; the last step does both, and all evaluations.
      evaluators: each with its interval in steps; called with the EMA parameters, on all hosts, after the step's
        checkpoint: what a kill interrupts is not done again.
      seconds_at_peak: a step's, if the devices did nothing but its operations; for the metric share_of_peak.
      check_claim: `Claim.check`, called before each save.
      stall_s: ends the process when nothing has been done for so long; 0: never. See `Watchdog`.
      profile_steps: see `Profiler`; traces are in WORKDIR/profile.

    Returns:
      The state, and whether all steps were done (False: stopped by SIGTERM to one of the hosts, after a checkpoint).

    Raises:
      NotFiniteError: 20 steps in a row were skipped. Nothing is saved after that.
      InputError: `workdir` holds another network's checkpoint, or `check_claim` raises it.
    """
    # 1. Where were we?
    closing = contextlib.ExitStack()  # calls all of what it is given, the last one first, even if one fails
    watchdog = Watchdog(stall_s)
    closing.callback(watchdog.close)
    stop = closing.enter_context(hosts.StopRequest())
    closing.callback(batches.close)
    watchdog.feed()
    checkpointer = Checkpointer(workdir, keep=keep_checkpoints)
    if checkpointer.latest_step is not None:
        state = checkpointer.restore(state, batches)
        logging.info("Going on from step %d in %s", int(state.step), workdir)
    first_step = int(state.step)
    writer = MetricWriter(workdir, first_step=first_step) if hosts.is_first() else None
    if writer:
        closing.callback(writer.close)
    clock = Clock(first_step=first_step, num_steps=num_steps, batch_size=batch_size)
    closing.callback(clock.close)
    profiler = Profiler(workdir / "profile", profile_steps)
    closing.callback(profiler.close)
    # The last checkpoint is only safe once it is waited for, however the loop ends.
    closing.callback(checkpointer.close)

    # 2. Steps.
    pending: list[Metrics] = []
    step, stopping = first_step, False
    with closing:
        while step < num_steps and not stopping:
            watchdog.feed()
            waited = time.perf_counter()
            batch = next(batches)
            waited = time.perf_counter() - waited
            if step == first_step:
                _check_range(batch)
            if len(pending) > 1:
                # The step before is still under way, so that the devices stay busy; but no more than that one is ahead.
                _check_finite(pending[-2], step=step - 1)
            profiler.before(step)
            with jax.profiler.StepTraceAnnotation("train", step_num=step):
                state, metrics = run.step(state, batch, key)
            pending.append(metrics)
            step += 1
            profiler.after(step, metrics)
            clock.tick(waited_s=waited)

            # 3. Log. Every checkpoint and evaluation comes after a look at the numbers, so that no bad state is kept.
            stopping = stop.received(step)
            last = step == num_steps or stopping
            save = last or step % checkpoint_every == 0
            due = [evaluator for every, evaluator in evaluators if last or step % every == 0]
            if last or save or due or step % log_every == 0:
                for number, metrics in enumerate(pending[-2:], start=step + 1 - len(pending[-2:])):
                    _check_finite(metrics, step=number)
                values = _mean(pending)
                pending = []
                rates = clock.interval(step)
                values |= rates | hosts.slowest(rates["data_wait_s"])
                if seconds_at_peak:
                    values["share_of_peak"] = seconds_at_peak / values["step_s"]
                if writer:
                    writer.scalars(step, values)
                    _log_line(step, num_steps, values)

            # 4. Save, then evaluate: an evaluation that fails costs no training.
            if save:
                check_claim()
                checkpointer.save(step, run.whole(state), batches)
            if due and not stopping:
                ema_params = hosts.on_this_host(state.ema_params)
                for evaluator in due:
                    watchdog.feed()
                    _write(writer, step, evaluator(ema_params, step))
            if save or due:
                clock.pause()
    return state, step >= num_steps


def _check_finite(metrics: Metrics, *, step: int) -> None:
    """Waits for the step; raises NotFiniteError if it was the last of too many that were skipped."""
    skipped = int(metrics["skipped_in_row"])
    if skipped == 1:
        logging.warning("the loss or its gradient is not finite at step %d, which is skipped", step)
    if skipped >= _MAX_SKIPPED_IN_ROW:
        raise NotFiniteError(
            f"the loss or its gradient was not finite for {skipped} steps, up to step {step}; a lower learning rate "
            "usually helps"
        )


def _mean(pending: Sequence[Metrics]) -> dict[str, float]:
    """Over the steps that were not skipped, and how many were."""
    history = jax.device_get(list(pending))
    done = [metrics for metrics in history if not metrics["skipped_in_row"]]
    names = [name for name in history[0] if name != "skipped_in_row"]
    means = {name: float(np.mean([metrics[name] for metrics in done])) if done else math.nan for name in names}
    return means | {"skipped_steps": len(history) - len(done)}


def _check_range(batch: Mapping[str, jax.Array]) -> None:
    """Images that were never scaled to [-1, 1] train to nonsense without an error."""
    low, high = float(batch["image"].min()), float(batch["image"].max())
    assert low >= -1.001 and high <= 1.001, f"images must lie in [-1, 1], not [{low}, {high}]"


def _log_line(step: int, num_steps: int, values: Mapping[str, float]) -> None:
    minutes, seconds = divmod(round(values["left_s"]), 60)
    logging.info(
        "step %d/%d  loss %.4f  %.1f images/s  %d:%02d left",
        step, num_steps, values["loss"], values["images_per_s"], minutes, seconds,
    )  # fmt: skip


def _write(writer: MetricWriter | None, step: int, results: Iterator[tuple[str, float | np.ndarray]]) -> None:
    scalars = {}
    # On hosts without a writer too, because hosts may wait for each other in them.
    for name, value in results:
        if not isinstance(value, np.ndarray):
            scalars[name] = value
        elif writer:
            logging.info("%s: %s", name, writer.image(step, name, value))
    if writer and scalars:
        logging.info("step %d  %s", step, "  ".join(f"{name} {value:.4g}" for name, value in scalars.items()))
        writer.scalars(step, scalars)
