"""The command `imagen_jax`, which runs one of the mains: `imagen_jax train --config=FILE` trains, and so on.

usage: imagen_jax MAIN --flag=value ...
       imagen_jax MAIN --help
       imagen_jax --version
"""

import ast
import os
import runpy
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import imagen_jax
from imagen_jax.errors import EXIT_BAD_INPUT, InputError
from imagen_jax.registry import lookup

_MAIN_ENDS_WITH = "cli.run(main)\n"


def find_mains() -> Mapping[str, str]:
    """Returns the name of each main, in order, with the first line of its docstring; imports none of them."""
    sources = {path.stem: path.read_text("utf-8") for path in sorted(Path(__file__).parent.glob("*.py"))}
    mains = {name: source for name, source in sources.items() if source.endswith(_MAIN_ENDS_WITH)}
    return {name: (ast.get_docstring(ast.parse(source)) or "").split("\n")[0] for name, source in mains.items()}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the main that the first argument names, in this process, and returns or exits with its exit code.

    Args:
      argv: what follows the command's name; None: the process's own.
    """
    name, *rest = (sys.argv[1:] if argv is None else argv) or [""]
    if name == "--version":
        print(f"imagen_jax {imagen_jax.__version__}")
        return 0
    if name in ("", "--help", "-h", "help"):
        print(_usage(), file=sys.stdout if name else sys.stderr)
        return 0 if name else EXIT_BAD_INPUT
    try:
        lookup(find_mains(), name, what="command")
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    # As `python -m` has it, for a config that imports what lies beside it; at the end, so that it can hide no library.
    sys.path.append(os.getcwd())
    sys.argv = [f"imagen_jax {name}", *rest]
    runpy.run_module(f"imagen_jax.{name}", run_name="__main__", alter_sys=True)
    return 0


def _usage() -> str:
    mains = find_mains()
    width = max(map(len, mains))
    rows = [f"  {name:{width}}  {line}" for name, line in mains.items()]
    return f"{(__doc__ or '').strip()}\n\nMAIN is one of:\n" + "\n".join(rows)


if __name__ == "__main__":
    sys.exit(main())
