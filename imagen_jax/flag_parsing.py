"""Parses the command line of a main; each mistake in it is one line in the language of the flags."""

import math
import re
import sys
from collections import Counter
from collections.abc import Sequence

from absl import flags, logging
from ml_collections.config_flags import config_flags

import imagen_jax
from imagen_jax import config_flag, flag_help
from imagen_jax.errors import InputError
from imagen_jax.foreign_flags import translate
from imagen_jax.registry import did_you_mean

_HELP_FLAGS = ("--help", "-help", "-h", "-?", "--helpshort", "-helpshort")
_VERSION_FLAGS = ("--version", "-version")


def parse(argv: Sequence[str]) -> list[str]:
    """Parses `argv` into flags.FLAGS, and loads the config that it names.

    --help and --version print and end the process with code 0.

    Raises:
      InputError: any mistake in the command line or, out of get_config, in the config's variant.
    """
    if any(arg in _HELP_FLAGS for arg in argv[1:]):
        print(flag_help.of_main())
        sys.exit(0)
    if any(arg in _VERSION_FLAGS for arg in argv[1:]) and "version" not in flags.FLAGS:
        print(f"imagen_jax {imagen_jax.__version__}")
        sys.exit(0)
    _reject_positional(argv)
    argv = config_flag.with_home_folders(argv)
    config_flag.check_files(argv)
    with config_flag.neighbours_importable(argv):
        rest = _parse(argv)
    if len(rest) > 1:
        _reject_positional(rest)
    _check_values()
    return rest


def warn_of_repeated(argv: Sequence[str]) -> None:
    """Logs a warning for each flag that is given more than once, of which the last counts; once logging is set up."""
    for name, count in Counter(_single_valued(argv)).items():
        if count > 1:
            logging.warning("--%s is given %d times; the last one counts: %s", name, count, flags.FLAGS[name].value)


def _single_valued(argv: Sequence[str]) -> list[str]:
    names = [re.sub(r"^--?", "", arg).partition("=")[0] for arg in argv[1:] if re.match(r"--?\w", arg)]
    names = [name.removeprefix("no") if name not in flags.FLAGS else name for name in names]
    return [name for name in names if name in flags.FLAGS and not isinstance(flags.FLAGS[name], flags.MultiFlag)]


def _parse(argv: Sequence[str]) -> list[str]:
    try:
        return flags.FLAGS(list(argv))
    except flags.UnrecognizedFlagError as error:
        raise InputError(_describe_unknown(error.flagname)) from None
    except flags.Error as error:
        config_flag.raise_from_get_config(error)
        raise InputError(_describe(error)) from None
    except (AttributeError, KeyError, IndexError, ValueError, TypeError) as error:
        # What ml_collections raises for a key that the config doesn't have, besides what get_config itself may raise.
        config_flag.check_keys(argv)
        if isinstance(error, ValueError | TypeError) and not isinstance(error, InputError):
            raise InputError(_one_line(error)) from None
        raise


def _describe_unknown(name: str) -> str:
    advice = translate(name, set(flags.FLAGS))
    own = {flag.name for flag in flag_help.own_flags()} | {"help", "version"}
    guess = re.search('"(.*)"', did_you_mean(name, sorted(own)) or did_you_mean(name, list(flags.FLAGS)))
    guessed = f'Did you mean "--{guess[1]}"? ' if guess else ""
    return f"unknown flag --{name}. {advice or guessed}--help lists the flags"


# Positional arguments: nothing takes any, and absl stops parsing at the first, in silence.


def _positional(argv: Sequence[str]) -> tuple[str, str] | None:
    """The first argument that is neither a flag nor, by `--flag value`, a flag's value; and the one before it."""
    takes_value, before = False, ""
    for arg in argv[1:]:
        if arg.startswith("-") and arg != "-":
            name = arg.lstrip("-")
            known = name in flags.FLAGS
            takes_value = "=" not in arg and (flags.FLAGS[name].boolean is False if known else "." in name)
        elif not takes_value:
            return arg, before
        else:
            takes_value = False
        before = arg
    return None


