"""Checkpoints of a run: its state and the data iterator's position. The only file that knows orbax."""

import errno
import logging as std_logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import grain
import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from flax.traverse_util import flatten_dict

from imagen_jax import hosts, storage
from imagen_jax.errors import HostLostError, InputError, StorageError
from imagen_jax.files import sync_folder
from imagen_jax.training.checkpoint_meta import FrozenReference, Meta
from imagen_jax.training.digest import digest
from imagen_jax.training.state import NOTHING_FROZEN, Frozen, TrainState
from imagen_jax.types import Params

_FOLDER = "checkpoints"
_DAMAGED = "corrupt-"
_PARTIAL = ".orbax-checkpoint-tmp"  # in the name of one that isn't finished
_OF_EARLIER_VERSIONS = "data"
_POLL_S = 0.02


class NoCheckpointError(RuntimeError):
    """There are checkpoints, and all of them are damaged."""


class Checkpointer:
    """Checkpoints in WORKDIR/checkpoints, each whole or absent: a kill at any moment leaves the last finished one.

    So does a power cut: what a checkpoint holds reaches the disk before it gets its name and an older one is deleted.
    Each holds the state, the position of the data (which is the same on every host), and digests of both, by which a
    damaged one is found and set aside. Of frozen parameters it holds where they are from, and their digests.
    """

    def __init__(self, workdir: Path, *, keep: int, frozen: Frozen = NOTHING_FROZEN):
        """Opens the checkpoints of a run.

        Args:
          workdir: of the run.
          keep: how many of the newest stay on disk.
          frozen: its frozen parameters, which its state doesn't hold.

        Raises:
          NoCheckpointError: there are only damaged ones, which an earlier run has set aside.
        """
        self._folder = (workdir / _FOLDER).absolute()
        self._has_failed = False  # a save in the background
        self._known_failures = storage.count_background_failures()
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            create=True,
            enable_async_checkpointing=True,
            async_options=ocp.AsyncOptions(post_finalization_callback=self._sync),
        )
        with self._writing():
            self._manager = _manager(self._folder, ocp.StandardCheckpointHandler(), options)
        if self.latest_step is None:
            self._raise_if_all_damaged()
        self._frozen = frozen.params
        self._reference = FrozenReference.of(frozen)

    @property
    def latest_step(self) -> int | None:
        """The step of the newest checkpoint; None where there is none."""
        return self._manager.latest_step()

    def save(self, step: int, state: TrainState, data: grain.DatasetIterator) -> None:
        """Saves in the background; the arrays are copied before it returns, so that the state may be donated.

        Args:
          data: the iterator, whose position is that of the batch last taken.

        Raises:
          StorageError: this one or the previous one can't be written: no space, or the disk is read-only or gone.
          InputError: the same for another reason, such as no permission.
        """
        if self.latest_step == step:
            return
        meta = Meta(digest(state), data.get_state(), self._reference)
        self._wait()
        with self._writing():
            self._manager.save(
                step,
                args=ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta.to_json())),
            )

    def check(self) -> None:
        """Raises StorageError where the save in the background has failed.

        So that a host ends at its next step. The next save would say the same, but after ten minutes: the other hosts
        wait for the part that can't be written, and this one for them.
        """
        try:
            with self._writing():
                storage.raise_background_failure(after=self._known_failures)
        except StorageError:
            self._has_failed = True
            raise

    def _wait(self) -> None:
        """Waits for the save in the background, as long as it has not failed: see `check`."""
        while self._manager.is_saving_in_progress():
            self.check()
            time.sleep(_POLL_S)
        with self._writing():
            self._manager.wait_until_finished()

    def restore(self, state: TrainState, data: grain.DatasetIterator) -> TrainState:
        """Returns the newest checkpoint that is whole, on the devices that `state` is on; sets the position of `data`.

        A newer one that is damaged is renamed to "corrupt-STEP", with a warning that says what is wrong with it. All
        hosts use the same one: what one of them can't read is damaged. The count of skipped steps starts anew: of a
        checkpoint that earlier versions saved among them, the parameters are those before the first.

        Raises:
          InputError: it holds other parameters than `state`, or goes with other frozen ones; the message lists them.
          NoCheckpointError: all are damaged.
          StorageError: the disk is gone.
        """
        for step in sorted(self._manager.all_steps(), reverse=True):
            found, reason = None, ""
            try:
                found = _read(self._folder, step, state)
            except (InputError, MemoryError, jax.errors.JaxRuntimeError):  # no room for it: that isn't its fault
                raise
            except Exception as error:  # orbax raises exceptions of every class for what it can't read
                reason = _one_line(error)
                failure = storage.describe_failure(error)
                # A bad block is damage; a disk that isn't there at all says nothing about the checkpoint.
                if failure and not failure.startswith(os.strerror(errno.EIO)):
                    raise StorageError(
                        f'can\'t read the checkpoint of step {step} in "{self._folder}": {failure}; mount it again, '
                        "and run the same command again"
                    ) from error
            # The digests are computed by all hosts together, so each must have read its part.
            reason = next(filter(None, hosts.gather(reason)), "")
            if found and not reason:
                saved, meta = found
                reason = meta.what_changed(saved)
                if not reason:
                    if meta.frozen:
                        meta.frozen.check(self._frozen)
                    data.set_state(meta.position)
                    # What a damaged one has failed of is no failure to write.
                    self._known_failures = storage.count_background_failures()
                    return saved.replace(skipped_in_row=0 * saved.skipped_in_row)
            self._set_aside(step, reason)
        self._raise_if_all_damaged()
        raise AssertionError(f"no checkpoint in {self._folder}")

    def _set_aside(self, step: int, reason: str) -> None:
        if hosts.is_first():
            with storage.writing(self._folder):
                damaged = self._free_name(step)
                (self._folder / str(step)).rename(damaged)
                sync_folder(self._folder)
            logging.warning("the checkpoint of step %d is damaged, and now called %s: %s", step, damaged, reason)
        hosts.gather("")  # the others see it when it has its new name
        self._manager.reload()

    def _free_name(self, step: int) -> Path:
        """corrupt-STEP, or corrupt-STEP.2 and so on where the checkpoint of that step has been damaged before."""
        damaged, number = self._folder / f"{_DAMAGED}{step}", 1
        while os.path.lexists(damaged):
            number += 1
            damaged = self._folder / f"{_DAMAGED}{step}.{number}"
        return damaged

    def _sync(self) -> None:
        """Has the checkpoint that is being written reach the disk; orbax calls it before it gives it its name.

        orbax itself syncs the arrays alone.
        """
        if not hosts.is_first():
            return
        for partial in self._folder.glob(f"*{_PARTIAL}*"):
            for folder, _, files in os.walk(partial):
                for name in files:
                    descriptor = os.open(os.path.join(folder, name), os.O_RDONLY)
                    try:
                        os.fsync(descriptor)
                    finally:
                        os.close(descriptor)
                sync_folder(Path(folder))

    def close(self) -> None:
        """Waits for the last save, without which it would be lost.

        Raises:
          StorageError, InputError: it can't be written; see `save`.
        """
        if self._has_failed:
            return
        self._wait()
        with self._writing():
            self._manager.close()
            sync_folder(self._folder)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # of every class, and some of them only at the next save
            # A disk that is taken away leaves no folder, and then every error there is.
            if lost := hosts.describe_lost(error):
                raise HostLostError(lost) from error
            failure = storage.describe_failure(error) or ("" if self._folder.is_dir() else "it is gone")
            again = "run the same command again: it goes on from the last whole checkpoint"
            where = f'can\'t write checkpoints to "{self._folder}"'
            if failure:
                raise StorageError(f"{where}: {failure}; make space, or mount it again, and {again}") from error
            raise InputError(f"{where}: {_one_line(error)}; give permission, and {again}") from error

    def _raise_if_all_damaged(self) -> None:
        damaged = sorted(path.name for path in self._folder.glob(f"{_DAMAGED}*"))
        if damaged:
            raise NoCheckpointError(
                f'"{self._folder}" holds damaged checkpoints only ({", ".join(damaged)}); to start from the beginning, '
                "delete that folder; one that is whole after all may have its number back as its name"
            )


