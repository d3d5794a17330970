import errno
import os
import stat

import pytest

from imagen_jax import files
from imagen_jax.errors import InputError, StorageError
from imagen_jax.files import (
    parse_json,
    read_bytes,
    read_json,
    split_lines,
    user_path,
    write_bytes,
    write_json,
    write_text,
)


def test_what_is_written_is_read_and_nothing_is_left_beside_it(tmp_path):
    path = tmp_path / "new" / "a.json"
    write_json(path, {"b": 1, "a": "ä"})
    write_json(path, {"b": 2, "a": "ä"})
    assert read_json(path, expected="numbers") == {"a": "ä", "b": 2}
    assert [file.name for file in path.parent.iterdir()] == ["a.json"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "is missing"),
        ('{"a": ', "is damaged"),
        ("[1]", "holds no JSON object"),
        ("[" * 100_000, "is damaged"),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, r"is damaged \(nested too deeply"),
        ("1" * 100_000, "is damaged"),
    ],
)
def test_a_fault_names_the_file_and_what_was_expected(tmp_path, text, message):
    path = tmp_path / "a.json"
    if text is not None:
        write_text(path, text)
    with pytest.raises(InputError, match=rf"a\.json\" {message}.*; expected a run"):
        read_json(path, expected="a run")


def test_what_is_no_file_or_too_large_is_never_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(b"x" * 11)
    for name, message in (
        ("pipe", "no ordinary file"),
        ("", "no ordinary file"),
        ("large", "has 11 bytes, more than the 10"),
    ):
        with pytest.raises(InputError, match=message):
            read_bytes(tmp_path / name, expected="ten bytes", max_bytes=10)
    assert read_bytes(tmp_path / "large", expected="ten bytes", max_bytes=11) == b"x" * 11


def test_bytes_that_are_no_text_are_damaged_json():
    with pytest.raises(InputError, match=r'"x" is damaged .*; expected a key'):
        parse_json(b"\xff\xfe\x00{", where='"x"', expected="a key")


def test_lines_end_where_their_writer_ended_them():
    assert split_lines("a\r\nb\rc\nd\x0ce\u2028f\x85g\x1dh") == ["a", "b", "c", "d\x0ce\u2028f\x85g\x1dh"]


def test_a_path_as_typed(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_path("~/a") == tmp_path / "a"
    assert str(user_path("a/~b")) == "a/~b"
    with pytest.raises(InputError, match="nobody-is-called-so"):
        user_path("~nobody-is-called-so/a")


def test_a_file_is_readable_as_the_umask_says(tmp_path):
    before = os.umask(0o027)
    try:
        write_bytes(tmp_path / "a", b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_contents_reach_the_disk_before_their_name(tmp_path, monkeypatch):
    done = []
    monkeypatch.setattr(files.os, "fsync", lambda descriptor: done.append("sync"))
    replace = os.replace
    monkeypatch.setattr(files.os, "replace", lambda a, b: (done.append("rename"), replace(a, b)))
    write_bytes(tmp_path / "a", b"x")
    assert done == ["sync", "rename", "sync"]


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    write_bytes(tmp_path / "a", b"old")

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(StorageError, match=r'can\'t write ".*a": No space left on device; make space'):
        write_bytes(tmp_path / "a", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["a"] and (tmp_path / "a").read_bytes() == b"old"
