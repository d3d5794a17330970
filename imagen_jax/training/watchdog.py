"""Ends a process that has come to a standstill, such as one of many hosts that waits for a collective forever."""

import faulthandler
import sys


class Watchdog:
    """Ends the process with exit code 1, and the stack of every thread on stderr, unless it is fed in time.

    A thread of C code sees to it, so that a standstill inside a library that holds Python's lock is seen too.
    """

    def __init__(self, timeout_s: float):
        """`timeout_s`: without being fed; 0: forever."""
        self._timeout_s = timeout_s

    def feed(self) -> None:
        """Starts the time anew."""
        if self._timeout_s:
            # sys.__stderr__ rather than sys.stderr, which need not be a file.
            faulthandler.dump_traceback_later(self._timeout_s, exit=True, file=sys.__stderr__ or sys.stderr)

    def close(self) -> None:
        """No more."""
        faulthandler.cancel_dump_traceback_later()
