"""Decoding of what others wrote: image files and captions, either of which may be broken or hostile."""

import contextlib
import errno
import functools
import hashlib
import io
import logging
import os
import stat
import threading
import unicodedata
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import ExifTags, Image, ImageOps

# About 7000 x 7000: larger than any photograph that a 1024 px stage needs, and 150 MB once decoded.
MAX_IMAGE_PIXELS = 50_000_000
# What that many pixels take without compression, with 16 bits each of red, green, blue and alpha, and metadata.
MAX_IMAGE_FILE_BYTES = 8 * MAX_IMAGE_PIXELS + 2**24
# T5 sees at most a few hundred tokens.
MAX_CAPTION_CHARS = 2_000
# What is read, under Pillow's names, with the endings of such files. Never EPS, which Pillow gives to Ghostscript, an
# interpreter of programs. Of a file with several pictures (GIF, TIFF, animated PNG) the first is read.
IMAGE_FORMATS = {
    "PNG": (".png", ".apng"),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "AVIF": (".avif",),
}
EXTENSIONS = tuple(extension for extensions in IMAGE_FORMATS.values() for extension in extensions)
# Modes of which Pillow's conversion to RGB keeps the colours. 32-bit grey is none: nothing says where white is.
_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBX", "RGBA", "RGBa", "CMYK", "YCbCr", "HSV")
# Pixels that are converted at once: copies of a whole picture in RGBA would take five times its memory.
_STRIP_PIXELS = 2**20

_T = TypeVar("_T")


class BadRecord(ValueError):
    """A record that can't be used. The message is a short reason, the same for all of its kind: it is counted.

    Attributes:
      detail: what is particular to this record, such as the file that was looked for, or "".
    """

    def __init__(self, reason: str, *, detail: str = ""):
        super().__init__(reason)
        self.detail = detail


class _Budget:
    """Makes threads wait while what they hold together would exceed a limit; what exceeds it alone is held alone."""

    def __init__(self, limit: int):
        self._limit = limit
        self._held = 0
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def hold(self, amount: int) -> Iterator[None]:
        amount = min(amount, self._limit)
        with self._changed:
            self._changed.wait_for(lambda: self._held + amount <= self._limit)
            self._held += amount
        try:
            yield
        finally:
            with self._changed:
                self._held -= amount
                self._changed.notify_all()


# Pillow keeps pixels in blocks of this size, and smaller pictures in smaller ones. Above glibc's limit of 32 MiB a
# block goes back to the system when it is freed. Pillow's own 16 MiB stay with the thread that had them: 1.4 GB were
# measured for four pictures of 7000 x 7000, of which one was decoded at a time, and 0.4 GB with this.
_BLOCK_BYTES = 2**26

# Of all threads together. A thread waits for bytes first and pixels second, and never for bytes while it holds pixels,
# so two threads can't wait for each other.
_file_bytes = _Budget(2**27)
_pixels = _Budget(MAX_IMAGE_PIXELS)


@contextlib.contextmanager
def quiet_decoder() -> Iterator[None]:
    """Keeps what Pillow prints about single files off the terminal, where each is decoded and what is bad is counted.

    Enter it before threads are started, since filters of warnings belong to the whole process.
    """
    logger = logging.getLogger("PIL")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    finally:
        logger.setLevel(level)


def decode_image(data: bytes) -> np.ndarray:
    """Decodes a file in one of `IMAGE_FORMATS` to uint8 [H, W, 3] RGB, 0..255.

    Transparent pixels are composited on white (dropping alpha would show whatever colour was hidden under it), 16-bit
    greyscale is scaled to 8 bits, and EXIF orientation is applied where it can be read.

    Raises:
      BadRecord: not an image, truncated, or above `MAX_IMAGE_PIXELS` (found before anything is decompressed).
      OSError: there was no memory for it, which says nothing about the file.
    """
    return _decode(data, lambda image: image)


def read_image(path: Path) -> np.ndarray:
    """Reads an image file as `decode_image` does.

    Raises:
      BadRecord: what `decode_image` raises, or it is missing, no ordinary file, or above `MAX_IMAGE_FILE_BYTES`.
      OSError: it is there and could not be read, this time.
    """
    with _file_contents(path) as data:
        return decode_image(data)


def inspect_image(path: Path) -> tuple[str, int, int]:
    """Decodes an image file and keeps nothing of its pixels.

    Returns:
      sha256 of the file in hex, height and width of the picture as `read_image` gives it.

    Raises: what `read_image` raises.
    """
    with _file_contents(path) as data:
        height, width = _decode(data, lambda image: image.shape[:2])
        return hashlib.sha256(data).hexdigest(), height, width


