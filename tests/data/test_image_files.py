"""Which pictures below a folder are found, and what is counted instead."""

import os
import socket

import pytest

from imagen_jax.data.image_files import LeftOut, describe_left_out, list_pictures


def add(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return path


def names(root):
    return [path.relative_to(root).as_posix() for path in list_pictures(root).pictures]


def test_pictures_come_sorted_by_their_parts_as_paths_are(tmp_path):
    for name in ("b.png", "a.PNG", "c/a.png", "a0.png", "c.png", "c-d/e.jpg", "c/b/x.webp", "c/note.md"):
        add(tmp_path / name)
    expected = sorted(path for path in tmp_path.rglob("*") if path.suffix.lower() in (".png", ".jpg", ".webp"))
    assert list_pictures(tmp_path).pictures == expected and len(expected) == 7


def test_linked_folders_are_followed_once_and_loops_are_not(tmp_path):
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    add(root / "z" / "a.png")
    add(elsewhere / "deep" / "b.png")
    add(tmp_path / "beside.png")
    (root / "link").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(elsewhere)
    (elsewhere / "deep" / "home").symlink_to(root)
    (root / "again").symlink_to(root / "z")
    (root / "up").symlink_to("..")
    (root / "z" / "self").symlink_to(".")
    assert names(root) == ["link/deep/b.png", "z/a.png"]
    files = [item.file for item in list_pictures(root).left_out]
    assert files == ["again", "link/back", "link/deep/home", "up", "z/self"]


def test_a_link_never_takes_the_place_of_a_folder_that_is_there_itself(tmp_path):
    add(tmp_path / "z" / "y" / "a.png")
    (tmp_path / "a").symlink_to(tmp_path / "z" / "y")
    assert names(tmp_path) == ["z/y/a.png"]


def test_two_links_to_overlapping_folders_read_none_twice(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    add(tmp_path / "other" / "inner" / "a.png")
    (root / "a").symlink_to(tmp_path / "other" / "inner")
    (root / "b").symlink_to(tmp_path / "other")
    assert names(root) == ["a/a.png"]
    assert [item.file for item in list_pictures(root).left_out] == ["b/inner"]


def test_hidden_files_are_counted_and_a_hidden_root_is_not(tmp_path):
    root = tmp_path / ".hidden"
    for name in (".a/b.png", ".a/deep/c.heic", ".a/config", "._d.png", "e.png"):
        add(root / name)
    assert names(root) == ["e.png"]
    left_out = list_pictures(root).left_out
    assert [item.file for item in left_out] == ["._d.png", ".a/b.png", ".a/deep/c.heic"]
    assert describe_left_out(left_out) == '3 hidden files ("._d.png")'


def test_pipes_and_sockets_are_left_out_and_links_to_nothing_are_missing_pictures(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "device.png").symlink_to("/dev/zero")
    (tmp_path / "gone.png").symlink_to("nowhere")
    monkeypatch.chdir(tmp_path)  # A socket's path is short.
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.png")
        listing = list_pictures(tmp_path)
    assert [path.name for path in listing.pictures] == ["gone.png"]
    assert describe_left_out(listing.left_out) == '3 pipes, sockets or devices ("device.png")'


@pytest.mark.parametrize("name", ["c.heic", "c.SVG", "c.psd", "c.jp2", "c.raw", "c.ico", "c.eps"])
def test_formats_that_are_not_read_are_counted(tmp_path, name):
    add(tmp_path / name)
    assert names(tmp_path) == []
    assert describe_left_out(list_pictures(tmp_path).left_out) == f'1 format that is not read ("{name}")'


def test_a_folder_that_can_not_be_read_is_counted(tmp_path, monkeypatch):
    add(tmp_path / "sub" / "a.png")
    scandir = os.scandir

    def fail(path):
        if os.fspath(path).endswith("sub"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", fail)
    text = describe_left_out(list_pictures(tmp_path).left_out)
    assert text == '1 folder that can\'t be read ("sub": Permission denied)'


def test_a_name_can_not_forge_a_line_of_the_log():
    assert describe_left_out([LeftOut("a\n\x1b[31m.png", "image corrupt")]) == r'1 image corrupt ("a\n\x1b[31m.png")'
