"""Finds the config file that a command line names, --config=FILE[:VARIANT], and explains mistakes in it."""

import ast
import contextlib
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict
from ml_collections.config_flags import config_flags

from imagen_jax.errors import InputError
from imagen_jax.files import read_bytes, user_path
from imagen_jax.registry import did_you_mean

_MAX_FILE_BYTES = 2**20
_WHAT_A_CONFIG_IS = "a Python file with a function get_config, as those in configs/"


def with_home_folders(argv: Sequence[str]) -> list[str]:
    """Returns `argv` with the home folder in place of "~" in the path of each config."""
    changed = list(argv)
    for name, argument in _config_arguments(argv):
        if argument.startswith("~"):
            path, colon, variant = argument.partition(":")
            whole = f"{user_path(path)}{colon}{variant}"
            changed = [f"--{name}={whole}" if arg == f"--{name}={argument}" else arg for arg in changed]
    return changed


@contextlib.contextmanager
def neighbours_importable(argv: Sequence[str]) -> Iterator[None]:
    """Lets configs import what lies beside their folder, from whichever folder the command is run.

    `from configs import recipes` in /abs/path/configs/x.py finds /abs/path/configs, and no other folder of that name.
    """
    folders = [str(Path(argument.partition(":")[0]).resolve().parent.parent) for _, argument in _config_arguments(argv)]
    before = list(sys.path)
    sys.path[:0] = folders
    try:
        yield
    finally:
        sys.path[:] = before


def check_files(argv: Sequence[str]) -> None:
    """Checks that each config of the command line is a file that can be loaded, before anything is.

    Raises:
      InputError: no file, no Python, no function get_config, or settings of a config without one.
    """
    arguments = list(_config_arguments(argv))
    given = dict(arguments)
    for name in flags.FLAGS:
        flag = flags.FLAGS[name]
        if not config_flags.is_config_flag(flag) or flag.default is not None:
            continue
        for arg, _ in _overrides(argv, name):
            if name not in given:
                raise InputError(f"{arg} changes a config, but none is given; add --{name}=FILE. {list_configs()}")
    if len(arguments) > len(given):
        name = arguments[-1][0]
        raise InputError(f"--{name} is given {len(arguments)} times; a run has one config")
    for name, argument in arguments:
        path = Path(argument.split(":", 1)[0])
        if not argument.partition(":")[0].strip():
            raise InputError(f"--{name}={argument}: expected a file. {list_configs()}")
        if not path.is_file():
            raise InputError(f'--{name}: no file "{path}". {list_configs(path)}')
        try:
            has_get_config = defines_get_config(path)
        except InputError as error:
            raise InputError(f"--{name}: {error}") from None
        if not has_get_config:
            raise InputError(
                f'--{name}: "{path}" has no function get_config, so it is no config. {list_configs(path, guess=False)}'
            )


def defines_get_config(path: Path) -> bool:
    """Whether a file is Python whose top level has the name get_config. Nothing of it is run.

    Raises:
      InputError: it can't be read, or is no Python; the message has the line.
    """
    source = read_bytes(path, expected=_WHAT_A_CONFIG_IS, max_bytes=_MAX_FILE_BYTES)
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        line = " ".join((error.text or "").split())[:100]
        where = f"{path}, line {error.lineno}" if error.lineno else str(path)
        raise InputError(f"{where}: {error.msg}{f': {line}' if line else ''}") from None
    except (ValueError, RecursionError, MemoryError) as error:  # null bytes, or nesting beyond the parser
        raise InputError(f"{path}: no Python ({' '.join(str(error).split()) or type(error).__name__})") from None
    return any("get_config" in names or "*" in names for names in map(_names_bound, tree.body))


def _names_bound(statement: ast.stmt) -> set[str]:
    """The names that a statement of the top level gives a meaning, in an if or a try too."""
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return {statement.name}
    names = {node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    names |= {
        alias.asname or alias.name
        for node in ast.walk(statement)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    return names | {node.name for node in ast.walk(statement) if isinstance(node, ast.FunctionDef)}


def list_configs(wanted: Path | None = None, *, guess: bool = True) -> str:
    """Returns 'Configs here: ...' for configs/ and for the folder of `wanted`, with a `guess` for a misspelt one."""
    folders = [Path("configs"), *([wanted.parent] if wanted else [])]
    there = sorted(str(path) for folder in set(folders) for path in folder.glob("*.py") if _is_config(path))
    if not there:
        return "There is no configs/ in the current folder; run it from the repository's root, or give the whole path."
    return f"Configs here: {', '.join(there)}.{did_you_mean(str(wanted), there) if wanted and guess else ''}"


def _is_config(path: Path) -> bool:
    if path.name.startswith((".", "_")):
        return False
    try:
        return defines_get_config(path)
    except InputError:
        return True  # one that can't be read is one to mend


def check_keys(argv: Sequence[str]) -> None:
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


def raise_from_get_config(error: BaseException) -> None:
    """Raises what get_config raised, which ml_collections and absl have each wrapped, if that is where `error` is from.

    An InputError is a message; so is what a ConfigDict says of a field's name or type. Anything else is a bug in the
    config file, whose own traceback helps most.
    """
    chain = [error]
    while chain[-1].__context__ is not None:
        chain.append(chain[-1].__context__)
    if not any("Error whilst parsing config file" in str(link) for link in chain):
        return
    for origin in reversed(chain):  # the wrappers are of the same type
        if isinstance(origin, InputError):
            raise origin from None
    origin = chain[-1]
    if origin.__traceback__ is not None and origin.__traceback__.tb_next is None:
        # The call itself failed, not the function: a variant for a get_config without one, or the reverse.
        raise InputError(f"the config's variant: {_one_line(origin)}") from None
    _raise_from_a_field(chain)
    raise origin from None


def _raise_from_a_field(chain: Sequence[BaseException]) -> None:
    """Raises InputError where a ConfigDict refused what a config file set, with the file's line."""
    for error in chain:
        frames = traceback.extract_tb(error.__traceback__)
        if not (frames and "ml_collections/config_dict" in Path(frames[-1].filename).as_posix()):
            continue
        if isinstance(error, TypeError | AttributeError | KeyError):
            own = [frame for frame in frames if "/ml_collections/" not in Path(frame.filename).as_posix()]
            raise InputError(f"{own[-1].filename}, line {own[-1].lineno}: {_one_line(error)}") from None


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


def _one_line(message: object) -> str:
    return " ".join(str(message).split())
