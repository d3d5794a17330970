"""Checkpoints of a run: its state and the data iterator's position. The only file that knows orbax."""

import logging as std_logging
from pathlib import Path
from typing import Any

import grain
import jax
import numpy as np
import orbax.checkpoint as ocp
from flax.traverse_util import flatten_dict

from imagen_jax.errors import InputError
from imagen_jax.training.state import TrainState
from imagen_jax.types import Params

_FOLDER = "checkpoints"


class Checkpointer:
    """Checkpoints in WORKDIR/checkpoints, each whole or absent: a kill at any moment leaves the last finished one."""

    def __init__(self, workdir: Path, *, keep: int):
        """`keep`: how many of the newest stay on disk."""
        self._folder = (workdir / _FOLDER).absolute()
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True, enable_async_checkpointing=True)
        self._manager = _manager(self._folder, ocp.StandardCheckpointHandler(), options)

    @property
    def latest_step(self) -> int | None:
        """The step of the newest checkpoint; None where there is none."""
        return self._manager.latest_step()

    def save(self, step: int, state: TrainState, data: grain.DatasetIterator) -> None:
        """Saves in the background; the arrays are copied before it returns, so that the state may be donated.

        Args:
          data: the iterator, whose position is that of the batch last taken.
        """
        if self.latest_step == step:
            return
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state),
                data=grain.checkpoint.CheckpointSave(data),
            ),
        )

    def restore(self, state: TrainState, data: grain.DatasetIterator) -> TrainState:
        """The newest checkpoint, onto the devices that `state` is on; sets the position of `data`.

        Raises:
          InputError: it holds other parameters than `state`; the message lists them.
        """
        step = self.latest_step
        assert step is not None, f"no checkpoint in {self._folder}"
        saved = self._manager.item_metadata(step)["state"]
        _check_same_arrays(saved["params"], state.params, where=self._folder / str(step))
        restored = self._manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(jax.tree.map(ocp.utils.to_shape_dtype_struct, state)),
                data=grain.checkpoint.CheckpointRestore(data),
            ),
        )
        return restored["state"]

    def close(self) -> None:
        """Waits for the last save, without which it would be lost."""
        self._manager.wait_until_finished()
        self._manager.close()


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
        step = manager.latest_step()
        if step is None:
            raise InputError(f'no finished checkpoint in "{folder}"; train longer, or run the same training again')
        saved = manager.item_metadata(step)["state"]["ema_params"]
        # As numpy, so that it doesn't matter on which devices they were; and of the state only this.
        restored = manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.PyTreeRestore(
                    item={"ema_params": saved},
                    restore_args={
                        "ema_params": jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), saved)
                    },
                    partial_restore=True,
                )
            ),
        )
    return restored["state"]["ema_params"], step


def _manager(
    folder: Path, state_handler: ocp.CheckpointHandler, options: ocp.CheckpointManagerOptions | None = None
) -> ocp.CheckpointManager:
    # It warns of every default it takes; what it writes is tested here.
    std_logging.getLogger("absl").addFilter(_is_not_about_defaults)
    # Named, so that the metadata of a checkpoint can be read before the checkpoint is. Any: grain's handler has orbax's
    # methods, but not its type.
    handlers: dict[str, Any] = {"state": state_handler, "data": grain.checkpoint.CheckpointHandler()}
    return ocp.CheckpointManager(folder, options=options, item_handlers=handlers)


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
