"""Mistakes in the command line of `python -m imagen_jax.evaluate`, many of them tried in one process."""

import json
import subprocess
import sys

import numpy as np
import pytest

from imagen_jax.sampling.images import save_png
from tests.mains import REPO, environment

# Prints what each command line ends with, as cli.run would, but in one process.
TRY = """
import json, sys
from absl import flags
from imagen_jax import cli, evaluate
for argv in json.load(sys.stdin):
    flags.FLAGS.unparse_flags()
    for name in flags.FLAGS:
        flags.FLAGS[name].unparse()
    try:
        cli._parse_flags(["evaluate", *argv])
        evaluate.main()
        print(json.dumps("done"))
    except evaluate.InputError as error:
        print(json.dumps(str(error)))
"""


def ends(command_lines, cwd=REPO, **more):
    """What each ends with: "done", or its message."""
    done = subprocess.run(
        [sys.executable, "-c", TRY],
        cwd=cwd,
        env=environment() | {"PYTHONPATH": str(REPO), **more},
        input=json.dumps(command_lines),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith('"')]


CASES = {
    (): "what to measure? give --cascade=FOLDER or --images=FOLDER",
    ("--images=a", "--cascade=b"): "one of them",
    ("--bootstrap=-5",): "--bootstrap=-5:",
    ("--bootstrap=1",): "--bootstrap=1: expected 10 resamples at least, or 0 for none",
    ("--bootstrap=200000",): "--bootstrap=200000:",
    ("--crop_to=-4",): "--crop_to=-4:",
    ("--crop_to=0",): "--crop_to=0:",
    ("--crop_to=1000000",): "--crop_to=1000000:",
    ("--crop_to=4",): "--crop_to=4 is for a --reference folder, and none is given",
    ("--num_samples=0",): "--num_samples=0:",
    ("--samples_per_prompt=0",): "--samples_per_prompt=0:",
    ("--batch_size=1000000",): "--batch_size=1000000:",
    ("--stop_at=-8",): "--stop_at=-8:",
    ("--seed=4294967296",): "--seed=4294967296:",
    ("--seed=-1",): "--seed=-1:",
    ("--metrics=",): "--metrics= names no metric",
    ("--metrics=corners,corners",): "corners is there 2 times",
    ("--metrics=corner",): 'unknown metric "corner"',
    ("--num_samples=4",): "--num_samples is for --cascade, and --images has nothing to sample",
    ("--batch_size=4",): "--batch_size is for --cascade",
    ("--encoder_dtype=bfloat16",): "--encoder_dtype is for --cascade",
    ("--coco_reading=images",): "--coco_reading is for --cascade",
    ("--guidance=3",): "--guidance is for --cascade",
    ("--reference=x.npz",): 'no file "x.npz"',
    ("--reference=nowhere",): '"nowhere" is neither a folder',
    ("--metrics=corners", "--reference=images"): "--reference=images has no effect",
    ("--metrics=corners", "--resize=clean"): "--resize=clean has no effect",
    ("--metrics=corners", "--clip_formula=cosine"): "--clip_formula=cosine has no effect",
    ("--metrics=corners", "--bootstrap=0"): "--bootstrap=0 has no effect",
    ("--metrics=fid", "--reference=images"): "metric fid needs --inception_weights",
    ("--reference=images",): "no metric that can be computed uses it; fid and kid need --inception_weights",
    ("--out=~/images", "--metrics=corners"): "which is something else than results; choose another --out",
    ("--metrics= corners ", "--out=~/out"): "done",
}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Every case's end, in a folder with two images of noise."""
    home = tmp_path_factory.mktemp("home")
    for number in range(2):
        image = np.random.default_rng(number).integers(0, 256, (8, 8, 3)).astype(np.uint8)
        save_png(image, home / "images" / f"{number}.png")
    given = []
    for case in CASES:
        images = [] if not case or "--images=a" in case else ["--images=~/images"]
        given.append([*images, "--out=~/other", *case])
    return dict(zip(CASES, ends(given, home, HOME=str(home)), strict=True)), home


@pytest.mark.parametrize("case", CASES, ids=" ".join)
def test_a_command_line_ends_in_one_line(found, case):
    end = found[0][case]
    assert CASES[case] in end
    assert "\n" not in end and len(end) < 500


def test_what_is_right_is_measured_and_nothing_else_is_written(found):
    _, home = found
    assert json.loads((home / "out" / "results.json").read_text())["num_samples"] == 2
    assert sorted(path.name for path in home.iterdir()) == ["images", "out"]