def read_ordinary_file(path: Path, *, max_bytes: int, what: str) -> bytes:
    """Reads a file that somebody else wrote, without opening a pipe or a device, which might wait for ever.

    Args:
      max_bytes: a larger file is refused before it is read.
      what: "image" or "caption", for the reason.

    Raises:
      BadRecord: it is missing, no ordinary file, or too large.
      OSError: it is there and could not be read, this time.
    """
    _size(path, max_bytes=max_bytes, what=what)
    with open(path, "rb") as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:  # It has grown meanwhile.
        raise BadRecord(f"{what} file too large")
    return data


def _size(path: Path, *, max_bytes: int, what: str) -> int:
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:  # ValueError: a NUL byte in its name.
        raise BadRecord(f"{what} missing") from error
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
            raise BadRecord(f"{what} missing") from error
        raise
    if not stat.S_ISREG(status.st_mode):
        raise BadRecord(f"{what} is no ordinary file")
    if status.st_size > max_bytes:
        raise BadRecord(f"{what} file too large")
    return status.st_size


@contextlib.contextmanager
def _file_contents(path: Path) -> Iterator[bytes]:
    with _file_bytes.hold(_size(path, max_bytes=MAX_IMAGE_FILE_BYTES, what="image")):
        yield read_ordinary_file(path, max_bytes=MAX_IMAGE_FILE_BYTES, what="image")


@functools.cache
def _return_freed_pixels() -> None:
    Image.core.set_block_size(max(_BLOCK_BYTES, Image.core.get_block_size()))


def _decode(data: bytes, use: Callable[[np.ndarray], _T]) -> _T:
    """`use` of the decoded image, called while its pixels still count as held."""
    _return_freed_pixels()
    try:
        with Image.open(io.BytesIO(data), formats=tuple(IMAGE_FORMATS)) as image:
            num_pixels = image.width * image.height
            if num_pixels > MAX_IMAGE_PIXELS:
                raise BadRecord("image too large")
            with _pixels.hold(num_pixels):
                image.load()
                return use(_to_rgb(image))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadRecord("image too large") from error
    except BadRecord:
        raise
    except MemoryError as error:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)) from error
    except Exception as error:  # Pillow's decoders raise exceptions of every class on broken data.
        raise BadRecord("image corrupt") from error


def _to_rgb(image: Image.Image) -> np.ndarray:
    upright = _upright(image)
    if upright is not image:
        image.close()  # Its pixels are copied, and may be 200 MB.
        image = upright
    if image.mode not in _MODES and not image.mode.startswith("I;16"):
        raise BadRecord("image of a kind that is not read", detail=f"Pillow's mode {image.mode}")
    rows = max(1, _STRIP_PIXELS // image.width)
    if rows >= image.height:
        return np.array(_strip_to_rgb(image))
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    for top in range(0, image.height, rows):
        bottom = min(top + rows, image.height)
        pixels[top:bottom] = np.asarray(_strip_to_rgb(image.crop((0, top, image.width, bottom))))
    return pixels


def _upright(image: Image.Image) -> Image.Image:
    try:
        if image.getexif().get(ExifTags.Base.Orientation, 1) == 1:
            return image  # where exif_transpose would make a copy
        return ImageOps.exif_transpose(image)
    except Exception:  # Broken EXIF says nothing about the pixels.
        return image


def _strip_to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        # Pillow's own conversion clips at 255; 65535 / 257 = 255.
        image = Image.fromarray((np.asarray(image).astype(np.uint32) // 257).astype(np.uint8))
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return image.convert("RGB")


def clean_caption(text: bytes | str) -> str:
    """`text` in NFC, without control characters, with single spaces, cut to `MAX_CAPTION_CHARS`.

    Raises:
      BadRecord: not UTF-8 (a str with lone surrogates included), or nothing is left.
    """
    try:
        text = text.decode("utf-8-sig") if isinstance(text, bytes) else text.encode("utf-8").decode("utf-8")
    except UnicodeError as error:
        raise BadRecord("caption not UTF-8") from error
    text = unicodedata.normalize("NFC", text)
    text = "".join(" " if unicodedata.category(char) == "Cc" else char for char in text)
    text = " ".join(text.split())[:MAX_CAPTION_CHARS].rstrip()
    if not text:
        raise BadRecord("caption empty")
    return text
