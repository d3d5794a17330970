"""The commands as a user gives them: every one of docs/pods.md, and mistakes."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.launch.test_gcloud import lint
from tests.launch.world import World, needs_gcloud

REPO = Path(__file__).parents[2]
PAGE = (REPO / "docs" / "pods.md").read_text("utf-8")
# Fenced blocks without a language: `text` is what commands print.
FENCES = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
BLOCKS = [block.replace("\\\n", " ") for language, block in FENCES if not language]
LINES = [" ".join(line.split()) for block in BLOCKS for line in block.splitlines()]
OURS = [line for line in LINES if line.startswith("python -m launch.")]
GCLOUD = [line for line in LINES if line.startswith("gcloud ")]
FLAGS = [line for line in LINES if line.startswith("--")]

POD = ("--project=my-project", "--zone=us-central2-b", "--accelerator=v5litepod-16", "--bucket=my-bucket")
CONFIG = ("--config=configs/imagen_base64.py",)
ON_BUCKET = ("--config.data.data_dir=/mnt/my-bucket/datasets", "--config.data.text_store=/mnt/my-bucket/text")
RUN = (*POD, "--name=base", *CONFIG, *ON_BUCKET)

# Each is a mistake: the main, its arguments, and the whole of what its user reads.
MISTAKES = {
    "no name": ("create", POD, "--name is required"),
    "bad name": (
        "create",
        (*POD, "--name=Base"),
        '--name="Base": expected lower-case letters, digits and dashes, a letter first: base64-paper',
    ),
    "unknown flag": (
        "delete",
        (*POD, "--name=base", "--zoen=x"),
        'unknown flag --zoen. Did you mean "--zone"? --help lists the flags',
    ),
    "config key": (
        "babysit",
        (*RUN, "--config.data.bach_size=8"),
        "--config.data.bach_size=8: the config has no config.data.bach_size. Did you mean --config.data.batch_size?",
    ),
    "batch on this pod": (
        "run",
        (*RUN, "--config.data.batch_size=24"),
        "config.data.batch_size = 24 can't be divided among 16 devices; use 16 or 32",
    ),
    "data that the workers don't have": (
        "run",
        (*POD, "--name=base", *CONFIG, ON_BUCKET[0]),
        "the workers find only what is on the bucket, unlike config.data.text_store; copy it to gs://my-bucket and "
        "add, for instance, --config.data.text_store=/mnt/my-bucket/text_store",
    ),
    "folder that the workers don't have": (
        "run",
        (*RUN, "--config.data.source=folder/pictures"),
        'config.data.source="folder/pictures": the workers find only what is on the bucket; copy it to gs://my-bucket '
        "and give --config.data.source=folder//mnt/my-bucket/pictures",
    ),
    "local without a main": (
        "local",
        ("--processes=2",),
        "after a bare -- comes the main and its flags; one of compare, evaluate, export, plan, precompute_text, "
        "sample, train, untrained_encoder",
    ),
    "local with an unknown main": (
        "local",
        ("--", "trian"),
        'unknown main "trian"; choose from: compare, evaluate, export, plan, precompute_text, sample, train, '
        'untrained_encoder. Did you mean "train"?',
    ),
}

# Imports once and forks for each command; see tests/test_cli.py. argv: one file of arguments a command.
SERVER = """
import os, runpy, sys
import launch.flags, launch.processes, launch.steps

for command in sys.argv[1:]:
    pid = os.fork()
    if pid == 0:
        for fd, suffix in ((1, ".out"), (2, ".err")):
            os.dup2(os.open(command + suffix, os.O_WRONLY | os.O_CREAT), fd)
        module, *arguments = open(command).read().split("\\0")[:-1]
        sys.argv = [module, *arguments]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    open(command + ".code", "w").write(str(status))
