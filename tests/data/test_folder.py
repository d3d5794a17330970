"""A folder of images and captions, good and bad."""

import json
import os
import re
import shutil

import numpy as np
import pytest
from absl import logging
from PIL import Image

from imagen_jax.data.sources import folder, open_source
from imagen_jax.errors import InputError


def add(root, name: str, caption: str | bytes | None, colour: int = 0) -> None:
    Image.new("RGB", (8, 6), (colour, 100, 200)).save(root / f"{name}.png")
    if caption is not None:
        (root / f"{name}.txt").write_bytes(caption if isinstance(caption, bytes) else caption.encode())


@pytest.fixture
def images(tmp_path):
    root = tmp_path / "images"
    root.mkdir()
    for i in range(20):
        add(root, f"{i:02d}", f"picture {i}", colour=i)
    return root


@pytest.fixture
def warned(monkeypatch):
    lines = []
    monkeypatch.setattr(logging, "warning", lambda message, *args: lines.append(message % args))
    return lines


def open_images(images, tmp_path):
    return open_source(f"folder/{images}", data_dir=str(tmp_path / "data"))


def test_images_pair_with_the_text_beside_them_in_order_of_name(images, tmp_path):
    source = open_images(images, tmp_path)
    assert len(source) == 20 and source.captions() == [f"picture {i}" for i in range(20)]
    record = source[7]
    assert record["caption"] == "picture 7" and record["file"] == "07.png"
    np.testing.assert_array_equal(record["image"], np.broadcast_to(np.array([7, 100, 200], np.uint8), (6, 8, 3)))


def test_bad_items_are_skipped_counted_and_reported_in_one_line(images, tmp_path, warned):
    (images / "03.png").write_bytes(b"broken")
    (images / "04.txt").write_bytes(b"caf\xe9")
    source = open_images(images, tmp_path)
    assert len(source) == 18 and "picture 3" not in source.captions()
    assert source[3]["caption"] == "picture 5"
    (line,) = warned
    assert "skipped 2 of 20" in line and "1 image corrupt ('03.png')" in line and "1 caption not UTF-8" in line
    open_images(images, tmp_path)
    assert warned == [line, line]


def test_too_many_bad_items_are_an_error(images, tmp_path):
    for i in range(3):
        (images / f"{i:02d}.txt").unlink()
    with pytest.raises(InputError, match="3 of 20 items are unusable, more than 10%: 3 caption missing"):
        open_images(images, tmp_path)


@pytest.mark.parametrize("spec", ["folder", "folder/", "folder//no/such/folder"])
def test_a_missing_folder_is_an_error(spec, tmp_path):
    with pytest.raises(InputError, match="expected folder/PATH"):
        open_source(spec, data_dir=str(tmp_path))


def test_a_folder_without_images_is_an_error(tmp_path):
    with pytest.raises(InputError, match="no images in"):
        open_images(tmp_path, tmp_path)


def test_the_second_opening_decodes_nothing_until_something_changes(images, tmp_path, monkeypatch):
    first = open_images(images, tmp_path)
    decoded = []
    decode = folder.decode_image
    monkeypatch.setattr(folder, "decode_image", lambda data: (decoded.append(1), decode(data))[1])
    assert open_images(images, tmp_path).fingerprint == first.fingerprint and not decoded
    (images / "00.txt").write_text("another caption")
    changed = open_images(images, tmp_path)
    assert decoded and changed.captions()[0] == "another caption" and changed.fingerprint != first.fingerprint


def test_the_fingerprint_depends_on_content_and_not_on_place_or_time(images, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(images, copy)
    for file in copy.iterdir():
        os.utime(file, (1, 1))
    source = open_images(images, tmp_path)
    assert open_images(copy, tmp_path).fingerprint == source.fingerprint
    add(copy, "07", "picture 7", colour=99)
    assert open_images(copy, tmp_path).fingerprint != source.fingerprint


def test_a_damaged_index_is_made_again(images, tmp_path):
    open_images(images, tmp_path)
    (index,) = (tmp_path / "data" / "index").iterdir()
    index.write_text("{broken")
    assert len(open_images(images, tmp_path)) == 20


def write_metadata(root, items) -> None:
    lines = [item if isinstance(item, bytes) else json.dumps(item).encode() for item in items]
    (root / "metadata.jsonl").write_bytes(b"\n".join(lines))


def test_metadata_gives_captions_in_its_own_order(images, tmp_path):
    write_metadata(images, [{"file_name": "05.png", "text": "five"}, {"file_name": "01.png", "caption": "one"}])
    source = open_images(images, tmp_path)
    assert source.captions() == ["five", "one"] and source[0]["image"][0, 0, 0] == 5


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (b"{not json", "without a file_name"),
        (b"\xff\xfe{}", "without a file_name"),
        (b"[]", "without a file_name"),
        ({"text": "no file"}, "without a file_name"),
        ({"file_name": 3, "text": "a number"}, "without a file_name"),
        ({"file_name": "../../secret.png", "text": "outside"}, "outside the folder"),
        ({"file_name": "nul\x00.png", "text": "nul"}, "without a file_name|image missing"),
        ({"file_name": "gone.png", "text": "gone"}, "image missing"),
        ({"file_name": "01.png"}, "caption missing"),
        ({"file_name": "01.png", "text": 5}, "caption missing"),
        ({"file_name": "01.png", "text": "\ud800"}, "caption not UTF-8"),
    ],
)
def test_a_bad_metadata_line_is_skipped_by_reason(images, tmp_path, warned, item, reason):
    write_metadata(images, [{"file_name": f"{i:02d}.png", "text": str(i)} for i in range(20)] + [item])
    assert len(open_images(images, tmp_path)) == 20
    (line,) = warned
    assert re.search(reason, line)


def test_a_file_that_breaks_later_names_itself(images, tmp_path):
    source = open_images(images, tmp_path)
    (images / "02.png").unlink()
    with pytest.raises(InputError, match=r"02\.png could be read before but not now"):
        source[2]
