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
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import jax
from absl import app, flags, logging
from ml_collections import ConfigDict
from ml_collections.config_flags import config_flags

from imagen_jax import storage
from imagen_jax.errors import (
    EXIT_BAD_INPUT,
    EXIT_INTERRUPTED,
    EXIT_NOT_FINITE,
    EXIT_STORAGE,
    InputError,
    NotFiniteError,
    StorageError,
)
from imagen_jax.registry import did_you_mean

_EXIT_CRASH = 1
_LAST_WORDS_S = 1.0
_XLA_CACHE = "~/.cache/imagen_jax/xla"
_HELP_FLAGS = ("--help", "-help", "-h", "-?", "--helpshort", "-helpshort")


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
    known = next((code for kind, code in codes.items() if isinstance(error, kind)), None)
    if known is not None:
        _say(f"error: {error}")
        return known
    if message := storage.message_of(error):
        _say(f"error: {message}")
        return EXIT_STORAGE
    # A folder that may not be written: the user's to mend. Without a file name it may be a bug.
    if isinstance(error, OSError) and error.filename is not None:
        print(f"error: {error.strerror}: {error.filename}", file=sys.stderr)
        return EXIT_BAD_INPUT
    traceback.print_exc()
    return _EXIT_CRASH


def _say(line: str) -> None:
    with contextlib.suppress(OSError):  # sent to a file on the disk that is full
        print(line, file=sys.stderr, flush=True)


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
        os._exit(code if isinstance(code, int) else _EXIT_CRASH)
    sys.exit(code)


def _parse_flags(argv: Sequence[str]) -> list[str]:
    """Parses `argv` into flags.FLAGS.

    Raises:
      InputError: any mistake in the command line or, out of get_config, in the config's variant.
    """
    if any(arg in _HELP_FLAGS for arg in argv[1:]):
        _print_help()
        sys.exit(0)
    _reject_positional(_positional(argv), argv)
    _check_config_files(argv)
    _quiet_logging(verbose=any(re.match(r"--?(verbosity|v)\b", arg) for arg in argv))
    try:
        rest = flags.FLAGS(list(argv))
    except flags.UnrecognizedFlagError as error:
        names = [f"--{name}" for name in flags.FLAGS]
        raise InputError(
            f"unknown flag --{error.flagname}.{did_you_mean(f'--{error.flagname}', names)} --help lists the flags"
        ) from None
    except flags.Error as error:
        _raise_from_get_config(error)
        raise InputError(_describe(error)) from None
    except (AttributeError, KeyError, IndexError, ValueError) as error:
        # What ml_collections raises for a key that the config doesn't have, besides what get_config itself may raise.
        _check_config_keys(argv)
        if isinstance(error, ValueError) and not isinstance(error, InputError):
            raise InputError(_one_line(error)) from None
        raise
    _reject_positional(rest[1:], argv)
    return rest


def _print_help() -> None:
    """The main's docstring and its own flags, without absl's."""
    print((sys.modules["__main__"].__doc__ or "").strip())
    print("\nflags (--helpfull lists the libraries' too):")
    for flag in sorted(flags.FLAGS.get_flags_for_module(sys.argv[0]), key=lambda flag: flag.name):
        default = "" if flag.default in (None, "", []) else f" (default: {flag.default_as_str})"
        print(f"  --{flag.name}: {_one_line(flag.help or '')}{default}")


# Positional arguments: nothing takes any, and absl stops parsing at the first, in silence.


def _positional(argv: Sequence[str]) -> list[str]:
    """The arguments of `argv` that are neither flags nor, by `--flag value`, a flag's value."""
    found = []
    takes_value = False
    for arg in argv[1:]:
        if arg.startswith("-") and arg != "-":
            name = arg.lstrip("-")
            known = name in flags.FLAGS
            takes_value = "=" not in arg and (flags.FLAGS[name].boolean is False if known else "." in name)
            continue
        if not takes_value:
            found.append(arg)
        takes_value = False
    return found


def _reject_positional(positional: Sequence[str], argv: Sequence[str]) -> None:
    if not positional:
        return
    arg = positional[0]
    name = re.split(r"[.=]", arg)[0]
    if "=" in arg and (name in flags.FLAGS or "." in arg.split("=")[0]):
        raise InputError(f'"{arg}" has no dashes; did you mean --{arg}?')
    raise InputError(
        f'unexpected argument "{arg}" in: {" ".join(argv[1:])}\n'
        "Settings are given as --name=value; a value with spaces needs quotes."
    )


# Configs.


