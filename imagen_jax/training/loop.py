"""The training loop: restore, step, log, evaluate, save."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import grain
import jax
import numpy as np
from absl import logging

from imagen_jax import hosts
from imagen_jax.errors import NotFiniteError
from imagen_jax.training.checkpoint import Checkpointer
from imagen_jax.training.clock import Clock
from imagen_jax.training.metrics import MetricWriter
from imagen_jax.training.parallel import Parallel
from imagen_jax.training.profile import Profiler
from imagen_jax.training.state import Frozen, TrainState
from imagen_jax.training.step import NUM_LEVELS, Metrics
from imagen_jax.training.tasks import Task
from imagen_jax.training.watchdog import Watchdog
from imagen_jax.types import Params

# (merged averaged parameters, step) -> names with numbers, or pictures uint8 [H,W,3]: `evaluation.base.Evaluator`.
EvaluateFn = Callable[[Params, int], Iterator[tuple[str, float | np.ndarray]]]

# How a run ended: all steps done, or stopped by SIGTERM or Ctrl-C.
Ending = Literal["done", "terminated", "interrupted"]

# A few bad steps are skipped and forgotten; so many in a row are a run that has diverged.
_MAX_SKIPPED_IN_ROW = 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """How long a run is, and what it does how often.

    Attributes:
      num_steps: of the whole run.
      batch_size: images a step, all devices together.
      log_every, checkpoint_every: steps; the last step does both, and all evaluations.
      keep_checkpoints: how many stay on disk, the newest.
      stall_s: ends the process when nothing has been done for so long; 0: never. See `Watchdog`.
      seconds_at_peak: a step's, if the devices did nothing but its operations; for the metric share_of_peak.
      profile_steps: see `Profiler`; traces are in WORKDIR/profile.
      description: of the run, such as its config; TensorBoard shows it.
    """

    num_steps: int
    batch_size: int
    log_every: int
    checkpoint_every: int
    keep_checkpoints: int
    stall_s: float = 0.0
    seconds_at_peak: float | None = None
    profile_steps: range = range(0)
    description: str = ""


def train(
    task: Task,
    state: TrainState,
    frozen: Frozen,
    run: Parallel,
    batches: grain.DatasetIterator,
    key: jax.Array,
    *,
    workdir: Path,
    settings: LoopSettings,
    evaluators: Sequence[tuple[int, EvaluateFn]] = (),
    check_claim: Callable[[], None] = lambda: None,
) -> tuple[TrainState, Ending]:
    """Trains to the last step, going on from the newest checkpoint in `workdir`; a resumed run ends with the same bits.

    On several hosts all call it, with the same arguments but for `batches`. The first writes what comes of it.

    Args:
      task: what is learned; its `merge` makes the parameters that evaluators are given.
      state: a fresh state on the devices; a checkpoint replaces it.
      frozen: the frozen parameters on the devices, and where they are from.
      run: the step on devices.
      batches: of `data.pipeline.prefetch_to_devices`, where `run` wants them.
      key: the run's PRNG key.
      workdir: of the run.
      settings: how long the run is, and what it does how often.
      evaluators: each with its interval in steps; called with the averaged parameters, merged with the frozen ones,
        on all hosts, after the step's checkpoint: what a kill interrupts is not done again.
      check_claim: `Claim.check`, called before each save.

    Returns:
      The state, and how the run ended; a stop by a signal to one of the hosts ends all of them after the same step,
      which is saved. While steps are skipped nothing is: a restart takes a checkpoint from before them.

    Raises:
      NotFiniteError: 20 steps in a row were skipped, or all of them.
      InputError: `workdir` holds another network's checkpoint, or one with other frozen parameters; or `check_claim`
        raises it.
      StorageError: the disk of `workdir` is full, read-only or gone.
    """
    # 1. Where were we?
    closing = contextlib.ExitStack()  # calls all of what it is given, the last one first, even if one fails
    watchdog = Watchdog(settings.stall_s)
    closing.callback(watchdog.close)
    stop = closing.enter_context(hosts.StopRequest())
    closing.callback(batches.close)
    watchdog.feed()
    checkpointer = Checkpointer(workdir, keep=settings.keep_checkpoints, frozen=frozen)
    if checkpointer.latest_step is not None:
        state = checkpointer.restore(state, batches)
        logging.info("Going on from step %d in %s", int(state.step), workdir)
    first_step = int(state.step)
    writer = MetricWriter(workdir, first_step=first_step) if hosts.is_first() else None
    if writer:
        closing.callback(writer.close)
        if settings.description:
            writer.text(first_step, "config", settings.description)
    num_steps = settings.num_steps
    clock = Clock(first_step=first_step, num_steps=num_steps, batch_size=settings.batch_size)
    closing.callback(clock.close)
    profiler = Profiler(workdir / "profile", settings.profile_steps)
    closing.callback(profiler.close)
    # The last checkpoint is only safe once it is waited for, however the loop ends.
    closing.callback(checkpointer.close)

    # 2. Steps.
    pending: list[Metrics] = []
    step, stopping, skipped = first_step, False, 0
    ending: Ending = "done"
    with closing:
        while step < num_steps and not stopping:
            watchdog.feed()
            waited = time.perf_counter()
            batch = next(batches)
            waited = time.perf_counter() - waited
            if step == first_step:
                _check_range(batch)
            if len(pending) > 1:
                # The previous step is still under way, so that the devices stay busy; but no more than that one is
                # ahead.
                _check_finite(pending[-2], step=step - 1, checkpointer=checkpointer)
            checkpointer.check()
            profiler.before(step)
            with jax.profiler.StepTraceAnnotation("train", step_num=step):
                state, metrics = run.step(state, frozen.params, batch, key)
            pending.append(metrics)
            step += 1
            profiler.after(step, metrics)
            clock.tick(waited_s=waited)
            if step == first_step + 1:
                # It was compiled, which would make all that follows look slow.
                jax.block_until_ready(metrics)
                clock.started()

            # 3. Log. Every checkpoint and evaluation comes after a look at the numbers, so that no bad state is kept.
            stopping = stop.received(step)
            last = step == num_steps or stopping
            save = last or step % settings.checkpoint_every == 0
            due = [evaluator for every, evaluator in evaluators if last or step % every == 0]
            if last or save or due or step % settings.log_every == 0:
                for number, metrics in enumerate(pending[-2:], start=step + 1 - len(pending[-2:])):
                    skipped = _check_finite(metrics, step=number, checkpointer=checkpointer)
                values = _means(pending) | _rates(clock, step, settings.seconds_at_peak)
                pending = []
                if writer:
                    writer.scalars(step, values)
                    _log_line(step, num_steps, values)

            # 4. Save, then evaluate: an evaluation that fails costs no training.
            if save and not skipped:
                check_claim()
                checkpointer.save(step, run.whole(state), batches)
            elif save:
                _say_unsaved(step, skipped, checkpointer, ended=step == num_steps)
            if due and not stopping:
                averaged, fixed = hosts.on_this_host((state.ema_params, frozen.params))
                ema_params = task.merge(averaged, fixed)
                for evaluator in due:
                    watchdog.feed()
                    _write(writer, step, evaluator(ema_params, step))
            if save or due:
                clock.pause()
        if step < num_steps:
            interrupted = "True" in hosts.gather(str(stop.interrupted))
            ending = "interrupted" if interrupted else "terminated"
        newest = checkpointer.latest_step
    if ending != "done":
        logging.warning(
            "Stopped by %s after step %d; the same command goes on from %s.",
            "Ctrl-C" if ending == "interrupted" else "SIGTERM", step, _checkpoint_of(newest),
        )  # fmt: skip
    return state, ending


def _check_finite(metrics: Metrics, *, step: int, checkpointer: Checkpointer) -> int:
    """Waits for the step, and returns how many of the last ones were skipped; NotFiniteError if they are too many."""
    skipped = int(metrics["skipped_in_row"])
    if skipped == 1:
        logging.warning("the loss or its gradient is not finite at step %d, which is skipped", step)
    if skipped >= _MAX_SKIPPED_IN_ROW:
        raise NotFiniteError(
            f"the loss or its gradient was not finite for {skipped} steps, up to step {step}; run the same command "
            f"with a lower config.optimizer.learning_rate: it goes on from {_checkpoint_of(checkpointer.latest_step)}"
            f"{', from before these steps' if checkpointer.latest_step else ''}"
        )
    return skipped


def _say_unsaved(step: int, skipped: int, checkpointer: Checkpointer, *, ended: bool) -> None:
    """Warns that there is no checkpoint of `step`; NotFiniteError if the run has ended without any."""
    newest = checkpointer.latest_step
    if ended and newest is None:
        raise NotFiniteError(
            f"the loss or its gradient was not finite for the last {skipped} of all {step} steps, and nothing was "
            "saved; run the same command with a lower config.optimizer.learning_rate"
        )
    logging.warning(
        "step %d is not saved, because the last %d steps were skipped; %s takes %s, from before them",
        step, skipped, "export" if ended else "a restart", _checkpoint_of(newest),
    )  # fmt: skip


def _checkpoint_of(step: int | None) -> str:
    return "the beginning (there is no checkpoint yet)" if step is None else f"the checkpoint of step {step}"


def _means(pending: Sequence[Metrics]) -> dict[str, float]:
    """Means over the steps that were not skipped, how many were, and the learning rate of the last step."""
    history = jax.device_get(list(pending))
    done = [metrics for metrics in history if not metrics["skipped_in_row"]]
    known = [name for name, value in history[0].items() if np.ndim(value) == 0 and name != "skipped_in_row"]
    means = {f"train/{name}": float(np.mean([m[name] for m in done])) if done else math.nan for name in known}
    if "learning_rate" in known:
        means["train/learning_rate"] = float(history[-1]["learning_rate"])
    if "level_losses" in history[0]:
        sums, counts = (sum(m[name] for m in done) + np.zeros(NUM_LEVELS) for name in ("level_losses", "level_counts"))
        for level in range(NUM_LEVELS):
            name = f"train/loss_t/{level / NUM_LEVELS:.1f}-{(level + 1) / NUM_LEVELS:.1f}"
            means[name] = float(sums[level] / counts[level]) if counts[level] else math.nan
    return means | {"train/skipped_steps": len(history) - len(done)}


def _rates(clock: Clock, step: int, seconds_at_peak: float | None) -> dict[str, float]:
    """The rates since the last call; none before a step has been timed."""
    rates = clock.interval(step)
    if not rates:
        return {}
    rates |= hosts.slowest(rates["data_wait_s"])
    if seconds_at_peak:
        rates["share_of_peak"] = seconds_at_peak / rates["step_s"]
    return {f"perf/{name}": value for name, value in rates.items()}


def _check_range(batch: Mapping[str, jax.Array]) -> None:
    """Images that were never scaled to [-1, 1] train to nonsense without an error."""
    low, high = float(batch["image"].min()), float(batch["image"].max())
    assert low >= -1.001 and high <= 1.001, f"images must lie in [-1, 1], not [{low}, {high}]"


def _log_line(step: int, num_steps: int, values: Mapping[str, float]) -> None:
    line = f"step {step}/{num_steps}  loss {values['train/loss']:.4f}"
    if "perf/step_s" in values:
        line += f"  {values['perf/images_per_s']:.1f} images/s"
        if step < num_steps:
            line += f"  {_duration(values['perf/left_s'])} left"
    logging.info("%s", line)


def _duration(seconds: float) -> str:
    """'1:02:03', or '2:03' below an hour."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def _write(writer: MetricWriter | None, step: int, results: Iterator[tuple[str, float | np.ndarray]]) -> None:
    scalars = {}
    try:
        # On hosts without a writer too, because hosts may wait for each other in them.
        for name, value in results:
            if not isinstance(value, np.ndarray):
                scalars[name] = value
            elif writer:
                logging.info("%s: %s", name, writer.image(step, name, value))
    except NotFiniteError as error:
        # The run's own numbers are finite; an average or a sampler may do without.
        logging.error("step %d: %s; training goes on without this evaluation", step, " ".join(str(error).split()))
    if writer and scalars:
        logging.info("step %d  %s", step, "  ".join(f"{name} {value:.4g}" for name, value in scalars.items()))
        writer.scalars(step, scalars)
