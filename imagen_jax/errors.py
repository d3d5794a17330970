"""The one exception for a user's mistake, and the exit codes of the mains."""

EXIT_BAD_INPUT = 2
EXIT_NO_CHECKPOINT = 3
EXIT_NOT_FINITE = 4
EXIT_PREEMPTED = 42


class InputError(ValueError):
    """A flag, config, file or device count that can't be used.

    The message is one line (or a short table) that names the value, what was expected, and the remedy. The mains
    print it without a traceback and exit with `EXIT_BAD_INPUT`.
    """
