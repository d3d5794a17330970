"""Checkpoints of a run: its state and the data iterator's position. The only file that knows orbax."""

import hashlib
import itertools
import json
import logging as std_logging
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

from imagen_jax import storage
from imagen_jax.errors import InputError, StorageError
from imagen_jax.files import sync_folder
from imagen_jax.training import hosts
from imagen_jax.training.digest import VERSION, differing, digest
from imagen_jax.training.state import TrainState
from imagen_jax.types import Params

_FOLDER = "checkpoints"
_DAMAGED = "corrupt-"
_OF_EARLIER_VERSIONS = "data"


class NoCheckpointError(RuntimeError):
    """There are checkpoints, and all of them are damaged."""


class Checkpointer:
    """Checkpoints in WORKDIR/checkpoints, each whole or absent: a kill at any moment leaves the last finished one.

    Each holds the state, the position of the data (which is the same on every host), and digests of both, by which a
    damaged one is found and set aside.
    """

    def __init__(self, workdir: Path, *, keep: int):
        """`keep`: how many of the newest stay on disk.

        Raises:
          NoCheckpointError: there are only damaged ones, which an earlier run has set aside.
        """
        self._folder = (workdir / _FOLDER).absolute()
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True, enable_async_checkpointing=True)
        self._manager = _manager(self._folder, ocp.StandardCheckpointHandler(), options)
        if self.latest_step is None:
            self._raise_if_all_damaged()

    @property
    def latest_step(self) -> int | None:
        """The step of the newest checkpoint; None where there is none."""
        return self._manager.latest_step()

    def save(self, step: int, state: TrainState, data: grain.DatasetIterator) -> None:
        """Saves in the background; the arrays are copied before it returns, so that the state may be donated.

        Args:
          data: the iterator, whose position is that of the batch last taken.

        Raises:
          StorageError: this one or the one before can't be written, because the disk is full, read-only or gone.
          InputError: it can't for another reason, such as no permission.
        """
        if self.latest_step == step:
            return
        position = data.get_state()
        meta = {
            "digests": digest(state),
            "digest_version": VERSION,
            "position": position,
            "position_sha256": _sha256(position),
        }
        with self._writing():
            self._manager.save(
                step, args=ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta))
            )

    def restore(self, state: TrainState, data: grain.DatasetIterator) -> TrainState:
        """The newest checkpoint that is whole, onto the devices that `state` is on; sets the position of `data`.

        A newer one that is damaged is renamed to "corrupt-STEP", with a warning that says what is wrong with it. All
        hosts use the same one: what one of them can't read is damaged.

        Raises:
          InputError: it holds other parameters than `state`; the message lists them.
          NoCheckpointError: all are damaged.
        """
        for step in sorted(self._manager.all_steps(), reverse=True):
            found, reason = None, ""
            try:
                found = _read(self._folder, step, state)
            except (InputError, MemoryError, jax.errors.JaxRuntimeError):  # no room for it: that isn't its fault
                raise
            except Exception as error:  # orbax raises exceptions of every class for what it can't read
                reason = " ".join(str(error).split())[:300] or type(error).__name__
            # The digests are computed by all hosts together, so each must have read its part.
            reason = next(filter(None, hosts.gather(reason)), "")
            if found and not reason:
                reason = _what_changed(found)
                if not reason:
                    data.set_state(found.position)
                    return found.state
            self._set_aside(step, reason)
        self._raise_if_all_damaged()
        raise AssertionError(f"no checkpoint in {self._folder}")

    def _set_aside(self, step: int, reason: str) -> None:
        if hosts.is_first():
            damaged = _free_name(self._folder, f"{_DAMAGED}{step}")
            (self._folder / str(step)).rename(damaged)
            sync_folder(self._folder)
            logging.warning("the checkpoint of step %d is damaged, and now called %s: %s", step, damaged, reason)
        hosts.gather("")  # the others see it when it has its new name
        self._manager.reload()

    def close(self) -> None:
        """Waits for the last save, without which it would be lost.

        Raises:
          StorageError, InputError: as `save`.
        """
        with self._writing():
            self._manager.wait_until_finished()
            self._manager.close()
        sync_folder(self._folder)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # of every class, and some of them only at the next save
            failure = storage.describe_failure(error)
            reason = failure or " ".join(str(error).split())[:300] or type(error).__name__
            kind = StorageError if failure else InputError
            raise kind(
                f'can\'t write checkpoints to "{self._folder}": {reason}; make space or give permission, and run the '
                "same command again: it goes on from the last whole checkpoint"
            ) from error

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


