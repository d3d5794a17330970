"""A folder of images and captions, good and bad."""

import hashlib
import json
import os
import re
import shutil

import numpy as np
import pytest
from absl import logging
from PIL import Image

from imagen_jax.data.sources import folder, open_source
from imagen_jax.data.sources.base import fingerprint
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
    assert 'left out 2 items: 1 image corrupt ("03.png"), 1 caption not UTF-8 ("04.png"); 18 records are used' in line
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
    inspect = folder.inspect_image
    monkeypatch.setattr(folder, "inspect_image", lambda path: (decoded.append(1), inspect(path))[1])
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
        (b"{not json", "that is no JSON"),
        (b"\xff\xfe{}", "that is no JSON"),
        (b"[" * 100_000, "that is no JSON"),
        (b"[]", "without a file_name"),
        ({"text": "no file"}, "without a file_name"),
        ({"file_name": 3, "text": "a number"}, "without a file_name"),
        ({"file_name": "../../secret.png", "text": "outside"}, "outside the folder"),
        ({"file_name": "/etc/secret.png", "text": "outside"}, "outside the folder"),
        ({"file_name": "nul\x00.png", "text": "nul"}, "without a file_name"),
        ({"file_name": "n" * 5000, "text": "long"}, "image missing"),
        ({"file_name": "gone.png", "text": "gone"}, "image missing"),
        ({"file_name": "01.png"}, "caption missing .*no text in text, caption, prompt"),
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


def open_with_warning(images, tmp_path, warned):
    warned.clear()
    source = open_images(images, tmp_path)
    (line,) = warned
    return source, line


def test_what_was_found_and_is_not_used_is_one_warning(images, tmp_path, warned):
    hidden = images / ".cache"
    hidden.mkdir()
    for name in ("a.png", "b.png"):
        shutil.copy(images / "00.png", hidden / name)
    (images / "c.heic").write_bytes(b"")
    (images / "notes.txt").write_text("of my own")
    os.mkfifo(images / "pipe.png")
    source, line = open_with_warning(images, tmp_path, warned)
    assert len(source) == 20
    assert line == (
        f'"folder/{images}": left out 5 items: 2 hidden files (".cache/a.png"), 1 format that is not read ("c.heic"), '
        '1 pipe, socket or device ("pipe.png"), 1 caption file without a picture ("notes.txt"); 20 records are used'
    )


def test_a_folder_of_unread_formats_alone_says_so(tmp_path):
    (tmp_path / "a.heic").write_bytes(b"")
    with pytest.raises(InputError, match=r'no images in .*left out: 1 format that is not read \("a.heic"\)'):
        open_images(tmp_path, tmp_path)


