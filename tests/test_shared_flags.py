"""Kinds of values that flags have, and their messages."""

from pathlib import Path

import pytest

from imagen_jax.shared_flags import PathParser


def test_a_path_is_expanded_and_never_empty():
    assert PathParser().parse("~/x") == Path.home() / "x"
    for text in ("", " "):
        with pytest.raises(ValueError, match="expected a path"):
            PathParser().parse(text)
