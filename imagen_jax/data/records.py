"""Decoding of what others wrote: image files and captions, either of which may be broken or hostile."""

import io
import unicodedata

import numpy as np
from PIL import Image, ImageOps

# About 7000 x 7000: larger than any photograph that a 1024 px stage needs, and 150 MB once decoded.
MAX_IMAGE_PIXELS = 50_000_000
# T5 sees at most a few hundred tokens.
MAX_CAPTION_CHARS = 2_000
IMAGE_FORMATS = ("PNG", "JPEG", "WEBP")


class BadRecord(ValueError):
    """A record that can't be used. The message is a short reason, the same for all of its kind: it is counted."""


def decode_image(data: bytes) -> np.ndarray:
    """A PNG, JPEG or WebP file as uint8 [H, W, 3] RGB, 0..255.

    Transparent pixels are composited on white (dropping alpha would show whatever colour was hidden under it), 16-bit
    greyscale is scaled to 8 bits, and EXIF orientation is applied where it can be read.

    Raises:
      BadRecord: not an image, truncated, or above `MAX_IMAGE_PIXELS` (found before anything is decompressed).
    """
    try:
        with Image.open(io.BytesIO(data), formats=IMAGE_FORMATS) as image:
            if image.width * image.height > MAX_IMAGE_PIXELS:
                raise BadRecord("image too large")
            image.load()
            return np.array(_to_rgb(_upright(image)))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadRecord("image too large") from error
    except BadRecord:
        raise
    except Exception as error:  # Pillow's decoders raise exceptions of every class on broken data.
        raise BadRecord("image corrupt") from error


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # Broken EXIF says nothing about the pixels.
        return image


def _to_rgb(image: Image.Image) -> Image.Image:
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
