"""The exceptions that are no bugs, and the exit codes of the mains.

cli.run prints the message of each as one line, "error: ...", and exits with its code.
"""

EXIT_CRASH = 1
EXIT_BAD_INPUT = 2
EXIT_NO_CHECKPOINT = 3
EXIT_NOT_FINITE = 4
EXIT_STORAGE = 5
EXIT_PREEMPTED = 42
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as a shell counts


class InputError(ValueError):
    """A flag, config, file or device count that can't be used.

    The message is one line (or a short table) that names the value, what was expected, and the remedy. The mains
    print it without a traceback and exit with `EXIT_BAD_INPUT`: the same command would end the same way.
    """


class StorageError(RuntimeError):
    """A disk or bucket that is full, read-only, or gone: the command is right, and may be run again (`EXIT_STORAGE`).

    The message is one line that names the path, what the system said, and the remedy. See `storage.describe_failure`,
    which tells such failures from others.
    """


class NotFiniteError(RuntimeError):
    """Numbers that are infinite or not a number, where none may be (`EXIT_NOT_FINITE`).

    The message is one line that says where they were found, and what usually helps.
    """


class HostLostError(RuntimeError):
    """Another host of the same run has ended, without which this one can't go on; all may be started again.

    The exit code is `EXIT_CRASH`. The message is one line. `hosts.describe_lost` tells such failures from others.
    """
