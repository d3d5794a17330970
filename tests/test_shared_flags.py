"""Kinds of values that flags have, and their messages."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from imagen_jax.errors import InputError
from imagen_jax.sampling_flags import SETTINGS
from imagen_jax.shared_flags import PathParser, interval, levels, one_or_list


class Flag:
    """What absl's holder of a list flag has."""

    def __init__(self, name: str, text: str | None):
        self.name, self.value = name, None if text is None else text.split(",") if text else []


def value(name: str, text: str | None) -> Any:
    holder: Any = Flag(name, text)
    return one_or_list(holder, SETTINGS[name][0])


def test_one_value_is_for_all_stages_and_several_are_a_list():
    assert value("steps", None) is None
    assert value("steps", "8") == 8 and value("steps", "8,4") == [8, 4]
    assert value("times", "1:0.5") == (1.0, 0.5) and value("times", "1:0.5,1:0.2") == [(1.0, 0.5), (1.0, 0.2)]
    assert value("times", "1,1") == [(1.0,), (1.0,)]
    assert value("guidance_interval", "0.2:0.8") == (0.2, 0.8)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("times", "1,0.7", "--times=1,0.7: levels are separated by colons, --times=1:0.7; commas separate the stages"),
        (
            "times",
            "0.2:0.7",
            "--times=0.2:0.7: expected levels falling from 1 (noise) towards 0 (clean), separated by col",
        ),
        ("times", "1:nan", "--times=1:nan: expected levels falling"),
        ("times", "1 0.7", "--times=1 0.7: expected levels falling"),
        (
            "guidance_interval",
            "0.8:0.2",
            "--guidance_interval=0.8:0.2: expected FROM:TO, two times with 0 <= FROM < TO",
        ),
        ("guidance_interval", "0.8", "--guidance_interval=0.8: expected FROM:TO"),
        ("steps", "4.5", "--steps=4.5: expected whole numbers separated by commas"),
        ("steps", "1e3", "--steps=1e3: expected whole numbers separated by commas"),
        ("steps", "9" * 5000, "--steps=999"),
        ("guidance", "nan", "--guidance=nan: expected numbers separated by commas"),
        ("guidance", "inf", "--guidance=inf: expected numbers separated by commas"),
        ("guidance", "1,,2", "--guidance=1,,2: expected numbers separated by commas"),
        ("guidance", "", "--guidance= is empty; leave it out for each stage's own"),
    ],
)
def test_a_wrong_value_is_said_in_the_language_of_the_flag(name: str, text: str, message: str):
    with pytest.raises(InputError) as error:
        value(name, text)
    assert str(error.value).startswith(message)
    assert "config." not in str(error.value) and "got (" not in str(error.value)


@pytest.mark.parametrize("parse", [levels, interval])
@pytest.mark.parametrize("text", ["", ":", "a:b", "inf:0", "1:1", "2:1", "0.5:-1"])
def test_what_are_no_times_is_refused(parse: Callable[[str], Any], text: str):
    with pytest.raises(ValueError, match=r"do not fall|no interval|could not convert"):
        parse(text)


def test_a_path_is_expanded_and_never_empty():
    assert PathParser().parse("~/x") == Path.home() / "x"
    for text in ("", " "):
        with pytest.raises(ValueError, match="expected a path"):
            PathParser().parse(text)
