"""The command line as a user meets it: exit codes, stdout and stderr of a real main in its own process."""

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

import imagen_jax
from imagen_jax.errors import EXIT_BAD_INPUT

MAIN = '''"""Prints a config.

Usage: main.py --config=FILE --workdir=DIR
"""
from absl import flags, logging
from ml_collections import config_flags
from imagen_jax import cli
from imagen_jax.errors import InputError
from imagen_jax.shared_flags import define_path

CONFIG = config_flags.DEFINE_config_file("config", None, "the run")
WORKDIR = flags.DEFINE_string("workdir", None, "folder of the run")
STEPS = flags.DEFINE_integer("steps", 4, "Number of steps.", lower_bound=1, upper_bound=99)
RATE = flags.DEFINE_float("rate", 1.0, "A rate.", lower_bound=0)
OUT = define_path("out", None, "Folder to write.")
MODE = flags.DEFINE_enum("mode", "fast", ["fast", "exact"], "how")
DRY_RUN = flags.DEFINE_bool("dry_run", False, "stop early")
flags.mark_flags_as_required(["config", "workdir"])


def main():
    logging.info("a library's progress")
    logging.warning("a library's warning")
    match WORKDIR.value:
        case "input":
            raise InputError("no such workdir")
        case "bug":
            raise RuntimeError("boom")
        case "interrupt":
            raise KeyboardInterrupt
        case "preempted":
            return 42
    print(CONFIG.value.to_json(sort_keys=True), STEPS.value)


if __name__ == "__main__":
    cli.run(main)
'''

CONFIG = """
from ml_collections import ConfigDict
from imagen_jax.config import choose_variant

def get_config(arg="demo"):
    lr = choose_variant(arg, {"demo": 0.1, "full": 0.2, "broken": "x"})
    if lr == "x":
        raise TypeError("a bug of the config file")
    return ConfigDict({"lr": lr, "data": {"batch_size": 8}, "model": {"mults": (1, 2), "remat": False}})
"""

TYPED = """
from ml_collections import ConfigDict
def get_config():
    config = ConfigDict({"a": {"b": 2}})
    config.a.b = 2.5
    return config
"""

# Imports once and forks for each command, which saves a second of imports apiece. argv: main.py, then one file of
# arguments a command; beside that file go .out, .err and .code.
SERVER = """
import os, runpy, sys
import jax, ml_collections.config_flags, imagen_jax.cli, imagen_jax.config

main, *commands = sys.argv[1:]
for command in commands:
    pid = os.fork()
    if pid == 0:
        for fd, suffix in ((1, ".out"), (2, ".err")):
            os.dup2(os.open(command + suffix, os.O_WRONLY | os.O_CREAT), fd)
        jax.config.update("jax_enable_x64", "64_bits" in command)
        sys.argv = [main, *open(command).read().split("\\0")[:-1]]
        runpy.run_path(main, run_name="__main__")
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    open(command + ".code", "w").write(str(status))
"""


class Result(NamedTuple):
    """What a command left."""

    code: int
    out: str
    err: str


BASE = ("--config=configs/tiny.py", "--workdir=w")