def _reject_positional(argv: Sequence[str]) -> None:
    found = _positional(argv)
    if found is None:
        return
    arg, before = found
    name = re.split(r"[.=]", arg)[0]
    if "=" in arg and (name in flags.FLAGS or "." in arg.split("=")[0]):
        raise InputError(f'"{arg}" has no dashes; did you mean --{arg}?')
    if before.lstrip("-") in flags.FLAGS and arg.lower() in ("true", "false", "1", "0", "yes", "no"):
        raise InputError(f'"{before} {arg}": a flag that is true or false takes its value after "=": {before}={arg}')
    if before.lstrip("-").split("=")[0] in flags.FLAGS and "=" in before:
        remedy = "a value with spaces needs quotes, and a list has none after its commas"
        raise InputError(f'unexpected argument "{arg}" after {before}: {remedy}')
    raise InputError(f'unexpected argument "{arg}": settings are given as --name=value')


# Values.


def _check_values() -> None:
    """Of the main's own flags, what absl lets pass: numbers that are not finite, required texts that are empty."""
    for flag in flag_help.own_flags():
        if isinstance(flag.value, float) and not math.isfinite(flag.value):
            raise InputError(f"--{flag.name}={flag.value}: expected {_expected(flag.parser)}")
        if flag.value == "" and flag_help.is_required(flag):
            raise InputError(f"--{flag.name}= is empty, and required")


def _one_line(message: object) -> str:
    return " ".join(str(message).split())


def _describe(error: flags.Error) -> str:
    """absl's message, naming flags as they are typed, and what a value should have been."""
    message = _one_line(error)
    if required := re.search(r"Flag --(\S+) must have a value other than None", message):
        name = required[1]
        is_config = config_flags.is_config_flag(flags.FLAGS[name])
        return f"--{name} is required. {config_flag.list_configs()}" if is_config else f"--{name} is required"
    if missing := re.match(r"Missing value for flag -{0,2}(\S+)", message):
        parser = flags.FLAGS[missing[1]].parser if missing[1] in flags.FLAGS else None
        return f"--{missing[1]} lacks its value{f', {_expected(parser)}' if parser else ''}: --{missing[1]}=VALUE"
    if early := re.match(r"Found (\S+) in argv before a value for (\S+) was specified", message):
        return f"{early[1]} stands before {early[2]}; give {early[2]}=FILE first, then what changes it"
    if group := re.search(r"flag (--\S+)=(.*?): Failed to parse .* as a ConfigDict", message):
        return f"{group[1]}={group[2]}: {group[1]} is a group of fields; set one of them, {group[1]}.FIELD=VALUE"
    if illegal := re.match(r"flag --([^=]+)=(.*?): (.*)", message):
        name, value, reason = illegal.groups()
        parser = flags.FLAGS[name].parser if name in flags.FLAGS else None
        return f"--{name}={value}: {_reason(parser, value, reason)}"
    return message


def _reason(parser: flags.ArgumentParser | None, value: str, reason: str) -> str:
    if isinstance(parser, flags.BooleanParser):
        return "expected true or false"
    if isinstance(parser, flags.EnumParser):
        return f"expected one of {', '.join(parser.enum_values)}.{did_you_mean(value, parser.enum_values)}"
    if isinstance(parser, flags.IntegerParser):
        return f"expected {_expected(parser)}{_whole(value)}"
    if isinstance(parser, flags.FloatParser):
        return f"expected {_expected(parser)}"
    return reason


def _whole(text: str) -> str:
    """What to write in place of 1e3 or 4.0; "" for what is no whole number, or is written as one."""
    if not re.fullmatch(r"[-+]?\d+(\.\d*(e\+?\d{1,2})?|e\+?\d{1,2})", text, re.IGNORECASE):
        return ""
    return f"; write {int(float(text))}" if float(text).is_integer() else ""


def _expected(parser: flags.ArgumentParser) -> str:
    """What a flag's value should be, in words."""
    if isinstance(parser, flags.EnumParser):
        return f"one of {', '.join(parser.enum_values)}"
    if not isinstance(parser, flags.IntegerParser | flags.FloatParser):
        return getattr(parser, "syntactic_help", "") or "a text"
    noun = "a whole number" if isinstance(parser, flags.IntegerParser) else "a number"
    low, high = parser.lower_bound, parser.upper_bound
    if low is not None and high is not None:
        return f"{noun} from {low} to {high}"
    return f"{noun} of at least {low}" if low is not None else f"{noun} up to {high}" if high is not None else noun
