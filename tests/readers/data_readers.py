"""Readers of folders of pictures: each format, captions in their three forms, and the index of what was found."""

import functools
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from imagen_jax.data.records import IMAGE_FORMATS
from imagen_jax.data.sources.folder import open_folder
from imagen_jax.evaluation.image_folder import ImageFolder
from tests.readers.reader import Reader

_NUM_GOOD = 12  # So that one bad picture is left out and not an error.


def _picture(path: Path, *, mode: str = "RGB") -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 7, 4), dtype=np.uint8))
    image.convert(mode).save(path)


def _pictures(folder: Path, *, caption: bool, extension: str = ".png") -> None:
    pictures = folder / "pictures"
    pictures.mkdir()
    for i in range(_NUM_GOOD):
        _picture(pictures / f"{i:02d}{extension if i == 3 else '.png'}")
        if caption:
            (pictures / f"{i:02d}.txt").write_text(f"caption {i}\n")


def _alpha(folder: Path) -> None:
    _pictures(folder, caption=True)
    _picture(folder / "pictures" / "03.png", mode="RGBA")


def _lines(folder: Path) -> None:
    _pictures(folder, caption=False)
    items = [{"file_name": f"{i:02d}.png", "text": f"caption {i}", "name": f"{i}"} for i in range(_NUM_GOOD)]
    (folder / "pictures" / "metadata.jsonl").write_text("\n".join(json.dumps(item) for item in items))


def _table(folder: Path) -> None:
    _pictures(folder, caption=False)
    rows = "".join(f'{i:02d}.png,"caption, {i}",{i}\n' for i in range(_NUM_GOOD))
    (folder / "pictures" / "metadata.csv").write_text(f"file_name,text,name\n{rows}")


def _index(folder: Path) -> None:
    _pictures(folder, caption=True)
    open_folder(f"folder/{folder / 'pictures'}", str(folder / "data"))
    # The folder's name is in the index's, which a reader must know before there is a folder.
    (index,) = (folder / "data" / "index").iterdir()
    index.rename(folder / "index.json")


def _open(folder: Path) -> None:
    """Opens the folder without an index, and reads every record."""
    with tempfile.TemporaryDirectory() as data_dir:
        source = open_folder(f"folder/{folder / 'pictures'}", data_dir)
        assert [source[i]["image"].shape[:2] for i in range(len(source))] == source.sizes()


def _open_with_index(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as data_dir:
        source = open_folder(f"folder/{folder / 'pictures'}", data_dir)
        (index,) = (Path(data_dir) / "index").iterdir()
        index.write_bytes((folder / "index.json").read_bytes())
        again = open_folder(f"folder/{folder / 'pictures'}", data_dir)
        assert again.fingerprint == source.fingerprint and again.sizes() == source.sizes()


def _open_images(folder: Path) -> None:
    images = ImageFolder(folder / "pictures", crop_to=4)
    assert len(list(images.read(range(len(images))))) == len(images)


def _format(extension: str) -> Callable[[Path], None]:
    return functools.partial(_pictures, caption=True, extension=extension)


READERS = {
    **{
        f"picture, {name}": Reader(_format(extensions[0]), f"pictures/03{extensions[0]}", _open)
        for name, extensions in IMAGE_FORMATS.items()
    },
    "picture with alpha": Reader(_alpha, "pictures/03.png", _open),
    "picture of --images": Reader(functools.partial(_pictures, caption=False), "pictures/03.png", _open_images),
    "caption file": Reader(functools.partial(_pictures, caption=True), "pictures/03.txt", _open),
    "metadata.jsonl": Reader(_lines, "pictures/metadata.jsonl", _open),
    "metadata.csv": Reader(_table, "pictures/metadata.csv", _open),
    "index of a folder": Reader(_index, "index.json", _open_with_index),
}
