"""Pictures: from [-1, 1] to uint8, to PNG files and to labelled grids."""

import io
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from imagen_jax.files import write_bytes

_LABEL_PX = 14


def to_uint8(samples: np.ndarray) -> np.ndarray:
    """[...] float in [-1, 1] -> uint8 0..255, clipped and rounded."""
    return np.round((np.clip(np.asarray(samples, np.float32), -1.0, 1.0) + 1.0) * 127.5).astype(np.uint8)


def save_png(image: np.ndarray, path: Path) -> None:
    """Writes uint8 [H,W,3] as a PNG file, whole or not at all; its folder is made.

    Raises:
      StorageError: the disk is full, read-only or gone.
    """
    encoded = io.BytesIO()
    Image.fromarray(image).save(encoded, "png")
    write_bytes(path, encoded.getvalue())


def enlarge(image: np.ndarray, factor: int) -> np.ndarray:
    """uint8 [H,W,3] -> [factor*H,factor*W,3], each pixel a square, so that pixels stay visible as what they are."""
    return image.repeat(factor, axis=0).repeat(factor, axis=1)


def labelled_grid(
    images: Sequence[np.ndarray], labels: Sequence[str], *, columns: int, min_cell_px: int = 128
) -> np.ndarray:
    """A contact sheet: each image over its caption, small images enlarged by whole factors.

    Args:
      images: uint8 [H,W,3], all of one size.
      labels: as many.

    Returns:
      uint8 [H',W',3] on white.
    """
    assert len(images) == len(labels) and len(images) > 0
    factor = max(1, -(-min_cell_px // images[0].shape[0]))
    cell_height, cell_width = (factor * side for side in images[0].shape[:2])
    font = ImageFont.load_default(_LABEL_PX)
    characters = max(8, int(cell_width / (0.52 * _LABEL_PX)))
    wrapped = [textwrap.wrap(label, characters)[:3] for label in labels]
    label_px = (max(map(len, wrapped)) or 1) * (_LABEL_PX + 4) + 8
    gap = 8
    rows = -(-len(images) // columns)
    step_x, step_y = cell_width + gap, cell_height + label_px + gap
    sheet = Image.new("RGB", (columns * step_x + gap, rows * step_y + gap), "white")
    draw = ImageDraw.Draw(sheet)
    for index, (image, lines) in enumerate(zip(images, wrapped, strict=True)):
        x, y = gap + index % columns * step_x, gap + index // columns * step_y
        sheet.paste(Image.fromarray(enlarge(image, factor)), (x, y))
        draw.rectangle((x - 1, y - 1, x + cell_width, y + cell_height), outline=(225, 225, 225))
        draw.multiline_text((x, y + cell_height + 4), "\n".join(lines), fill="black", font=font, spacing=4)
    return np.asarray(sheet)
