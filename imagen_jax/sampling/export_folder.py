"""Writing a cascade's folder, whole or not at all: see `sampling.folder` for what is in it."""

import contextlib
import dataclasses
import fcntl
import glob
import secrets
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from absl import logging
from flax.traverse_util import flatten_dict
from safetensors.flax import save_file

from imagen_jax import storage
from imagen_jax.errors import InputError, NotFiniteError
from imagen_jax.files import sync, sync_folder, write_json
from imagen_jax.sampling.digests import hash_files
from imagen_jax.sampling.folder import CONFIG, ENCODER, FORMAT_VERSION, INDEX, WEIGHTS
from imagen_jax.sampling.stage_config import StageConfig, check_chain
from imagen_jax.text.encoder import encoder_files
from imagen_jax.types import Params

# In a folder that is not finished: what shows that an export made it, and, by a lock, whether that one still runs.
_MARKER, _MARK = ".imagen_jax_export", b"python -m imagen_jax.export writes here\n"


def write_cascade(
    out: Path, configs: Sequence[StageConfig], params: Sequence[Params], *, encoder_folder: Path | None
) -> None:
    """Writes a cascade folder, whole or not at all.

    Args:
      out: is made; what a killed export to it has left is deleted.
      configs: of the stages, base first.
      params: of the stages.
      encoder_folder: the encoder to copy into it; None: none.

    Raises:
      InputError: see `check_can_write`.
      NotFiniteError: a parameter is infinite or not a number.
      StorageError: the disk is full, read-only or gone.
    """
    check_can_write(out, configs)
    for config, tree in zip(configs, params, strict=True):
        check_finite_params(tree, f"stage of {config.image_size} px")
    with storage.writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        _delete_leftovers(out)
        with _unfinished_folder(out) as folder:
            written = _write_parts(folder, configs, params, encoder_folder)
            index = {
                "format_version": FORMAT_VERSION,
                "stages": [config.name for config in configs],
                "sha256": hash_files(folder, written),
            }
            write_json(folder / INDEX, index)
            for inner in {path.parent for path in written}:
                sync_folder(inner)
            sync_folder(folder)
            folder.rename(out)
            sync_folder(out.parent)
        (out / _MARKER).unlink(missing_ok=True)


def check_can_write(out: Path, configs: Sequence[StageConfig]) -> None:
    """Checks what can be checked before any weights are read.

    Raises:
      InputError: `out` exists, or the stages don't fit each other.
    """
    check_chain(configs, str(out))
    names = [config.name for config in configs]
    if len(set(names)) < len(names):
        raise InputError(f"{out}: two stages have one name ({', '.join(names)}); each needs a folder of its own")
    if out.exists() or out.is_symlink():
        raise InputError(f'"{out}" exists; choose another --out, or delete it')


def check_finite_params(params: Params, whose: str) -> None:
    """Checks that parameters are numbers.

    Args:
      params: a tree of arrays.
      whose: for the message, such as "stage of 64 px".

    Raises:
      NotFiniteError: one is infinite or not a number.
    """
    for name, array in flatten_dict(dict(params), sep="/").items():
        if not np.isfinite(np.asarray(array)).all():
            raise NotFiniteError(
                f"{whose}: parameter {name} holds infinities or NaN, from which no picture can be drawn; export the "
                "cascade from another checkpoint (python -m imagen_jax.export)"
            )


def _write_parts(
    folder: Path, configs: Sequence[StageConfig], params: Sequence[Params], encoder_folder: Path | None
) -> list[Path]:
    """Writes everything but the index, and returns the files."""
    mode = (folder / _MARKER).stat().st_mode & 0o666  # as the umask says; the library's own would be 0600
    written = []
    if encoder_folder is not None:
        (folder / ENCODER).mkdir()
        for path in encoder_files(encoder_folder):
            written.append(folder / ENCODER / path.name)
            shutil.copyfile(path, written[-1])
            _settle(written[-1], mode)
    for config, tree in zip(configs, params, strict=True):
        (folder / config.name).mkdir()
        written += [folder / config.name / CONFIG, folder / config.name / WEIGHTS]
        write_json(written[-2], dataclasses.asdict(config))
        flat: dict[str, Any] = flatten_dict(dict(tree), sep="/")
        save_file({name: jnp.asarray(array) for name, array in flat.items()}, str(written[-1]))
        _settle(written[-1], mode)
    return written


def _settle(path: Path, mode: int) -> None:
    """Gives a written file its mode, and has it reach the disk."""
    path.chmod(mode)
    with open(path, "rb+") as file:
        sync(file)


@contextlib.contextmanager
def _unfinished_folder(out: Path) -> Iterator[Path]:
    """Makes a folder beside `out`, which nobody else has, and deletes it if it isn't renamed."""
    folder = out.with_name(f"{out.name}.partial-{secrets.token_hex(8)}")
    folder.mkdir()
    with open(folder / _MARKER, "wb") as marker:
        try:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(marker, fcntl.LOCK_EX | fcntl.LOCK_NB)
            marker.write(_MARK)
            marker.flush()
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _delete_leftovers(out: Path) -> None:
    """Deletes what killed exports to `out` have left: folders with the marker, which no process locks."""
    for folder in sorted(out.parent.glob(f"{glob.escape(out.name)}.partial-*")):
        marker = folder / _MARKER
        if folder.is_symlink() or not marker.is_file() or marker.read_bytes() not in (_MARK, b""):
            continue
        with open(marker, "rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:  # another export is writing it; or there are no locks, and it may be
                continue
            shutil.rmtree(folder, ignore_errors=True)
        logging.info("%s, which an export that was ended has left, is deleted", folder)