def load_ema_params(workdir: Path) -> tuple[Params, int]:
    """The EMA parameters of a run's newest checkpoint, as numpy arrays, and its step.

    Raises:
      InputError: `workdir` has no checkpoint.
    """
    folder = (workdir / _FOLDER).absolute()
    if not folder.is_dir():
        raise InputError(f'no checkpoints in "{workdir}"; expected the --workdir of a training run')
    with _manager(folder, ocp.PyTreeCheckpointHandler()) as manager:
        steps = sorted(manager.all_steps(), reverse=True)
        if not steps:
            raise InputError(f'no finished checkpoint in "{folder}"; train longer, or run the same training again')
        for step in steps:
            try:
                return _read_ema_params(manager, step), step
            except Exception as error:  # orbax raises exceptions of every class for what it can't read
                logging.warning("the checkpoint of step %d in %s is damaged: %s", step, folder, error)
    raise InputError(f'all checkpoints in "{folder}" are damaged; export another run')


def _read_ema_params(manager: ocp.CheckpointManager, step: int) -> Params:
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
    expected = {path: n for path, n in restored["meta"]["digests"].items() if path.startswith("ema_params/")}
    if changed := differing(restored["state"], expected, version=restored["meta"].get("digest_version", 1)):
        raise ValueError(f"{len(changed)} arrays have changed since they were saved, among them {changed[0]}")
    return restored["state"]["ema_params"]


def _manager(
    folder: Path, state_handler: ocp.CheckpointHandler, options: ocp.CheckpointManagerOptions | None = None
) -> ocp.CheckpointManager:
    # It warns of every default it takes; what it writes is tested here.
    std_logging.getLogger("absl").addFilter(_is_not_about_defaults)
    # Named, so that the metadata of a checkpoint can be read before the checkpoint is.
    handlers = {"state": state_handler, "meta": ocp.JsonCheckpointHandler()}
    return ocp.CheckpointManager(folder, options=options, item_handlers=handlers)


def _free_name(folder: Path, name: str) -> Path:
    """FOLDER/NAME, or NAME.2, NAME.3 ... where that is taken: a checkpoint may be damaged, made again and damaged."""
    names = itertools.chain([name], (f"{name}.{number}" for number in itertools.count(2)))
    return next(path for path in map(folder.joinpath, names) if not path.exists())


class _Checkpoint(NamedTuple):
    state: TrainState
    digests: dict[str, int]
    digest_version: int
    position: dict[str, Any]


def _read(folder: Path, step: int, state: TrainState) -> _Checkpoint:
    if (folder / str(step) / _OF_EARLIER_VERSIONS).exists():
        raise InputError(f"{folder / str(step)} is of an earlier version of this code; go on with that one")
    # Each host by itself: where one can't read its part, the others don't wait for it in here.
    here = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(primary_host=here, active_processes={here})
    options = ocp.CheckpointManagerOptions(multiprocessing_options=alone, read_only=True, create=False)
    with _manager(folder, ocp.StandardCheckpointHandler(multiprocessing_options=alone), options) as manager:
        saved = manager.item_metadata(step)["state"]["params"]
        _check_same_arrays(saved, state.params, where=folder / str(step))
        found = manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(jax.tree.map(ocp.utils.to_shape_dtype_struct, state)),
                meta=ocp.args.JsonRestore(),
            ),
        )
    meta = found["meta"]
    if _sha256(meta["position"]) != meta["position_sha256"]:
        raise ValueError("the position of the data has changed since it was saved")
    return _Checkpoint(found["state"], meta["digests"], meta.get("digest_version", 1), meta["position"])


def _what_changed(found: _Checkpoint) -> str:
    changed = differing(found.state, found.digests, version=found.digest_version)
    return f"{len(changed)} arrays have changed since they were saved, among them {changed[0]}" if changed else ""


def _sha256(position: Any) -> str:
    return hashlib.sha256(json.dumps(position, sort_keys=True).encode()).hexdigest()


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
