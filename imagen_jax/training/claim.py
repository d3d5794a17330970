"""A workdir belongs to one run at a time: two that write the same checkpoints would destroy both."""

import contextlib
import re
import secrets
from pathlib import Path

import filelock

from imagen_jax import storage
from imagen_jax.errors import InputError, StorageError
from imagen_jax.files import write_text

_LOCK, _OWNER = ".lock", ".owner"


class Claim:
    """This process's claim to a workdir.

    On one machine a second run is refused at once, by a lock that goes when its process does. Across machines, where a
    shared folder has no such locks, the later run takes over, as one that follows a dead machine must; the earlier
    finds that out before it writes again.
    """

    def __init__(self, workdir: Path):
        """Claims `workdir`, which is created.

        Raises:
          InputError: another process of this machine trains in it, or what should be a file in it is a folder.
          StorageError: the disk is full, read-only or gone.
        """
        self._workdir = workdir
        self._token = secrets.token_hex(16)
        self._owner = workdir / _OWNER
        with storage.writing(workdir):
            workdir.mkdir(parents=True, exist_ok=True)
            for name in (_LOCK, _OWNER):
                if (workdir / name).is_dir():
                    raise InputError(f'"{workdir / name}" is a folder, where a run writes a file; remove it')
            self._lock = filelock.FileLock(workdir / _LOCK)
            with contextlib.suppress(NotImplementedError):  # a file system without locks
                try:
                    self._lock.acquire(timeout=0)
                except filelock.Timeout:
                    raise InputError(
                        f'another run is training in "{workdir}"; use another --workdir, or stop that run first'
                    ) from None
        write_text(self._owner, self._token)

    def check(self) -> None:
        """Checks, before anything is written, that the workdir is still this run's.

        Raises:
          InputError: a run on another machine has claimed the workdir since, or its claim is damaged.
          StorageError: the disk is gone.
        """
        with storage.writing(self._workdir):
            try:
                owner = self._owner.read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                owner = b""
                if not self._workdir.is_dir():
                    raise StorageError(
                        f'"{self._workdir}" is gone; mount it again, and run the same command again: it goes on from '
                        "the last whole checkpoint"
                    ) from None
            except IsADirectoryError:
                owner = b"a folder"
        if owner == self._token.encode():
            return
        if owner and not re.fullmatch(rb"[0-9a-f]{32}", owner):
            raise InputError(
                f'"{self._owner}", which says whose the workdir is, is damaged; remove it, and run the same command '
                "again"
            )
        raise InputError(
            f'another run has taken over "{self._workdir}" since this one started, which writes no more; give each '
            "run a --workdir of its own"
        )
