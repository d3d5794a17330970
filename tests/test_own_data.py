"""docs/own_data.md: its commands, run as they stand there, but for ten steps and on pictures that are made here."""

import csv
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from PIL import Image, ImageDraw

from imagen_jax.data.sources import open_source
from tests.mains import REPO, environment

PAGE = (REPO / "docs" / "own_data.md").read_text("utf-8")
# Fenced blocks by language; `text` is what a person types once, to install.
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.M | re.S)
LAPTOP, GPU, POD = [
    [shlex.split(line) for line in block.replace("\\\n", " ").splitlines()] for name, block in BLOCKS if not name
]
(BUILDER,) = [block for name, block in BLOCKS if name == "python"]
PODS_FLAGS = next(
    block for block in re.findall(r"^```\n(.*?)^```$", (REPO / "docs" / "pods.md").read_text("utf-8"), re.M | re.S)
    if block.startswith("--project")
)  # fmt: skip
# Appended to the commands, by main or by variant: ten steps in place of thousands; one level less of each network, as
# compiling is most of the time; and little to sample, always eight at a time, so that what one command compiles the
# next finds in the cache.
TEN_STEPS = ["--config.train.num_steps=10", "--config.data.batch_size=8", "--config.sampling.num_steps=2"]
SHORT = {
    "laptop_base": ["--config.model.channel_mults=(1,2)", "--config.model.attention_levels=(False,True)"],
    "laptop_sr": [
        "--config.model.channel_mults=(1,2)",
        "--config.model.num_blocks=(1,1)",
        "--config.model.attention=('none','joint')",
    ],
    "evaluate": ["--num_samples=8", "--batch_size=8"],
}
COLOURS = {"red": (220, 40, 40), "blue": (40, 80, 220), "green": (40, 170, 70), "white": (245, 245, 245)}
CAPTIONS = [f"a {colour} circle on {ground}" for colour in COLOURS for ground in COLOURS if colour != ground]

# Imports once and forks for each command, which saves seconds of imports apiece. argv: a file of commands, one JSON
# list per line. It stops at the first that fails.
SERVER = """
import json, os, runpy, sys
import flax, grain, orbax.checkpoint, tensorflow_datasets, matplotlib
import imagen_jax.build, imagen_jax.training.loop, imagen_jax.evaluation.metrics, launch.flags

for number, line in enumerate(open(sys.argv[1])):
    pid = os.fork()
    if pid == 0:
        for fd, suffix in ((1, "out"), (2, "err")):
            os.dup2(os.open(f"{number}.{suffix}", os.O_WRONLY | os.O_CREAT), fd)
        module, *arguments = json.loads(line)
        sys.argv = [module, *arguments]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    if code := os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
        sys.exit(f"command {number} exited with {code}: {open(f'{number}.err').read()}")
"""


class Done(NamedTuple):
    """Where the commands ran, and what each printed."""

    folder: Path
    out: list[str]
    err: list[str]


def make_pictures(folder: Path) -> None:
    """Writes twelve pictures of circles, wider than high, with captions beside them."""
    folder.mkdir()
    for index, caption in enumerate(CAPTIONS):
        _, colour, _, _, ground = caption.split()
        picture = Image.new("RGB", (96, 80), COLOURS[ground])
        ImageDraw.Draw(picture).ellipse((28, 20, 68, 60), fill=COLOURS[colour])
        picture.save(folder / f"{index:02d}.jpg")
        (folder / f"{index:02d}.txt").write_text(caption + "\n", encoding="utf-8")


