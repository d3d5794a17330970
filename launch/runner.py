"""Runs commands, or prints them: the one place of this folder that starts gcloud."""

import functools
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

from imagen_jax.errors import InputError

# Nothing but an ssh to a dead worker takes longer; setting up says its own.
_TIMEOUT_S = 600.0
_NO_GCLOUD = "gcloud is not installed: https://cloud.google.com/sdk/docs/install"


class CommandError(Exception):
    """A command failed. The message is one line: which, and the end of what it wrote to stderr.

    Attributes:
      reason: everything that it wrote to stderr.
    """

    def __init__(self, argv: Sequence[str], reason: str):
        """Of a command and everything it wrote to stderr."""
        lines = [line.strip() for line in reason.splitlines() if line.strip()]
        what = " ".join(arg for arg in argv[:6] if not arg.startswith("-"))
        super().__init__(f"{what}: {' | '.join(lines[-3:]) or 'failed without a word'}")
        self.reason = reason


class Runner:
    """Runs argument lists. With `dry_run` it prints each as a shell would take it, and runs none."""

    def __init__(self, *, dry_run: bool):
        """Does nothing yet."""
        self.dry_run = dry_run

    def run(self, argv: Sequence[str], *, timeout_s: float = _TIMEOUT_S) -> str:
        """Standard output of the command; "" in a dry run.

        Raises:
          CommandError: it failed, or took longer than `timeout_s`.
          InputError: there is no gcloud.
        """
        if self.dry_run:
            print(shlex.join(argv), flush=True)
            return ""
        try:
            done = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                check=False,
                timeout=timeout_s,
            )
        except FileNotFoundError:
            raise InputError(_NO_GCLOUD) from None
        except OSError as error:  # no memory or no process for it, at this moment
            raise CommandError(argv, error.strerror or str(error)) from None
        except subprocess.TimeoutExpired:
            raise CommandError(argv, f"no end after {timeout_s:.0f} s") from None
        if done.returncode:
            raise CommandError(argv, done.stderr or f"exit code {done.returncode}")
        return done.stdout

    def stream(self, argv: Sequence[str]) -> int:
        """Runs the command with this terminal as its own, and returns its exit code; 0 in a dry run.

        Raises:
          InputError: there is no gcloud.
        """
        if self.dry_run:
            print(shlex.join(argv), flush=True)
            return 0
        try:
            return subprocess.run(argv, check=False).returncode
        except FileNotFoundError:
            raise InputError(_NO_GCLOUD) from None


def reporting(main: Callable[..., int | None]) -> Callable[..., int | None]:
    """A main for which a failed command is one line on stderr and exit code 1, and no traceback."""

    @functools.wraps(main)
    def wrapped(*args: Any) -> int | None:
        try:
            return main(*args)
        except CommandError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1

    return wrapped
