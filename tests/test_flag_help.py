"""--help of every main, and how text and flags are laid out."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from absl import flags

from imagen_jax import flag_help
from imagen_jax.__main__ import find_mains
from imagen_jax.foreign_flags import translate
from imagen_jax.shared_flags import define_path, group, group_of

REPO = Path(__file__).parents[1]
LAUNCH = sorted(path.stem for path in (REPO / "launch").glob("*.py") if "cli.run(main" in path.read_text("utf-8"))
MAINS = [*(f"imagen_jax.{name}" for name in find_mains()), *(f"launch.{name}" for name in LAUNCH)]

# Imports each main and prints its help as a list of [whole text, [flag's name, flag's help]]. The mains define flags of
# the same names, so each one's are forgotten before the next.
ALL = """
import importlib, json, sys
from absl import flags
from imagen_jax import flag_help

for name in sys.argv[1:]:
    before = set(flags.FLAGS)
    module = importlib.import_module(name)
    own = flag_help.own_flags(name)
    texts = {width: flag_help.text(module.__doc__, own, width=width) for width in (80, 120)}
    print(json.dumps([texts, [[flag.name, flag_help._sentence(flag)] for flag in own]]))
    for flag in set(flags.FLAGS) - before:
        delattr(flags.FLAGS, flag)
"""


@pytest.fixture(scope="module")
def helps() -> dict[str, list]:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ALL, *MAINS],
        cwd=REPO,
        env=os.environ | {"PYTHONPATH": str(REPO)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return dict(zip(MAINS, map(json.loads, done.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("main", MAINS)
def test_no_line_is_wider_than_the_terminal(helps: dict[str, list], main: str):
    for width, text in helps[main][0].items():
        assert max(map(len, text.splitlines())) <= int(width), text


@pytest.mark.parametrize("main", MAINS)
def test_every_flag_is_there_with_a_sentence(helps: dict[str, list], main: str):
    texts, own = helps[main]
    assert own
    for name, help in own:
        assert f"--{name}" in texts["80"] or f"--[no]{name}" in texts["80"]
        assert help and help[0].strip() and help.rstrip()[-1] in ".?)", (name, help)


def test_required_flags_come_first_and_are_marked(helps: dict[str, list]):
    text = helps["imagen_jax.sample"][0]["80"]
    assert text.index("Required:\n  --cascade=") < text.index("--out=PATH  (required)") < text.index("Further options:")
    assert "Text encoder:\n" in text and "Devices:\n" in text and "Sampling settings:\n" in text


FLAGS = flags.FlagValues()


def define(kind, name, default, *arguments):
    kind(name, default, *arguments, flag_values=FLAGS)
    return FLAGS[name]


def test_a_command_is_broken_as_a_shell_takes_it_and_prose_is_filled():
    doc = (
        "Does "
        + "much " * 30
        + "\n\npython -m imagen_jax.x "
        + "--flag=value " * 8
        + '--text="two words" --text="two words" '
        + "\n    [--other]\n\nEnd."
    )
    text = flag_help.text(doc, [], width=60)
    assert max(map(len, text.splitlines())) <= 60
    command = text[text.index("python -m") : text.index("\n\nEnd.")]
    assert " ".join(command.replace("\\\n", " ").split()).endswith('--text="two words" [--other]')
    assert all(line.endswith(" \\") for line in command.splitlines()[:-1])
    assert command.count('"two words"') == 2


def test_a_flag_has_its_kind_default_and_sentence():
    text = flag_help.text(
        "Doc.",
        [
            define(flags.DEFINE_integer, "count", 3, "How  many."),
            define(flags.DEFINE_enum, "mode", "a", ["a", "b"], "Which."),
            define(flags.DEFINE_bool, "quick", False, "Whether."),
            define(flags.DEFINE_list, "sizes", ["1", "2"], "Sizes."),
        ],
        width=80,
    )
    assert "  --count=INTEGER\n      How many. Default: 3.\n" in text
    assert "  --mode=a|b\n" in text and "  --[no]quick\n      Whether.\n" in text
    assert "  --sizes=VALUE,...\n      Sizes. Default: 1,2." in text


def test_a_group_is_the_heading_of_the_flags_that_are_defined_in_it():
    with group("What is read"):
        define_path("help_test_input", None, "A file.")
    try:
        assert group_of("help_test_input") == "What is read" and group_of("alsologtostderr") is None
    finally:
        delattr(flags.FLAGS, "help_test_input")


@pytest.mark.parametrize(
    ("name", "known", "advice"),
    [
        ("guidance_scale", {"guidance", "guidance_rescale"}, "Here it is called --guidance. "),
        ("num-inference-steps", {"steps"}, "Here it is called --steps. "),
        ("num_images", {"times", "prompt"}, "Each --prompt makes one image; repeat it for more. "),
        ("num_images", {"times", "num_samples"}, "Here it is called --num_samples. "),
        ("batch", {"config"}, "Here it is called --config.data.batch_size. "),
        ("batch-size", {"batch_size"}, 'Did you mean "--batch_size"? '),
        ("output_dir", {"workdir"}, "Here it is called --workdir. "),
        ("height", {"steps"}, "A cascade's images have the sizes that it was trained for. "),
        ("epochs", {"steps"}, ""),
        ("zzz", {"steps"}, ""),
    ],
)
def test_a_flag_of_another_program_is_translated(name: str, known: set[str], advice: str):
    assert translate(name, known) == advice