def run_commands(folder: Path, commands: list[list[str]]) -> Done:
    """Runs commands, each `python -m MODULE FLAGS` without its first two words, one after the other."""
    file = folder / "commands"
    file.write_text("".join(json.dumps(command) + "\n" for command in commands), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SERVER, file.name],
        cwd=folder,
        env=environment() | {"PYTHONPATH": str(REPO)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    texts = [[(folder / f"{k}.{name}").read_text("utf-8") for k in range(len(commands))] for name in ("out", "err")]
    return Done(folder, *texts)


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Done:
    """The laptop's commands."""
    folder = tmp_path_factory.mktemp("visitor")
    (folder / "configs").symlink_to(REPO / "configs")
    make_pictures(folder / "pictures")
    commands = []
    for _, _, module, *arguments in LAPTOP:
        variant = arguments[0].partition(":")[2]
        few = TEN_STEPS if module == "imagen_jax.train" else []
        commands.append([module, *arguments, *few, *SHORT.get(variant or module.removeprefix("imagen_jax."), [])])
    return run_commands(folder, commands)


def test_the_page_goes_the_whole_way():
    mains = [command[2].removeprefix("imagen_jax.") for command in LAPTOP]
    assert mains == ["precompute_text", "train", "train", "export", "sample", "evaluate"]
    assert all(command[:2] == ["python", "-m"] for command in [*LAPTOP, *GPU, *POD])
    assert len(PAGE.splitlines()) <= 155


def test_from_pictures_to_a_sampled_cascade_and_a_sweep_by_the_pages_commands(done):
    with Image.open(done.folder / "own" / "samples" / "000_64.png") as picture:
        assert picture.size == (64, 64)
    rows = list(csv.DictReader((done.folder / "own" / "sweep" / "results.csv").read_text("utf-8").splitlines()))
    assert [row["guidance"] for row in rows] == ["1.0 1.0", "2.0 1.0", "4.0 1.0"]
    assert all(0 <= float(row["memorised_share"]) <= 1 and float(row["consistency_64"]) >= 0 for row in rows)


@pytest.mark.parametrize("stage", ["base", "sr"])
def test_the_run_says_with_what_numbers_and_captions_it_ran(done, stage):
    config = json.loads((done.folder / "own" / stage / "config.json").read_text("utf-8"))
    assert (config["train"]["num_steps"], config["optimizer"]["decay_steps"]) == (10, 10)
    assert config["optimizer"]["warmup_steps"] == 5
    assert len(set(config["prompts"])) == 8 and set(config["prompts"]) <= set(CAPTIONS)
    assert (done.folder / "own" / stage / "samples" / "00000010.png").is_file()
    assert "warmup_steps = 50 is more than half of 10 steps; the warm-up takes 5" in done.err[1]


@pytest.mark.parametrize(
    ("argument", "messages"),
    [
        (
            "--config.data.source=",
            ["error: config.data.source is empty; give the data set: --config.data.source=FOLDER"],
        ),
        (
            "--config.prompts=('a red circle on blue','a purple elephant')",
            [
                'error: config.prompts: "a purple elephant" is no caption of pictures',
                "--config.prompts=auto takes some",
            ],
        ),
    ],
)
def test_what_super_resolution_on_own_data_lacks_is_said_with_the_remedy(done, argument, messages):
    (train,) = [command[2:] for command in LAPTOP if "own_data.py:laptop_sr" in command[3]]
    with pytest.raises(AssertionError, match="exited with 2") as error:
        run_commands(done.folder, [[*train[:-1], "--workdir=other", argument]])
    assert all(message in str(error.value) for message in messages)
    assert not (done.folder / "other").exists()


def test_the_commands_for_a_gpu_and_a_pod_are_accepted(done):
    (done.folder / "pod.flags").write_text(PODS_FLAGS)
    commands = [[*command[2:], "--dry_run"] for command in [*GPU, *POD] if "precompute" not in command[2]]
    outs = run_commands(done.folder, commands).out
    assert len(outs) == 3
    for out, command in zip(outs, commands, strict=True):
        assert '"image_size": ' in out or command[0] == "launch.babysit"


def test_the_builder_of_the_page_makes_a_data_set_without_tensorflow(done, tmp_path):
    (tmp_path / "pictures").symlink_to(done.folder / "pictures")
    script = f"import sys\n{BUILDER}\nassert 'tensorflow' not in sys.modules\n"
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        cwd=tmp_path, env=os.environ, capture_output=True, check=True, timeout=120,
    )  # fmt: skip
    source = open_source("tfds/my_pictures:train", data_dir=str(tmp_path / "datasets"))
    assert sorted(source.captions()) == sorted(CAPTIONS)
    assert source[0]["image"].shape == (80, 96, 3)
