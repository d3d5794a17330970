"""Pictures: from [-1, 1] to uint8, to PNG files and to labelled grids."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_LABEL_PX = 14


def to_uint8(samples: np.ndarray) -> np.ndarray:
    """[...] float in [-1, 1] -> uint8 0..255, clipped and rounded."""
    return np.round((np.clip(np.asarray(samples, np.float32), -1.0, 1.0) + 1.0) * 127.5).astype(np.uint8)


def save_png(image: np.ndarray, path: Path) -> None:
    """Writes uint8 [H,W,3]."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


def resize_nearest(image: np.ndarray, size: int) -> np.ndarray:
    """uint8 [H,W,3] -> [size,size,3]; nearest neighbour, so that pixels stay visible as what they are."""
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.NEAREST))


def labelled_grid(images: Sequence[np.ndarray], labels: Sequence[str], *, columns: int, min_cell_px: int = 128) -> np.ndarray:
    """A contact sheet: each image over its caption, small images enlarged by whole factors.

    Args:
      images: uint8 [H,W,3], all of one size.
      labels: as many.

    Returns:
      uint8 [H',W',3] on white.
    """
    assert len(images) == len(labels) and len(images) > 0
    size = images[0].shape[0]
    cell = size * max(1, -(-min_cell_px // size))
    font = ImageFont.load_default(_LABEL_PX)
    characters = max(8, int(cell / (0.52 * _LABEL_PX)))
    wrapped = [textwrap.wrap(label, characters)[:3] for label in labels]
    label_px = (max(map(len, wrapped)) or 1) * (_LABEL_PX + 4) + 8
    gap = 8
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * (cell + gap) + gap, rows * (cell + label_px + gap) + gap), "white")
    draw = ImageDraw.Draw(sheet)
    for index, (image, lines) in enumerate(zip(images, wrapped, strict=True)):
        x, y = gap + index % columns * (cell + gap), gap + index // columns * (cell + label_px + gap)
        sheet.paste(Image.fromarray(resize_nearest(image, cell)), (x, y))
        draw.rectangle((x - 1, y - 1, x + cell, y + cell), outline=(225, 225, 225))
        draw.multiline_text((x, y + cell + 4), "\n".join(lines), fill="black", font=font, spacing=4)
    return np.asarray(sheet)
