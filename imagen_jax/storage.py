"""Failures of a disk or a bucket: told from all other errors, whichever library met them, and said once.

Libraries that write in threads of their own (orbax, TFDS) log or print a traceback for each write that fails, before
and after the one exception that reaches their caller. `quiet_libraries` keeps those off the terminal, and remembers
them: a command that seemed to succeed has then failed all the same.
"""

import contextlib
import errno
import logging
import os
import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from imagen_jax.errors import StorageError

# What may be gone tomorrow, without any change to the command. Not permissions or missing folders: mistakes.
_FAILURES = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG),  # full, or at a limit
    errno.EROFS,
    *(errno.EIO, errno.ESTALE, errno.ENODEV, errno.ENXIO, errno.ENOTCONN, errno.EREMOTEIO),  # gone, or broken
    *(errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ECONNRESET, errno.ECONNABORTED),  # a network's
)
# In words of their own: TFDS.
_OTHER_WORDS = ((errno.ENOSPC, "Not enough disk space"),)
_REMEDY = "make space, or mount it again, and run the same command again"

# How jax says that hosts can't exchange numbers, whichever class of exception it raises.
_COLLECTIVE = re.compile(r"\bGloo [\w-]+ failed")

_background: list[str] = []  # what failed in threads of libraries, for `raise_background_failure`


def describe_failure(error: BaseException) -> str | None:
    """'No space left on device: "PATH"' if a disk's failure is what `error` is, or came from; None for other errors.

    Looks at the whole chain of causes, and at the messages of libraries that keep only the system's words.
    """
    # What jax's runtime says of a connection is about another host, not about a disk.
    links = [link for link in chain(error) if not is_of_runtime(link)]
    for link in links:
        if isinstance(link, OSError) and link.errno in _FAILURES:
            path = f': "{link.filename}"' if link.filename is not None else ""
            return f"{os.strerror(link.errno)}{path}"
    for link in links:
        message = str(link)
        for number, words in [*((number, os.strerror(number)) for number in _FAILURES), *_OTHER_WORDS]:
            if words in message:
                return os.strerror(number)
    return None


def is_of_runtime(error: BaseException) -> bool:
    """Whether jax's runtime says it, of devices and other hosts; of a collective it may raise a ValueError too."""
    return type(error).__name__ == "JaxRuntimeError" or bool(_COLLECTIVE.search(str(error)))


@contextlib.contextmanager
def writing(what: str | Path) -> Iterator[None]:
    """Turns a disk's failure inside into a `StorageError` that names `what` was written, a path or some words.

    Raises:
      StorageError: such a failure. Other exceptions pass.
    """
    try:
        yield
    except StorageError:
        raise
    except Exception as error:
        reason = describe_failure(error)
        if reason is None:
            raise
        raise StorageError(f'can\'t write "{what}": {reason}; {_REMEDY}') from error


def message_of(error: BaseException) -> str | None:
    """The line for a failure that nobody has caught and named; None for other errors."""
    reason = describe_failure(error)
    return reason and f"{reason}; {_REMEDY}"


def count_background_failures() -> int:
    """Returns how often a library's thread has failed of a disk since the process was started."""
    return len(_background)


def raise_background_failure(*, after: int = 0) -> None:
    """Raises StorageError if a library's thread has failed of a disk.

    Args:
      after: how many such failures are known and don't count.
    """
    if new := _background[after:]:
        raise StorageError(f"{new[0]}; {_REMEDY}")


def quiet_libraries() -> None:
    """Keeps what threads, event loops and finalisers of libraries print of a disk's failure off the terminal."""
    thread_hook, unraisable_hook, main_hook = threading.excepthook, sys.unraisablehook, sys.excepthook

    def in_thread(args: Any) -> None:
        if args.exc_value is None or not _remember(args.exc_value):
            thread_hook(args)

    def unraisable(args: Any) -> None:
        # A coroutine of orbax that nobody waits for any more, as another has failed of the same, and raised it.
        if "orbax" in getattr(getattr(args.object, "cr_code", None), "co_filename", ""):
            if args.exc_value is not None:
                _remember(args.exc_value)
            return
        if args.exc_value is None or not (_remember(args.exc_value) or _background):
            unraisable_hook(args)

    def uncaught(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        # Python's own threads have `in_thread`. This is one of a library in C++ (tensorstore), which had an answer for
        # an event loop that orbax closed when a write failed: what it failed of is what orbax raises.
        in_library = threading.current_thread() is not threading.main_thread()
        if not (in_library and (_remember(error) or str(error) == "Event loop is closed")):
            main_hook(kind, error, trace)

    threading.excepthook, sys.unraisablehook, sys.excepthook = in_thread, unraisable, uncaught
    # orbax logs by absl, and asyncio what nobody has fetched from a task.
    for name in ("absl", "asyncio"):
        logging.getLogger(name).addFilter(_is_no_storage_failure)


def _is_no_storage_failure(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    if error is not None:
        if _remember(error) or (_background and record.name == "asyncio"):
            return False
        if "orbax" in record.pathname:
            if "background save thread" in record.getMessage():
                # Such as another host's end. orbax raises it too, where that thread is waited for.
                return False
            reason = " ".join(str(error).split())[:300]
            record.msg, record.args = "%s: %s", (" ".join(record.getMessage().split()), reason or type(error).__name__)
            record.exc_info = record.exc_text = None
        return True
    if record.levelno >= logging.WARNING and "orbax" in record.pathname:
        return not any(os.strerror(number) in record.getMessage() for number in _FAILURES)
    return True


def _remember(error: BaseException) -> bool:
    reason = describe_failure(error)
    if reason:
        _background.append(reason)
    return bool(reason)


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yields an exception and all that it came from."""
    seen: set[int] = set()
    left: list[BaseException | None] = [error]
    while left:
        link = left.pop(0)
        if link is None or id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        left += [link.__cause__, link.__context__]
        if isinstance(link, BaseExceptionGroup):
            left += link.exceptions
