"""Broken and hostile images and captions."""

import hashlib
import io
import os
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from imagen_jax.data import records
from imagen_jax.data.records import (
    EXTENSIONS,
    IMAGE_FORMATS,
    MAX_CAPTION_CHARS,
    BadRecord,
    clean_caption,
    decode_image,
    inspect_image,
    read_image,
)


def encode(image: Image.Image, file_format: str = "PNG", **kwargs) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **kwargs)
    return file.getvalue()


def png_header_only(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims any size."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
RED = Image.new("RGB", (8, 6), (200, 10, 30))


def test_png_round_trips():
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    np.testing.assert_array_equal(decode_image(encode(Image.fromarray(image))), image)


@pytest.mark.parametrize("file_format", IMAGE_FORMATS)
def test_every_format_decodes(file_format):
    image = decode_image(encode(RED, file_format))
    assert image.shape == (6, 8, 3) and image.dtype == np.uint8
    np.testing.assert_allclose(image[0, 0], [200, 10, 30], atol=12)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_composited_on_white(mode):
    hidden = Image.new("RGBA", (4, 4), (10, 10, 10, 0))
    data = encode(hidden.convert(mode)) if mode != "P" else encode(hidden.quantize())
    np.testing.assert_array_equal(decode_image(data), 255)


def test_half_transparent_black_on_white_is_grey():
    np.testing.assert_allclose(decode_image(encode(Image.new("RGBA", (2, 2), (0, 0, 0, 128)))), 127, atol=1)


def test_sixteen_bit_grey_is_scaled_and_not_clipped():
    values = np.array([[0, 257, 128 * 257, 65535]], np.uint16)
    np.testing.assert_array_equal(decode_image(encode(Image.fromarray(values)))[0, :, 0], [0, 1, 128, 255])


def test_each_ending_that_is_read_is_one_of_its_format():
    for file_format, extensions in IMAGE_FORMATS.items():
        assert {Image.registered_extensions()[extension] for extension in extensions} == {file_format}
    assert not {".eps", ".ps", ".pdf"} & {*EXTENSIONS}


def test_of_an_animation_the_first_frame_is_read():
    frames = [Image.new("RGB", (4, 3), colour) for colour in ("red", "blue")]
    image = decode_image(encode(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    np.testing.assert_array_equal(image, np.broadcast_to(np.array([255, 0, 0], np.uint8), (3, 4, 3)))


def test_grey_of_an_unknown_range_is_refused():
    with pytest.raises(BadRecord, match="a kind that is not read"):
        decode_image(encode(Image.fromarray(np.ones((3, 4), np.float32)), "TIFF"))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L", "RGB", "1", "CMYK", "I;16"])
def test_conversion_in_strips_gives_the_same_pixels_as_of_the_whole(mode, monkeypatch):
    pixels = np.random.default_rng(1).integers(0, 256, (31, 17, 4), dtype=np.uint8)
    if mode == "I;16":
        image = Image.fromarray(pixels.view(np.uint16)[..., 0])
    else:
        image = Image.fromarray(pixels)
        image = image.quantize(64) if mode == "P" else image.convert("RGB").convert(mode) if mode == "CMYK" else image
        image = image if mode in ("P", "CMYK") else image.convert(mode)
    data = encode(image, "TIFF" if mode == "CMYK" else "PNG")
    whole = decode_image(data)
    monkeypatch.setattr(records, "_STRIP_PIXELS", 40)
    np.testing.assert_array_equal(decode_image(data), whole)


def test_what_is_inspected_is_what_is_read(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(RED, "JPEG", exif=exif)
    (tmp_path / "a.jpg").write_bytes(data)
    assert inspect_image(tmp_path / "a.jpg") == (hashlib.sha256(data).hexdigest(), 8, 6)
    np.testing.assert_array_equal(read_image(tmp_path / "a.jpg"), decode_image(data))


def test_a_pipe_is_never_opened(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    for read in (inspect_image, read_image):
        with pytest.raises(BadRecord, match="image is no ordinary file"):
            read(tmp_path / "a.png")


def test_a_file_larger_than_any_such_picture_is_refused_before_it_is_read(tmp_path):
    with open(tmp_path / "a.png", "wb") as file:
        file.truncate(records.MAX_IMAGE_FILE_BYTES + 1)
    with pytest.raises(BadRecord, match="image file too large"):
        read_image(tmp_path / "a.png")


def test_no_memory_is_no_property_of_a_picture(monkeypatch):
    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(records, "_to_rgb", fail)
    with pytest.raises(OSError, match="memory"):
        decode_image(encode(RED))


def test_pixels_of_several_threads_stay_within_the_budget(monkeypatch):
    held, most = [], []
    convert = records._to_rgb

    def watch(image):
        held.append(image.width * image.height)
        most.append(sum(held))
        try:
            return convert(image)
        finally:
            held.remove(image.width * image.height)

    monkeypatch.setattr(records, "_to_rgb", watch)
    monkeypatch.setattr(records, "_pixels", records._Budget(2 * 64 * 64))
    with ThreadPoolExecutor(8) as pool:
        images = list(pool.map(decode_image, [encode(NOISE)] * 32))
    assert len(images) == 32 and max(most) <= 2 * 64 * 64


def test_exif_orientation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    assert decode_image(encode(RED, "JPEG", exif=exif)).shape == (8, 6, 3)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_broken_exif_does_not_lose_the_image():
    assert decode_image(encode(RED, "JPEG", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff")).shape == (6, 8, 3)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not an image",
        encode(NOISE)[:5000],
        encode(NOISE, "JPEG")[:1500],
        encode(NOISE, "WEBP")[:900],
        encode(RED, "PPM"),
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 6\n%%EndComments\n",
    ],
    ids=["empty", "text", "half a PNG", "half a JPEG", "half a WebP", "another format", "a program in PostScript"],
)
def test_a_corrupt_image_is_refused(data):
    with pytest.raises(BadRecord, match="image corrupt"):
        decode_image(data)


@pytest.mark.parametrize("size", [(7_100, 7_100), (10_000, 10_000), (60_000, 60_000)])
def test_a_decompression_bomb_is_refused_before_it_is_decompressed(size):
    with pytest.raises(BadRecord, match="image too large"):
        decode_image(png_header_only(*size))


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        (b"red apple\n", "red apple"),
        (b"\xef\xbb\xbfbyte order mark", "byte order mark"),
        ("cafe\u0301", "caf\u00e9"),
        ("a\x00b\x1b[31m\tc\r\nd", "a b [31m c d"),
        ("x" * 5000, "x" * MAX_CAPTION_CHARS),
    ],
)
def test_a_caption_is_normalised(raw, clean):
    assert clean_caption(raw) == clean


@pytest.mark.parametrize("raw", [b"\xff\xfe", b"caf\xe9", "lone \ud800 surrogate"])
def test_a_caption_that_is_not_utf8_is_refused(raw):
    with pytest.raises(BadRecord, match="not UTF-8"):
        clean_caption(raw)


@pytest.mark.parametrize("raw", [b"", b" \n", "\x00\x07"])
def test_an_empty_caption_is_refused(raw):
    with pytest.raises(BadRecord, match="empty"):
        clean_caption(raw)