# Each is a mistake: arguments, and the whole of what its user reads.
MISTAKES = {
    "unknown flag": ((*BASE, "--stpes=3"), 'unknown flag --stpes. Did you mean "--steps"? --help lists the flags'),
    "another program's flag": (
        (*BASE, "--num_inference_steps=3"),
        "unknown flag --num_inference_steps. Here it is called --steps. --help lists the flags",
    ),
    "another program's flag that is a field here": (
        (*BASE, "--lr=3"),
        "unknown flag --lr. Here it is called --config.optimizer.learning_rate. --help lists the flags",
    ),
    "flag like no other": ((*BASE, "--zzz=3"), "unknown flag --zzz. --help lists the flags"),
    "negated flag that is no boolean": (
        (*BASE, "--nosteps"),
        'unknown flag --nosteps. Did you mean "--steps"? --help lists the flags',
    ),
    "flag of a wrong type": ((*BASE, "--steps=many"), "--steps=many: expected a whole number from 1 to 99"),
    "flag out of its bounds": ((*BASE, "--steps=-1"), "--steps=-1: expected a whole number from 1 to 99"),
    "fraction for a whole number": ((*BASE, "--steps=4.5"), "--steps=4.5: expected a whole number from 1 to 99"),
    "power of ten": ((*BASE, "--steps=1e1"), "--steps=1e1: expected a whole number from 1 to 99; write 10"),
    "empty number": ((*BASE, "--steps="), "--steps=: expected a whole number from 1 to 99"),
    "no number": ((*BASE, "--rate=nan"), "--rate=nan: expected a number of at least 0"),
    "infinite number": ((*BASE, "--rate=inf"), "--rate=inf: expected a number of at least 0"),
    "empty path": ((*BASE, "--out="), "--out=: expected a path; leave the flag out for none"),
    "empty required text": ((BASE[0], "--workdir="), "--workdir= is empty, and required"),
    "boolean with its value apart": (
        (*BASE, "--dry_run", "false"),
        '"--dry_run false": a flag that is true or false takes its value after "=": --dry_run=false',
    ),
    "two configs": ((*BASE, BASE[0]), "--config is given 2 times; a run has one config"),
    "file without get_config": (
        ("--config=configs/recipes.py", BASE[1]),
        '--config: "configs/recipes.py" has no function get_config, so it is no config. '
        "Configs here: configs/other.py, configs/tiny.py.",
    ),
    "file that is no Python": (
        ("--config=syntax.py", BASE[1]),
        "--config: syntax.py, line 1: invalid syntax: def get_config(:",
    ),
    "field of a wrong type in the file": (
        ("--config=typed.py", BASE[1]),
        "typed.py, line 5: Could not override field 'b' (reference). 2.5 is of original type <class 'float'> and "
        "cannot be casted to type <class 'int'>",
    ),
    "field before its config": (
        ("--config.lr=3", *BASE),
        "--config.lr=3 stands before --config; give --config=FILE first, then what changes it",
    ),
    "group in the place of a field": (
        (*BASE, "--config.data=3"),
        "--config.data=3: --config.data is a group of fields; set one of them, --config.data.FIELD=VALUE",
    ),
    "empty config": (
        ("--config=", BASE[1]),
        "--config=: expected a file. Configs here: configs/other.py, configs/tiny.py.",
    ),
    "64 bits": (BASE, "JAX_ENABLE_X64=True computes in 64 bits and draws other noise; unset it, or set it to False"),
    "flag out of its choices": (
        (*BASE, "--mode=exakt"),
        '--mode=exakt: expected one of fast, exact. Did you mean "exact"?',
    ),
    "boolean flag of a wrong value": ((*BASE, "--dry_run=maybe"), "--dry_run=maybe: expected true or false"),
    "flag without its value": (
        (*BASE, "--steps"),
        "--steps lacks its value, a whole number from 1 to 99: --steps=VALUE",
    ),
    "required flag left out": (BASE[:1], "--workdir is required"),
    "config left out": (BASE[1:], "--config is required. Configs here: configs/other.py, configs/tiny.py."),
    "config key without dashes": ((*BASE, "config.lr=3"), '"config.lr=3" has no dashes; did you mean --config.lr=3?'),
    "required flag without dashes": (
        (BASE[0], "workdir=w"),
        '"workdir=w" has no dashes; did you mean --workdir=w?',
    ),
    "positional argument": (
        (*BASE, "apple"),
        'unexpected argument "apple" after --workdir=w: a value with spaces needs quotes, and a list has none after '
        "its commas",
    ),
    "misspelt config key without its group": (
        (*BASE, "--config.bach_size=8"),
        "--config.bach_size=8: the config has no config.bach_size. Did you mean --config.data.batch_size?",
    ),
    "misspelt config key": (
        (*BASE, "--config.data.bach_size=8"),
        "--config.data.bach_size=8: the config has no config.data.bach_size. Did you mean --config.data.batch_size?",
    ),
    "config key like no other": (
        (*BASE, "--config.data.zzz=8"),
        "--config.data.zzz=8: the config has no config.data.zzz. config.data has: batch_size",
    ),
    "entry of a tuple": (
        (*BASE, "--config.model.mults[0]=3"),
        "--config.model.mults[0]=3: one entry can't be set; give the whole value, such as --config.key=1,2,3",
    ),
    "config value of a wrong type": (
        (*BASE, "--config.data.batch_size=big"),
        "--config.data.batch_size=big: expected a whole number",
    ),
    "config key without a config": (
        (BASE[1], "--config.lr=3"),
        "--config.lr=3 changes a config, but none is given; add --config=FILE. "
        "Configs here: configs/other.py, configs/tiny.py.",
    ),
    "missing config file": (
        ("--config=configs/tinny.py", BASE[1]),
        '--config: no file "configs/tinny.py". Configs here: configs/other.py, configs/tiny.py. '
        'Did you mean "configs/tiny.py"?',
    ),
    "unknown variant": (
        ("--config=configs/tiny.py:ful", BASE[1]),
        'no variant "ful" of this config; choose from: :demo, :full, :broken. Did you mean "full"?',
    ),
    "variant of a config without any": (
        ("--config=configs/other.py:demo", BASE[1]),
        "the config's variant: get_config() takes 0 positional arguments but 1 was given",
    ),
    "input error of main": ((BASE[0], "--workdir=input"), "no such workdir"),
}

