"""What every `python -m imagen_jax.X` ends with: `if __name__ == "__main__": cli.run(main)`.

A user's mistake is one line on stderr and exit code 2 (errors.py has the other codes), never a traceback; anything else
is a bug and keeps its traceback. A setting is `--name=value`; a config's is `--config.path.to.key=value`.
"""

import contextlib
import logging as std_logging
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import jax
from absl import app, logging

from imagen_jax import flag_parsing, jax_settings, storage
from imagen_jax.errors import (
    EXIT_BAD_INPUT,
    EXIT_CRASH,
    EXIT_INTERRUPTED,
    EXIT_NOT_FINITE,
    EXIT_STORAGE,
    HostLostError,
    InputError,
    NotFiniteError,
    StorageError,
)
from imagen_jax.terminal import fit

_LAST_WORDS_S = 1.0
_XLA_CACHE = "~/.cache/imagen_jax/xla"


def run(main: Callable[..., int | None], *, hands_on: bool = False) -> NoReturn:
    """Parses the command line, runs `main()` and exits with what it returns (None is 0).

    Positional arguments are never accepted, so that a forgotten `--` is an error. Compiled programs are kept in
    $JAX_COMPILATION_CACHE_DIR, or ~/.cache/imagen_jax/xla.

    Args:
      hands_on: for a main that starts another program: what follows a bare `--` is that program's, and `main` is
        called with it, a list of strings.
    """
    end = sys.argv.index("--") if hands_on and "--" in sys.argv else len(sys.argv)
    own, handed_on = sys.argv[:end], sys.argv[end + 1 :]

    def main_with_setup(_: list[str]) -> int | None:
        if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
            jax.config.update("jax_compilation_cache_dir", str(Path(_XLA_CACHE).expanduser()))
        jax_settings.check()
        code = main(handed_on) if hands_on else main()
        storage.raise_background_failure()
        return code

    storage.quiet_libraries()
    try:
        app.run(main_with_setup, argv=own, flags_parser=_parse_flags)
    except SystemExit as done:
        # app.run ends with sys.exit(main()), and so do --helpfull and the like.
        _exit(done.code)
    except KeyboardInterrupt:
        _exit(EXIT_INTERRUPTED)
    except Exception as error:
        code = _report(error)
        if code == EXIT_STORAGE:
            # At once: what libraries still hold can't be written either, and each would say so on its way out.
            _flush()
            os._exit(code)
        _exit(code)
    raise AssertionError("app.run exits")


def _report(error: Exception) -> int:
    """Says on stderr what ended a main, and returns the exit code: one line, or a bug's traceback."""
    codes = {InputError: EXIT_BAD_INPUT, StorageError: EXIT_STORAGE, NotFiniteError: EXIT_NOT_FINITE}
    codes[HostLostError] = EXIT_CRASH
    known = next((code for kind, code in codes.items() if isinstance(error, kind)), None)
    if known is not None:
        _say(f"error: {error}")
        return known
    if message := storage.message_of(error):
        _say(f"error: {message}")
        return EXIT_STORAGE
    # A folder that may not be written: the user's to mend. Without a file name it may be a bug.
    if isinstance(error, OSError) and error.filename is not None:
        _say(f"error: {error.strerror}: {error.filename}")
        return EXIT_BAD_INPUT
    traceback.print_exc()
    return EXIT_CRASH


def _say(line: str) -> None:
    with contextlib.suppress(OSError):  # sent to a file on the disk that is full
        print(fit(line, sys.stderr), file=sys.stderr, flush=True)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # a full disk, or closed
            stream.flush()


def _exit(code: Any) -> NoReturn:
    """`sys.exit`, or at once where a failing process of several would wait at exit for the others, for minutes."""
    if code and jax.distributed.is_initialized() and jax.process_count() > 1:
        _flush()
        if jax.process_index() == 0:
            # When this one is gone the others are ended too, which may be about to say the same.
            time.sleep(_LAST_WORDS_S)
        os._exit(code if isinstance(code, int) else EXIT_CRASH)
    sys.exit(code)


def _parse_flags(argv: Sequence[str]) -> list[str]:
    _quiet_logging(verbose=any(re.match(r"--?(verbosity|v)\b", arg) for arg in argv))
    rest = flag_parsing.parse(argv)
    flag_parsing.warn_of_repeated(argv)
    return rest


class _PlainFormatter(std_logging.Formatter):
    def format(self, record: std_logging.LogRecord) -> str:
        message = super().format(record)
        line = message if record.levelno <= std_logging.INFO else f"{record.levelname.lower()}: {message}"
        return fit(line, sys.stderr)


def _quiet_logging(*, verbose: bool) -> None:
    """Plain lines; from the libraries (orbax: dozens a checkpoint) only warnings, unless --verbosity is given."""
    if verbose:
        return
    package = str(Path(__file__).parent)
    handler = logging.get_absl_handler()
    handler.setFormatter(_PlainFormatter("%(message)s"))
    handler.addFilter(lambda record: record.levelno > std_logging.INFO or record.pathname.startswith(package))
