import os

import pytest

from imagen_jax.errors import InputError
from imagen_jax.sampling.prompts import read_prompts_file


def test_a_prompt_ends_where_its_line_does(tmp_path, monkeypatch):
    text = "a red apple\x0cin a bowl\r\n\n  a pear\u2028half eaten \rthird\x85\x1cstill third\n"
    (tmp_path / "prompts.txt").write_bytes(b"\xef\xbb\xbf" + text.encode())
    prompts = ["a red apple\x0cin a bowl", "a pear\u2028half eaten", "third\x85\x1cstill third"]
    assert read_prompts_file(tmp_path / "prompts.txt") == prompts
    monkeypatch.setenv("HOME", str(tmp_path))
    assert read_prompts_file("~/prompts.txt") == prompts


def test_what_is_no_file_of_prompts_is_one_error(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "latin").write_bytes("café".encode("latin-1"))
    for name, message in [
        ("absent", "no file"),
        ("pipe", "no ordinary file"),
        ("folder", "no ordinary file"),
        ("latin", "is not UTF-8"),
    ]:
        with pytest.raises(InputError, match=message):
            read_prompts_file(tmp_path / name)