OTHERS = {
    "plain": BASE,
    "overrides": (
        "--config=configs/tiny.py:full",
        "--config.data.batch_size",
        "3",
        "--config.model.mults=1,2,4",
        "--config.model.remat",
        BASE[1],
    ),
    "help": ("--help",),
    "bug": (BASE[0], "--workdir=bug"),
    "interrupt": (BASE[0], "--workdir=interrupt"),
    "preempted": (BASE[0], "--workdir=preempted"),
    "bug in the config": ("--config=configs/tiny.py:broken", BASE[1]),
    "repeated flag": (*BASE, "--steps=3", "--steps=5"),
    "version": ("--version",),
    "neighbour": ("--config={elsewhere}/configs/imports.py", BASE[1]),
    "home": ("--config=~/configs/tiny.py:full", BASE[1]),
    "verbose": (*BASE, "--verbosity=0"),
}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    folder = tmp_path_factory.mktemp("cli")
    (folder / "main.py").write_text(MAIN)
    (folder / "configs").mkdir()
    (folder / "configs" / "tiny.py").write_text(CONFIG)
    (folder / "configs" / "other.py").write_text("def get_config():\n    return {}\n")
    (folder / "syntax.py").write_text("def get_config(:\n")
    (folder / "typed.py").write_text(TYPED)
    (folder / "configs" / "recipes.py").write_text("def paper(config):\n    return config\n")
    (folder / "configs" / ".hidden.py").write_text(CONFIG)
    # Of the same name as the folder from which the commands are run, and with a module of the same name in it.
    elsewhere = folder / "elsewhere"
    (elsewhere / "configs").mkdir(parents=True)
    (elsewhere / "configs" / "recipes.py").write_text("NAME = 'the neighbour'\n")
    (elsewhere / "configs" / "imports.py").write_text(
        "from configs import recipes\nfrom ml_collections import ConfigDict\n"
        "def get_config():\n    return ConfigDict({'name': recipes.NAME})\n"
    )
    commands = {name: folder / name.replace(" ", "_") for name in (*MISTAKES, *OTHERS)}
    for name, path in commands.items():
        arguments = MISTAKES[name][0] if name in MISTAKES else OTHERS[name]
        path.write_text("".join(f"{argument}\0" for argument in arguments).replace("{elsewhere}", str(elsewhere)))
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SERVER, "main.py", *map(str, commands.values())],
        cwd=folder,
        env=os.environ | {"HOME": str(folder), "PYTHONPATH": str(Path(__file__).parents[1])},
        check=True,
        timeout=120,
    )
    return {
        name: Result(int(Path(f"{path}.code").read_text()), *(Path(f"{path}.{s}").read_text() for s in ("out", "err")))
        for name, path in commands.items()
    }


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_clear_message_and_exit_code_2(results: dict[str, Result], name: str):
    warning = "warning: a library's warning\n" if name == "input error of main" else ""
    assert results[name] == Result(EXIT_BAD_INPUT, "", f"{warning}error: {MISTAKES[name][1]}\n")