def test_pictures_in_linked_folders_and_of_every_format_are_records(images, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for number, extension in enumerate((".bmp", ".gif", ".tiff", ".avif", ".webp", ".jpg")):
        Image.new("RGB", (8, 6), "red").save(elsewhere / f"{number}{extension}")
        (elsewhere / f"{number}.txt").write_text(extension)
    (images / "link").symlink_to(elsewhere)
    source = open_images(images, tmp_path)
    assert len(source) == 26 and source[20]["file"] == "link/0.bmp"
    assert [source[index]["image"].shape for index in range(20, 26)] == [(6, 8, 3)] * 6


def test_a_caption_file_is_found_in_any_case_and_a_missing_one_is_named(images, tmp_path, warned):
    (images / "05.txt").rename(images / "05.TXT")
    (images / "06.txt").unlink()
    source, line = open_with_warning(images, tmp_path, warned)
    assert "picture 5" in source.captions()
    assert '1 caption missing ("06.png": no caption in 06.txt)' in line


def test_a_caption_that_is_a_pipe_is_not_opened(images, tmp_path, warned):
    (images / "05.txt").unlink()
    os.mkfifo(images / "05.txt")
    _, line = open_with_warning(images, tmp_path, warned)
    assert '1 caption is no ordinary file ("05.png")' in line


def test_pictures_that_metadata_does_not_name_are_said(images, tmp_path, warned):
    write_metadata(images, [{"file_name": "05.png", "text": "five"}, {"file_name": "01.png", "text": "one"}])
    _, line = open_with_warning(images, tmp_path, warned)
    assert '18 pictures that metadata.jsonl doesn\'t name ("00.png")' in line and "2 records are used" in line
    assert '20 caption files beside metadata.jsonl ("00.txt")' in line


def test_pictures_named_twice_are_records_each_time_and_said(tmp_path, warned):
    add(tmp_path, "a", None)
    write_metadata(tmp_path, [{"file_name": "a.png", "text": text} for text in ("one", "two")])
    source, line = open_with_warning(tmp_path, tmp_path, warned)
    assert source.captions() == ["one", "two"]
    assert "1 picture is named more than once in metadata.jsonl and give" in line and '("a.png")' in line


@pytest.mark.parametrize(
    "item",
    [
        {"prompt": "a"},
        {"text": None, "caption": "a"},
        {"text": " ", "caption": None, "prompt": "a"},
        {"text": "a", "caption": "b"},
        {"caption": "a", "prompt": "b"},
    ],
)
def test_the_first_key_with_a_text_is_the_caption(tmp_path, item):
    add(tmp_path, "x", None)
    write_metadata(tmp_path, [{"file_name": "x.png", **item}])
    assert open_images(tmp_path, tmp_path).captions() == ["a"]


def test_names_are_passed_through_and_change_no_fingerprint(images, tmp_path):
    lines = [{"file_name": f"{i:02d}.png", "text": str(i)} for i in range(20)]
    write_metadata(images, lines)
    before = open_images(images, tmp_path).fingerprint
    write_metadata(images, [{**line, "name": f" name {i}\n"} for i, line in enumerate(lines[:19])] + lines[19:])
    source = open_images(images, tmp_path)
    assert source[3]["name"] == "name 3" and "name" not in source[19] and source.fingerprint == before


def test_a_hubs_cache_of_links_is_read_with_metadata_and_with_text_files(tmp_path):
    blobs, root = tmp_path / "blobs", tmp_path / "snapshots" / "main"
    blobs.mkdir()
    root.mkdir(parents=True)
    add(blobs, "x", "in a file")
    (blobs / "x.png").rename(blobs / "ab12")
    (blobs / "x.txt").rename(blobs / "cd34")
    (root / "a.png").symlink_to("../../blobs/ab12")
    (root / "a.txt").symlink_to("../../blobs/cd34")
    assert open_images(root, tmp_path).captions() == ["in a file"]
    write_metadata(blobs, [{"file_name": "a.png", "text": "in metadata"}])
    (blobs / "metadata.jsonl").rename(blobs / "ef56")
    (root / "metadata.jsonl").symlink_to("../../blobs/ef56")
    source = open_images(root, tmp_path)
    assert source.captions() == ["in metadata"] and source[0]["image"].shape == (6, 8, 3)


def test_a_name_with_dots_inside_the_folder_is_valid(images, tmp_path):
    write_metadata(images, [{"file_name": "sub/../05.png", "text": "five"}])
    source = open_images(images, tmp_path)
    assert source[0]["image"][0, 0, 0] == 5 and source[0]["file"] == "sub/../05.png"


def write_table(root, text: str) -> None:
    (root / "metadata.csv").write_bytes(text.encode())


def test_a_table_gives_captions_and_names(images, tmp_path, warned):
    write_table(images, '\ufefffile_name,name,text\r\n05.png,five,"a, b"\r\n\r\n01.png,,one\x85more\r\n')
    source = open_images(images, tmp_path)
    assert source.captions() == ["a, b", "one more"] and source[0]["name"] == "five" and "name" not in source[1]
    write_metadata(images, [{"file_name": "02.png", "text": "two"}])
    source, line = open_with_warning(images, tmp_path, warned)
    assert source.captions() == ["two"] and "metadata.csv is there too and not read" in line


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file_name,text\na.png,x\nb.png,y, z\n", r'metadata.csv", line 3: 3 fields, but the header has 2'),
        ('file_name,text\na.png,"x\ny"\nb.png\n', r'metadata.csv", line 4: 1 fields, but the header has 2'),
        ("", "metadata.csv. is empty"),
        ("file_name;text\na.png;x\n", "has the columns 'file_name;text'; expected a table with commas"),
        ("file_name,text,text\n", "expected a table with commas and the columns file_name and text or caption or p"),
        ('file_name,text\na.png,"x" y\n', r'metadata.csv", line 2: .*expected a table'),
        (f"file_name,text\na.png,{'x' * 200_000}\n", r"line 2: field larger than field limit"),
    ],
)
def test_a_table_that_does_not_fit_its_header_is_an_error(images, tmp_path, text, message):
    write_table(images, text)
    with pytest.raises(InputError, match=message):
        open_images(images, tmp_path)


@pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.csv"])
def test_metadata_that_is_no_ordinary_file_is_an_error(images, tmp_path, name):
    os.mkfifo(images / name)
    with pytest.raises(InputError, match="no ordinary file"):
        open_images(images, tmp_path)


@pytest.mark.parametrize("what", ["image", "caption"])
def test_a_file_that_could_not_be_read_once_is_tried_again(images, tmp_path, monkeypatch, warned, what):
    name = "inspect_image" if what == "image" else "read_ordinary_file"
    read = getattr(folder, name)

    def fail(path, **kwargs):
        if path.stem == "03":
            raise OSError(5, "Input/output error")
        return read(path, **kwargs)

    monkeypatch.setattr(folder, name, fail)
    source, line = open_with_warning(images, tmp_path, warned)
    assert len(source) == 19 and f'1 {what} can\'t be read ("03.png": Input/output error)' in line
    monkeypatch.setattr(folder, name, read)
    assert len(open_images(images, tmp_path)) == 20


def test_sizes_come_from_the_index(images, tmp_path, monkeypatch):
    Image.new("RGB", (30, 20)).save(images / "07.png")
    source = open_images(images, tmp_path)
    assert isinstance(source, folder.FolderSource)
    sizes = source.sizes()
    assert sizes == [(6, 8)] * 7 + [(20, 30)] + [(6, 8)] * 12
    monkeypatch.setattr(folder, "inspect_image", None)
    again = open_images(images, tmp_path)
    assert isinstance(again, folder.FolderSource) and again.sizes() == sizes


def test_an_index_with_another_content_is_made_again(images, tmp_path):
    before = open_images(images, tmp_path)
    (index,) = (tmp_path / "data" / "index").iterdir()
    text = index.read_text()
    for damaged in (text.replace("picture 7", "picture 8"), text.replace('"records"', '"recerds"')):
        assert damaged != text
        index.write_text(damaged)
        assert open_images(images, tmp_path).fingerprint == before.fingerprint


def test_fingerprints_are_those_of_earlier_versions(images, tmp_path):
    texts = open_images(images, tmp_path).fingerprint
    write_metadata(images, [{"file_name": "05.png", "text": "five"}, {"file_name": "01.png", "caption": "one"}])
    shas = [hashlib.sha256((images / f"{i:02d}.png").read_bytes()).hexdigest() for i in range(20)]
    assert texts == fingerprint([f"picture {i}" for i in range(20)], shas)
    assert open_images(images, tmp_path).fingerprint == fingerprint(["five", "one"], [shas[5], shas[1]])


def test_what_the_decoder_says_of_single_files_is_not_printed(images, tmp_path, capfd):
    # Broken EXIF is a warning, and too many samples an error, in Pillow's own words.
    Image.new("RGB", (8, 6)).save(images / "03.jpg", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff")
    Image.new("RGB", (8, 6)).save(images / "04.tiff", tiffinfo={277: 9})
    for name in ("03", "04"):
        (images / f"{name}.png").unlink()
    source = open_images(images, tmp_path)
    assert "picture 3" in source.captions() and not capfd.readouterr().err
