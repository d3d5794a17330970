import os
import shutil

import numpy as np
import pytest
from absl import logging
from PIL import Image

from imagen_jax.errors import InputError
from imagen_jax.evaluation.image_folder import ImageFolder

RNG = np.random.default_rng(0)


def read(folder):
    return list(folder.read(range(len(folder))))


def save(path, *, size=(8, 6)):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = RNG.integers(0, 256, (*size, 3)).astype(np.uint8)
    Image.fromarray(image).save(path)
    return image


def test_images_come_in_the_order_of_their_names_with_exact_pixels(tmp_path):
    saved = {name: save(tmp_path / name) for name in ("b.png", "a.PNG", "c/a.png", "a0.png")}
    save(tmp_path / "d.webp")
    save(tmp_path / "e.jpg")
    (tmp_path / "b.txt").write_text("a caption")
    folder = ImageFolder(tmp_path)
    images = read(folder)
    assert len(folder) == len(images) == 6 and folder.size == (8, 6) and folder.bad == []
    for image, name in zip(images, ("a.PNG", "a0.png", "b.png", "c/a.png"), strict=False):
        np.testing.assert_array_equal(image, saved[name])


def test_the_fingerprint_is_of_the_images_and_not_of_the_place(tmp_path):
    for name in ("a/1.png", "a/2.png"):
        save(tmp_path / name)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    (tmp_path / "b/2.png").rename(tmp_path / "b/3.png")
    before = ImageFolder(tmp_path / "a").fingerprint
    assert ImageFolder(tmp_path / "b").fingerprint == before
    save(tmp_path / "b/3.png")
    assert ImageFolder(tmp_path / "b").fingerprint != before


def test_images_of_two_sizes_are_one_error_with_two_files(tmp_path):
    save(tmp_path / "a.png")
    save(tmp_path / "b.png")
    save(tmp_path / "odd.png", size=(8, 7))
    with pytest.raises(InputError, match=r"a\.png \(8 x 6\) and .*odd\.png \(8 x 7\).*resize them"):
        ImageFolder(tmp_path)


def test_one_corrupt_image_in_a_hundred_is_left_out_and_two_are_refused(tmp_path):
    for number in range(100):
        save(tmp_path / f"{number:03}.png")
    (tmp_path / "050.png").write_bytes((tmp_path / "050.png").read_bytes()[:60])
    folder = ImageFolder(tmp_path)
    assert len(read(folder)) == len(folder) == 99
    assert [reason for _, reason in folder.bad] == ["image corrupt"]
    (tmp_path / "051.png").write_bytes(b"GIF89a")
    with pytest.raises(InputError, match=r"2 of 100 .*050\.png.*more than 1%"):
        ImageFolder(tmp_path)


def test_nothing_to_score_is_an_error(tmp_path):
    with pytest.raises(InputError, match="no images"):
        ImageFolder(tmp_path)
    with pytest.raises(InputError, match="no folder"):
        ImageFolder(tmp_path / "nowhere")


def test_an_image_that_disappears_meanwhile_is_an_error(tmp_path):
    save(tmp_path / "a.png")
    folder = ImageFolder(tmp_path)
    (tmp_path / "a.png").unlink()
    with pytest.raises(InputError, match="start again"):
        read(folder)


def test_images_of_any_size_can_be_cropped_to_one(tmp_path):
    wide, tall = save(tmp_path / "a.png", size=(8, 20)), save(tmp_path / "b.png", size=(30, 16))
    folder = ImageFolder(tmp_path, crop_to=4)
    found = read(folder)
    assert folder.size == (4, 4)
    for image, square in zip(found, (wide[:, 6:14], tall[7:23]), strict=True):
        side = len(square) // 4
        expected = square.reshape(4, side, 4, side, 3).mean(axis=(1, 3))
        np.testing.assert_allclose(image, expected, atol=0.51)
    assert ImageFolder(tmp_path, crop_to=8).fingerprint != folder.fingerprint
    np.testing.assert_array_equal(list(folder.read(range(1, 2))), found[1:])


def test_linked_folders_and_every_format_are_read_and_the_rest_is_said(tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr(logging, "warning", lambda message, *args: lines.append(message % args))
    root = tmp_path / "root"
    for name in ("a.png", ".hidden/b.png", "c.tiff", "d.bmp"):
        save(root / name)
    save(tmp_path / "elsewhere" / "e.gif")
    (root / "link").symlink_to(tmp_path / "elsewhere")
    (root / "f.heic").write_bytes(b"")
    os.mkfifo(root / "pipe.png")
    folder = ImageFolder(root)
    assert len(read(folder)) == len(folder) == 4
    assert lines == [
        f'"{root}": left out 3 items: 1 hidden file (".hidden/b.png"), 1 format that is not read ("f.heic"), '
        '1 pipe, socket or device ("pipe.png"); 4 images are used'
    ]


def test_files_that_are_given_are_the_images_and_nothing_else_is_looked_for(tmp_path):
    images = [save(tmp_path / name) for name in ("b.png", "a.png", "c.png")]
    folder = ImageFolder(tmp_path, files=[tmp_path / "b.png", tmp_path / "a.png"])
    np.testing.assert_array_equal(read(folder), images[:2])
