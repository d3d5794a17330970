"""What --help prints: a main's docstring and its own flags, in groups, as wide as the terminal."""

import re
import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import Any

from absl import flags
from ml_collections.config_flags import config_flags

from imagen_jax.shared_flags import PathParser, group_of

_WIDTH = 80  # where no terminal says otherwise
_NARROWEST = 40
_REQUIRED, _OTHERS = "Required", "Further options"
_INDENT = 6


def own_flags(module: str | None = None) -> list[flags.Flag]:
    """Returns the flags of a main, without absl's. `module`: its name; None: of this process's main."""
    return list(flags.FLAGS.get_flags_for_module(module or sys.argv[0]))


def of_main() -> str:
    """Returns the whole text for this process's main, for the terminal that it is printed on."""
    width = shutil.get_terminal_size((_WIDTH, 24)).columns if sys.stdout.isatty() else _WIDTH
    return text(sys.modules["__main__"].__doc__ or "", own_flags(), width=max(width, _NARROWEST))


def text(doc: str, given: Sequence[flags.Flag], *, width: int) -> str:
    """Returns a docstring and flags as text, no line of which is longer than `width`.

    Args:
      doc: paragraphs, and commands, which begin with "python -m" or with "usage:".
      given: the flags, in any order.
      width: columns of the terminal.
    """
    parts = [_paragraph(part, width) for part in re.split(r"\n\s*\n", doc.strip())]
    groups: dict[str, list[flags.Flag]] = {}
    for flag in sorted(given, key=lambda flag: flag.name):
        groups.setdefault(_group(flag), []).append(flag)
    for title in sorted(groups, key=lambda title: (title == _OTHERS, title != _REQUIRED)):
        parts.append("\n".join([f"{title}:", *(_flag(flag, width) for flag in groups[title])]))
    parts.append(textwrap.fill("--helpfull lists the libraries' flags too; --version prints the version.", width))
    return "\n\n".join(parts)


def is_required(flag: flags.Flag) -> bool:
    """Whether a main can't be run without a flag."""
    validators: list[Any] = flag.validators
    return any("must have a value other than None" in str(validator.message) for validator in validators)


def _group(flag: flags.Flag) -> str:
    if is_required(flag):
        return _REQUIRED
    if title := group_of(flag.name):
        return title
    if config_flags.is_config_flag(flag):
        return "The run"
    if isinstance(flag.parser, PathParser):
        return "Files and folders"
    return _OTHERS


def _paragraph(paragraph: str, width: int) -> str:
    """Reflowed; a command keeps its own line, and is broken as a shell would take it."""
    lines: list[str] = []
    for line in paragraph.split("\n"):
        starts = bool(re.match(r"\s*(python -m|usage:)", line))
        goes_on = lines and re.match(r"\s*(python -m|usage:)", lines[-1])
        if starts or not lines or (goes_on and not line.startswith(" ")):
            lines.append(line.strip() if not starts else line.rstrip())
        else:
            lines[-1] += f" {line.strip()}"
    return "\n".join(_command(line, width) if re.match(r"\s*python -m", line) else _fill(line, width) for line in lines)


def _fill(line: str, width: int, indent: str = "") -> str:
    return textwrap.fill(
        line, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False, break_long_words=True
    )


def _command(line: str, width: int) -> str:
    # Not within quotes, where a shell would take the indentation for a part of the value.
    whole = re.sub(r'"[^"]*"', lambda quoted: quoted[0].replace(" ", "\0"), line)
    broken = textwrap.wrap(whole, width - 2, subsequent_indent="    ", break_on_hyphens=False)
    return " \\\n".join(broken).replace("\0", " ")


def _flag(flag: flags.Flag, width: int) -> str:
    value = "" if flag.boolean else f"={_value(flag)}"
    required = "  (required)" if is_required(flag) else ""
    default = ""
    if not (flag.default is None or flag.default is False or flag.default in ("", [])) and not required:
        default = f" Default: {_default(flag)}."
    head = f"--{'[no]' if flag.boolean else ''}{flag.name}{value}{required}"
    meaning = f"{_sentence(flag)}{default}"
    return f"{_fill(head.strip(), width, '  ')}\n{_fill(meaning, width, ' ' * _INDENT)}"


def _sentence(flag: flags.Flag) -> str:
    """A flag's help without what absl adds to it, which is said elsewhere."""
    help = " ".join((flag.help or "").split())
    return re.sub(r"^<[^>]*>: ", "", help).removesuffix("; repeat this option to specify a list of values")


def _value(flag: flags.Flag) -> str:
    parser = flag.parser
    if config_flags.is_config_flag(flag):
        return "FILE[:VARIANT]"
    if isinstance(parser, flags.EnumParser):
        return "|".join(parser.enum_values)
    kinds = {PathParser: "PATH", flags.IntegerParser: "INTEGER", flags.FloatParser: "NUMBER"}
    kinds |= {flags.BaseListParser: "VALUE,..."}
    return next((word for kind, word in kinds.items() if isinstance(parser, kind)), "TEXT")


def _default(flag: flags.Flag) -> str:
    if isinstance(flag.default, list | tuple):
        return ",".join(map(str, flag.default))
    return str(flag.default)
