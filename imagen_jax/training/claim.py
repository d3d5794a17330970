"""A workdir belongs to one run at a time: two that write the same checkpoints would destroy both."""

import contextlib
import secrets
from pathlib import Path

import filelock

from imagen_jax.errors import InputError
from imagen_jax.files import write_text


class Claim:
    """This process's claim to a workdir.

    On one machine a second run is refused at once, by a lock that goes when its process does. Across machines, where a
    shared folder has no such locks, the later run takes over, as one that follows a dead machine must; the earlier
    finds that out before it writes again.
    """

    def __init__(self, workdir: Path):
        """Claims `workdir`, which is created.

        Raises:
          InputError: another process of this machine trains in it.
        """
        workdir.mkdir(parents=True, exist_ok=True)
        self._workdir = workdir
        self._lock = filelock.FileLock(workdir / ".lock")
        with contextlib.suppress(NotImplementedError):  # a file system without locks
            try:
                self._lock.acquire(timeout=0)
            except filelock.Timeout:
                raise InputError(
                    f'another run is training in "{workdir}"; use another --workdir, or stop that run first'
                ) from None
        self._token = secrets.token_hex(16)
        self._owner = workdir / ".owner"
        write_text(self._owner, self._token)

    def check(self) -> None:
        """Before anything is written.

        Raises:
          InputError: a run on another machine has claimed the workdir since.
        """
        try:
            owner = self._owner.read_bytes().decode(errors="replace")
        except FileNotFoundError:
            owner = "nobody"
        if owner != self._token:
            raise InputError(
                f'another run has taken over "{self._workdir}" since this one started, which writes no more; give each '
                "run a --workdir of its own"
            )