def has_checkpoint(workdir: Path) -> bool:
    """Whether a run in `workdir` has something to go on from."""
    folder = workdir / _FOLDER
    return folder.is_dir() and any(path.name.isdecimal() for path in folder.iterdir())


class Averaged(NamedTuple):
    """The averaged parameters of a checkpoint.

    Attributes:
      params: numpy arrays.
      step: of the checkpoint.
      frozen: what the frozen parameters are that go with them; None where there are none.
    """

    params: Params
    step: int
    frozen: FrozenReference | None


def load_ema_params(workdir: Path) -> Averaged:
    """Loads the EMA parameters of a run's newest checkpoint that is whole.

    Raises:
      InputError: `workdir` has no checkpoint.
    """
    folder = (workdir / _FOLDER).absolute()
    if not folder.is_dir():
        raise InputError(f'no checkpoints in "{workdir}"; expected the --workdir of a training run')
    options = _alone()
    handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=options.multiprocessing_options)
    with _manager(folder, handler, options) as manager:
        steps = sorted(manager.all_steps(), reverse=True)
        if not steps:
            raise InputError(f'no finished checkpoint in "{folder}"; train longer, or run the same training again')
        for step in steps:
            try:
                return _read_ema_params(manager, step)
            except InputError:
                raise
            except Exception as error:  # orbax raises exceptions of every class for what it can't read
                logging.warning("the checkpoint of step %d in %s is damaged: %s", step, folder, _one_line(error))
    raise InputError(f'all checkpoints in "{folder}" are damaged; take another run')