def test_main_runs_with_its_config_and_libraries_only_warn(results: dict[str, Result]):
    config = '{"data": {"batch_size": 8}, "lr": 0.1, "model": {"mults": [1, 2], "remat": false}}'
    assert results["plain"] == Result(0, f"{config} 4\n", "warning: a library's warning\n")


def test_verbosity_shows_what_libraries_say(results: dict[str, Result]):
    assert "a library's progress" in results["verbose"].err


def test_overrides_reach_the_config(results: dict[str, Result]):
    config = '{"data": {"batch_size": 3}, "lr": 0.2, "model": {"mults": [1, 2, 4], "remat": true}}'
    assert results["overrides"].out == f"{config} 4\n"


def test_help_is_the_docstring_and_the_main_s_own_flags(results: dict[str, Result]):
    code, out, err = results["help"]
    assert (code, err) == (0, "")
    assert out.startswith("Prints a config.")
    assert "  --steps=INTEGER\n      Number of steps. Default: 4.\n" in out
    assert "  --workdir=TEXT  (required)\n" in out and "  --config=FILE[:VARIANT]  (required)\n" in out
    assert "Files and folders:\n  --out=PATH\n" in out and "  --[no]dry_run\n" in out
    assert "verbosity" not in out
    assert max(map(len, out.splitlines())) <= 80


def test_a_repeated_flag_is_said(results: dict[str, Result]):
    assert results["repeated flag"].err.startswith("warning: --steps is given 2 times; the last one counts: 5\n")
    assert results["repeated flag"].out.endswith(" 5\n")


def test_the_version_is_the_package_s(results: dict[str, Result]):
    assert results["version"] == Result(0, f"imagen_jax {imagen_jax.__version__}\n", "")


def test_a_config_of_another_folder_finds_its_own_neighbours(results: dict[str, Result]):
    assert results["neighbour"].out == '{"name": "the neighbour"} 4\n', results["neighbour"].err


def test_a_config_in_the_home_folder_is_found(results: dict[str, Result]):
    assert '"lr": 0.2' in results["home"].out, results["home"].err


def test_a_bug_keeps_its_traceback(results: dict[str, Result]):
    assert results["bug"].code == 1
    assert "Traceback" in results["bug"].err
    assert results["bug"].err.endswith("RuntimeError: boom\n")


@pytest.mark.parametrize(
    ("name", "last_line", "place"),
    [
        ("bug in the config", "TypeError: a bug of the config file", 'tiny.py", line 8, in get_config'),
    ],
)
def test_a_bug_in_a_config_shows_its_place(results: dict[str, Result], name: str, last_line: str, place: str):
    code, _, err = results[name]
    assert code == 1
    assert place in err
    assert err.endswith(f"{last_line}\n")


def test_an_interrupt_is_silent(results: dict[str, Result]):
    assert results["interrupt"] == Result(130, "", "warning: a library's warning\n")


def test_main_s_return_value_is_the_exit_code(results: dict[str, Result]):
    assert results["preempted"].code == 42