def _config_arguments(argv: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(flag name, "path[:variant]") for each config file named on the command line."""
    for name in flags.FLAGS:
        if not config_flags.is_config_flag(flags.FLAGS[name]):
            continue
        for i, arg in enumerate(argv):
            if found := re.fullmatch(rf"--?{re.escape(name)}(?:=(.*))?", arg, re.S):
                yield name, found[1] if found[1] is not None else "".join(argv[i + 1 : i + 2])


def _overrides(argv: Sequence[str], name: str) -> Iterator[tuple[str, str]]:
    """(argument, dotted key) for each --NAME.key of the command line."""
    for arg in argv:
        if found := re.match(rf"--?{re.escape(name)}\.([^=]+)", arg):
            yield arg, found[1]


def _check_config_files(argv: Sequence[str]) -> None:
    given = dict(_config_arguments(argv))
    for name in flags.FLAGS:
        flag = flags.FLAGS[name]
        if not config_flags.is_config_flag(flag) or flag.default is not None:
            continue
        for arg, _ in _overrides(argv, name):
            if name not in given:
                raise InputError(f"{arg} changes a config, but none is given; add --{name}=FILE. {_configs_there()}")
    for name, argument in given.items():
        path = Path(argument.split(":", 1)[0])
        if not path.is_file():
            raise InputError(f'--{name}: no file "{path}". {_configs_there(path)}')


def _configs_there(wanted: Path | None = None) -> str:
    """'Configs here: ...' for the folder of `wanted`, if it has any, else for configs/."""
    folders = [Path("configs"), *([wanted.parent] if wanted else [])]
    there = sorted(str(path) for folder in set(folders) for path in folder.glob("*.py") if path.stem != "__init__")
    if not there:
        return "There is no configs/ in the current folder; run it from the repository's root."
    return f"Configs here: {', '.join(there)}.{did_you_mean(str(wanted), there) if wanted else ''}"


def _check_config_keys(argv: Sequence[str]) -> None:
    """Reads the configs again, to find which override names a key that its config doesn't have.

    Raises:
      InputError: an unknown key; with the closest one, or what there is beside it.
    """
    for name, argument in _config_arguments(argv):
        config = flags.FLAGS[name].parser.parse(argument)
        if not isinstance(config, ConfigDict):
            continue
        leaves = list(_leaves(config))
        for arg, key in _overrides(argv, name):
            if "[" in key:
                raise InputError(f"{arg}: one entry can't be set; give the whole value, such as --{name}.key=1,2,3")
            if key not in leaves and not any(leaf.startswith(f"{key}.") for leaf in leaves):
                raise InputError(f"{arg}: the config has no {name}.{key}.{_closest(key, leaves, config, name)}")


def _leaves(config: ConfigDict, prefix: str = "") -> Iterator[str]:
    for key in config:
        value = config[key]
        if isinstance(value, ConfigDict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _closest(key: str, leaves: Sequence[str], config: ConfigDict, name: str) -> str:
    """A guess by the full path, then by the last name alone; failing both, what the key could have been."""
    by_last_name = {leaf.rsplit(".", 1)[-1]: leaf for leaf in leaves}
    if guess := re.search('"(.*)"', did_you_mean(key, leaves)):
        return f" Did you mean --{name}.{guess[1]}?"
    if guess := re.search('"(.*)"', did_you_mean(key.rsplit(".", 1)[-1], by_last_name)):
        return f" Did you mean --{name}.{by_last_name[guess[1]]}?"
    node, path = config, name
    for part in key.split("."):
        child: Any = node.get(part, None)
        if not isinstance(child, ConfigDict):
            break
        node, path = child, f"{path}.{part}"
    return f" {path} has: {', '.join(sorted(node.keys()))}"


def _raise_from_get_config(error: BaseException) -> None:
    """Raises what get_config raised, which ml_collections and absl have each wrapped, if that is where `error` is from.

    An InputError is a message; anything else is a bug in the config file, whose own traceback helps most.
    """
    chain = [error]
    while chain[-1].__context__ is not None:
        chain.append(chain[-1].__context__)
    if not any("Error whilst parsing config file" in str(link) for link in chain):
        return
    origin = chain[-1]
    if isinstance(origin, InputError):
        raise origin from None
    if origin.__traceback__ is not None and origin.__traceback__.tb_next is None:
        # The call itself failed, not the function: a variant for a get_config without one, or the reverse.
        raise InputError(f"the config's variant: {_one_line(origin)}") from None
    raise origin from None


# Messages.


def _one_line(message: object) -> str:
    return " ".join(str(message).split())


def _describe(error: flags.Error) -> str:
    """absl's message, naming flags as they are typed, and what a value should have been."""
    message = _one_line(error)
    if required := re.search(r"Flag --(\S+) must have a value other than None", message):
        name = required[1]
        is_config = config_flags.is_config_flag(flags.FLAGS[name])
        return f"--{name} is required. {_configs_there()}" if is_config else f"--{name} is required"
    if illegal := re.match(r"flag --([^=]+)=(.*?): (.*)", message):
        name, value, reason = illegal.groups()
        parser = flags.FLAGS[name].parser if name in flags.FLAGS else None
        if isinstance(parser, flags.BooleanParser):
            reason = "expected true or false"
        elif re.match(r"invalid literal|could not convert", reason) and parser is not None:
            reason = f"expected {parser.syntactic_help}"
        elif isinstance(parser, flags.EnumParser):
            reason = f"expected one of {', '.join(parser.enum_values)}.{did_you_mean(value, parser.enum_values)}"
        return f"--{name}={value}: {reason}"
    return message


# Logging.


class _PlainFormatter(std_logging.Formatter):
    def format(self, record: std_logging.LogRecord) -> str:
        message = super().format(record)
        return message if record.levelno <= std_logging.INFO else f"{record.levelname.lower()}: {message}"


def _quiet_logging(*, verbose: bool) -> None:
    """Plain lines; from the libraries (orbax: dozens a checkpoint) only warnings, unless --verbosity is given."""
    if verbose:
        return
    package = str(Path(__file__).parent)
    handler = logging.get_absl_handler()
    handler.setFormatter(_PlainFormatter("%(message)s"))
    handler.addFilter(lambda record: record.levelno > std_logging.INFO or record.pathname.startswith(package))
