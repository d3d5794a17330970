"""A folder of samples holds the pictures of one run."""

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imagen_jax import files
from imagen_jax.errors import InputError, StorageError
from imagen_jax.sampling.samples_folder import SamplesFolder

RECORD: dict[str, Any] = {"seed": 0, "settings": {"8": {"times": (1.0, 0.5)}}}
IMAGES = {8: np.full((2, 8, 8, 3), 7, np.uint8)}


def folder(path: Path, prompts: tuple[str, ...] = ("red", "blue"), **changes: Any) -> SamplesFolder:
    return SamplesFolder(path, RECORD | changes, prompts, [8])


def write(path: Path) -> None:
    samples = folder(path)
    samples.begin()
    samples.write(IMAGES)


def test_the_same_run_may_write_again(tmp_path):
    write(tmp_path / "out")
    first = (tmp_path / "out" / "samples.json").read_bytes()
    (tmp_path / "out" / "001_8.png").unlink()
    write(tmp_path / "out")
    assert (tmp_path / "out" / "samples.json").read_bytes() == first
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "000_8.png", "001_8.png", "grid.png", "samples.json",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1}, "another seed"),
        ({"settings": {}}, "another settings"),
        ({"cascade_sha256": "0"}, "another state of the cascade"),
        ({"prompts": ("red",)}, "another list of prompts or of stages"),
    ],
)
def test_another_run_is_refused_before_anything_is_written(tmp_path, changes, message):
    write(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(InputError, match=f"holds pictures of another run of sample .{message}.; choose another --out"):
        folder(tmp_path, **changes)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_run_that_was_ended_can_be_run_again_and_not_mixed(tmp_path):
    folder(tmp_path).begin()
    (tmp_path / "000_8.png").write_bytes(b"png")
    write(tmp_path)
    assert not (tmp_path / "samples.unfinished.json").exists()
    folder(tmp_path / "b").begin()
    with pytest.raises(InputError, match="another seed"):
        folder(tmp_path / "b", seed=1)


@pytest.mark.parametrize("name", ["000_8.png", "005_64.png", "cat.JPG"])
def test_pictures_without_a_record_are_not_mixed_with(tmp_path, name):
    (tmp_path / name).write_bytes(b"png")
    with pytest.raises(InputError, match=f"holds .*pictures already .1, such as {name}.*choose another --out"):
        folder(tmp_path)


def test_other_files_are_left_alone(tmp_path):
    (tmp_path / "prompts.txt").write_text("red")
    write(tmp_path)
    assert (tmp_path / "prompts.txt").read_text() == "red"


def test_a_file_in_the_folders_place_is_one_error(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(InputError, match="is no folder"):
        folder(tmp_path / "out")


def test_a_full_disk_leaves_no_half_picture_and_the_run_can_be_run_again(tmp_path, monkeypatch):
    samples = folder(tmp_path)
    samples.begin()
    with monkeypatch.context() as patched:

        def full(file: Any) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        patched.setattr(files, "sync", full)
        with pytest.raises(StorageError, match=r"can't write .*000_8.png.: No space left on device"):
            samples.write(IMAGES)
    assert [path.name for path in tmp_path.iterdir()] == ["samples.unfinished.json"]
    write(tmp_path)
