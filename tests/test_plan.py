"""`python -m imagen_jax.plan` as a user runs it."""

import re

from imagen_jax.errors import EXIT_BAD_INPUT
from imagen_jax.planning.topology import has_compiler
from tests.mains import run

BASE = ("--config=tests/tiny_config.py:sr1", "--config.data.batch_size=8")


def test_a_plan_has_what_the_compiler_says_or_how_to_get_it():
    text = run("plan", *BASE, "--topology=v5e:2x2", "--strategy=fsdp")
    assert "8 images, 2 a chip" in text
    assert "TFLOP an image" in text
    if has_compiler():
        assert re.search(r"fsdp +[\d.]+ of 15.75 GiB a chip, 8 images a step: fits", text)
        assert "all-gather" in text
    else:
        assert "pip install -e '.[tpu]'" in text


def test_mistakes_are_one_line():
    for flags, message in (
        (["--topology=v4:3x3x3"], 'error: there is no topology "v4:3x3x3"; choose from: v4:2x2x1, v4:2x2x2'),
        (["--topology=v5e:16x16"], "error: config.data.batch_size = 8 can't be divided among 256 devices; use 256"),
        (["--topology=v5e:2x2", "--hbm_gb=20"], "error: --hbm_gb=20: expected up to 15.75"),
        ([], "error: --topology is required"),
    ):
        text = run("plan", *BASE, *flags, expect=EXIT_BAD_INPUT)
        assert text.startswith(message)
        assert len(text.splitlines()) == 1
