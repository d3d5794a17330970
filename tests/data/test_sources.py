"""Which data set a text names, and the index that is kept of one."""

import errno
import logging
import os
import stat
from pathlib import Path

import pytest
from PIL import Image

from imagen_jax import files
from imagen_jax.data.sources import named_folder, open_source
from imagen_jax.data.sources.base import load_index, save_index
from imagen_jax.errors import InputError
from imagen_jax.evaluation.data_images import open_images


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The home and the current folder, with captioned pictures in "pictures"."""
    (tmp_path / "pictures").mkdir()
    for name in ("a", "b"):
        Image.new("RGB", (8, 8), "red").save(tmp_path / "pictures" / f"{name}.png")
        (tmp_path / "pictures" / f"{name}.txt").write_text(f"picture {name}")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "spec", ["pictures", "./pictures", "~/pictures", "{home}/pictures", "folder/pictures", "folder/~/pictures"]
)
def test_a_folder_is_a_data_set_however_its_path_is_typed(home, spec):
    source = open_source(spec.format(home=home), data_dir="~/datasets")
    assert source.captions() == ["picture a", "picture b"]
    assert source.fingerprint == open_source("folder/pictures", data_dir="datasets").fingerprint
    assert (home / "datasets" / "index").is_dir() and not (home / "~").exists()
    assert len(open_images(spec.format(home=home), data_dir="datasets")) == 2


def test_a_kind_wins_over_a_folder_of_its_name(home, caplog):
    (home / "tfds").mkdir()
    (home / "pictures").rename(home / "emoji")
    with pytest.raises(InputError, match="names no data set"), caplog.at_level(logging.WARNING):
        open_source("tfds", data_dir="datasets")
    assert 'for that write "./tfds"' in caplog.text
    assert named_folder("emoji") is None
    assert len(open_source("./emoji", data_dir="datasets")) == 2


@pytest.mark.parametrize("spec", ["", "pitcures", "./emoji", "~/none", "/none", "x" * 5000, "a\0b"])
@pytest.mark.parametrize("open_it", [open_source, open_images])
def test_what_is_neither_a_folder_nor_a_data_set_says_what_there_is(home, spec, open_it):
    with pytest.raises(InputError, match=r"neither a folder that is there nor a data set \(emoji, folder, tfds\)"):
        open_it(spec, data_dir="datasets")


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC, errno.EACCES])
def test_an_index_that_cannot_be_written_is_one_line_and_the_data_is_read(home, monkeypatch, caplog, number):
    def fail(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files.os, "replace", fail)
    with caplog.at_level(logging.WARNING):
        assert len(open_source("pictures", data_dir="datasets")) == 2
    (line,) = [record.getMessage() for record in caplog.records if "index" in record.getMessage()]
    assert os.strerror(number) in line and "read again at the next start" in line and "\n" not in line
    assert not list((home / "datasets" / "index").iterdir())


def test_an_index_is_readable_as_the_umask_says(tmp_path):
    umask = os.umask(0o022)
    try:
        save_index(tmp_path / "deep" / "index.json", {"signature": "s"})
    finally:
        os.umask(umask)
    assert stat.S_IMODE((tmp_path / "deep" / "index.json").stat().st_mode) == 0o644
    assert load_index(tmp_path / "deep" / "index.json", "s") == {"signature": "s"}


@pytest.mark.parametrize("data", [b"", b"\xff", b"[" * 100_000, b"[]", b"null", b'{"signature": ["s"]}'])
def test_a_strange_index_is_none(tmp_path, data):
    path = tmp_path / "index.json"
    path.write_bytes(data)
    assert load_index(path, "s") is None


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_what_is_no_file_is_no_index(tmp_path, kind):
    path: Path = tmp_path / "index.json"
    path.mkdir() if kind == "folder" else os.mkfifo(path)
    assert load_index(path, "s") is None