def _read_ema_params(manager: ocp.CheckpointManager, step: int) -> Averaged:
    saved = manager.item_metadata(step)["state"]["ema_params"]
    # As numpy, so that it doesn't matter on which devices they were; and of the state only this.
    restored = manager.restore(
        step,
        args=ocp.args.Composite(
            state=ocp.args.PyTreeRestore(
                item={"ema_params": saved},
                restore_args={"ema_params": jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), saved)},
                partial_restore=True,
            ),
            meta=ocp.args.JsonRestore(),
        ),
    )
    meta = Meta.from_json(restored["meta"])
    if reason := meta.what_changed(restored["state"], prefix="ema_params/"):
        raise ValueError(reason)
    return Averaged(restored["state"]["ema_params"], step, meta.frozen)


def _manager(
    folder: Path, state_handler: ocp.CheckpointHandler, options: ocp.CheckpointManagerOptions | None = None
) -> ocp.CheckpointManager:
    # It warns of every default it takes; what it writes is tested here.
    std_logging.getLogger("absl").addFilter(_is_not_about_defaults)
    # Named, so that the metadata of a checkpoint can be read before the checkpoint is.
    handlers = {"state": state_handler, "meta": ocp.JsonCheckpointHandler()}
    return ocp.CheckpointManager(folder, options=options, item_handlers=handlers)


def _alone() -> ocp.CheckpointManagerOptions:
    """For reading on each host by itself: where one can't read its part, the others don't wait for it in orbax."""
    here = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(primary_host=here, active_processes={here})
    return ocp.CheckpointManagerOptions(multiprocessing_options=alone, read_only=True, create=False)


def _read(folder: Path, step: int, state: TrainState) -> tuple[TrainState, Meta]:
    if (folder / str(step) / _OF_EARLIER_VERSIONS).exists():
        raise InputError(f"{folder / str(step)} is of an earlier version of this code; go on with that one")
    options = _alone()
    handler = ocp.StandardCheckpointHandler(multiprocessing_options=options.multiprocessing_options)
    with _manager(folder, handler, options) as manager:
        saved = manager.item_metadata(step)["state"]["params"]
        _check_same_arrays(saved, state.params, where=folder / str(step))
        found = manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(jax.tree.map(ocp.utils.to_shape_dtype_struct, state)),
                meta=ocp.args.JsonRestore(),
            ),
        )
    return found["state"], Meta.from_json(found["meta"])


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def _is_not_about_defaults(record: std_logging.LogRecord) -> bool:
    return record.levelno >= std_logging.ERROR or "orbax" not in record.pathname


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    flat: dict[str, Any] = flatten_dict(tree, sep="/")
    return {path: tuple(leaf.shape) for path, leaf in flat.items()}


def _check_same_arrays(saved: Any, wanted: Params, *, where: Path) -> None:
    old, new = _shapes(saved), _shapes(dict(wanted))
    differing = [path for path in sorted(old.keys() | new.keys()) if old.get(path) != new.get(path)]
    if not differing:
        return
    rows = [
        f"  {path}: {old.get(path, 'absent')} in the checkpoint, {new.get(path, 'absent')} here" for path in differing
    ]
    shown = "\n".join(rows[:10] + ([f"  ... and {len(rows) - 10} more"] if len(rows) > 10 else []))
    raise InputError(
        f"{where} holds another network's parameters: {len(differing)} of {len(new)} arrays differ.\n{shown}\n"
        "Use another --workdir, or the config that this one was started with."
    )