"""


class Result(NamedTuple):
    """What a command left."""

    code: int
    out: str
    err: str


def dry(line: str) -> list[str]:
    """A command of the page, as module and arguments, with --dry_run."""
    _, _, module, *arguments = shlex.split(line)
    return [module, "--dry_run", *arguments]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("bin"))


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, world: World) -> dict[str, Result]:
    folder = tmp_path_factory.mktemp("commands")
    (folder / "configs").symlink_to(REPO / "configs")
    (folder / "pod.flags").write_text("\n".join(FLAGS))
    commands = {line: dry(line) for line in OURS}
    commands |= {name: [f"launch.{main}", "--dry_run", *arguments] for name, (main, arguments, _) in MISTAKES.items()}
    commands["help"] = ["launch.create", "--help"]
    commands["further"] = ["launch.run", "--dry_run", *RUN, "--restart", "--", "--verbosity=1", "--x", "two words"]
    files = {}
    for number, (name, arguments) in enumerate(commands.items()):
        files[name] = folder / f"command_{number}"
        files[name].write_text("".join(f"{argument}\0" for argument in arguments))
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SERVER, *map(str, files.values())],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(REPO), "PATH": f"{world.folder}:{os.environ['PATH']}"},
        check=True,
        timeout=120,
    )
    return {
        name: Result(int(Path(f"{path}.code").read_text()), *(Path(f"{path}.{s}").read_text() for s in ("out", "err")))
        for name, path in files.items()
    }


def test_the_page_shows_every_main():
    mains = {path.stem for path in (REPO / "launch").glob("*.py") if "__main__" in path.read_text("utf-8")}
    assert mains == {"babysit", "create", "delete", "local", "logs", "run", "setup"}
    assert {line.split()[2].removeprefix("launch.") for line in OURS} == mains


@pytest.mark.parametrize("line", OURS)
def test_every_command_of_the_page_is_printed_by_a_dry_run(results: dict[str, Result], line: str):
    code, out, err = results[line]
    assert (code, err) == (0, "")
    for command in out.splitlines():
        assert shlex.split(command)[0] in ("gcloud", "env")
    assert out


def test_a_dry_run_runs_nothing(results: dict[str, Result], world: World):
    assert results
    assert world.calls() == []


def test_a_dry_run_of_babysit_is_the_whole_story(results: dict[str, Result]):
    (line,) = [line for line in OURS if "launch.babysit" in line]
    out = results[line].out
    words = ["buckets create", "resources create", "status.sh", "scp", "setup.sh", "stop.sh", "start.sh", "delete"]
    assert [word for word in words if word in out] == words
    bucket = "/mnt/my-imagen-bucket"
    start = next(line for line in out.splitlines() if "start.sh" in line)
    assert f"start.sh base64 {bucket}/runs/base64 0 imagen_jax.train --config=configs/imagen_base64.py:modern " in start
    assert f" --config.data.source=tfds/coco_captions:train --config.data.data_dir={bucket}/datasets " in start
    assert f" --workdir={bucket}/runs/base64'" in start


@needs_gcloud
def test_gcloud_itself_takes_every_command_of_the_page(results: dict[str, Result], tmp_path: Path):
    printed = [line for command in OURS for line in results[command].out.splitlines() if line.startswith("gcloud ")]
    assert lint(sorted({*GCLOUD, *printed}), tmp_path) == []


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_clear_message_and_exit_code_2(results: dict[str, Result], name: str):
    assert results[name] == Result(2, "", f"error: {MISTAKES[name][2]}\n")


def test_what_follows_the_dashes_goes_to_train_as_it_is(results: dict[str, Result]):
    code, out, _ = results["further"]
    stop, start = [shlex.split(line)[-1] for line in out.splitlines()]
    assert code == 0
    assert stop == "--command=bash imagen_launch/stop.sh base"
    assert start.endswith(" --workdir=/mnt/my-bucket/runs/base --verbosity=1 --x 'two words'")


def test_help_lists_the_flags_that_mains_share(results: dict[str, Result]):
    out = results["help"].out
    assert out.startswith("Creates the bucket")
    assert all(f"  --{flag}=TEXT  (required)\n" in out for flag in ("name", "project", "zone", "accelerator", "bucket"))
    assert all(f"  --[no]{flag}\n" in out for flag in ("spot", "reserved", "dry_run", "bucket_only"))
    assert max(map(len, out.splitlines())) <= 80
