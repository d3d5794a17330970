"""The folder that `sample` writes: pictures of one run, never of two.

OUT/003_64.png      image 3 of the stage of 64 px
OUT/grid.png        the last stage's, labelled
OUT/samples.json    prompts, seed and settings: written last, so that a folder that has it is whole
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from imagen_jax import storage
from imagen_jax.errors import InputError
from imagen_jax.files import read_json, write_json
from imagen_jax.sampling.images import labelled_grid, save_png

RECORD = "samples.json"
# The record of a run that has begun to write, which the same command goes on with.
_BEGUN = "samples.unfinished.json"
_PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")


class SamplesFolder:
    """A folder for the pictures of one run."""

    def __init__(self, folder: Path, record: Mapping[str, Any], captions: Sequence[str], sizes: Sequence[int]):
        """Checks that nothing in the way is of another run; nothing is written yet.

        Args:
          folder: may exist.
          record: what the pictures depend on, JSON values; samples.json holds it.
          captions: the prompt of each image.
          sizes: of the stages that run.

        Raises:
          InputError: there are pictures of another run.
        """
        self._folder, self._captions, self._sizes = folder, list(captions), list(sizes)
        names = [[self._name(index, size) for size in sizes] for index in range(len(captions))]
        images = [
            {"index": index, "prompt": prompt, "files": files}
            for index, (prompt, files) in enumerate(zip(captions, names, strict=True))
        ]
        self._record = {**record, "images": images}
        self._check({"grid.png", *(file for files in names for file in files)})

    def begin(self) -> None:
        """Makes the folder, before the long part: one that can't be made is an error now.

        Raises:
          StorageError: the disk is full, read-only or gone.
        """
        with storage.writing(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
        if not (self._folder / RECORD).exists():
            write_json(self._folder / _BEGUN, self._record)

    def write(self, images: Mapping[int, np.ndarray]) -> None:
        """Writes the pictures, the grid and, last, the record.

        Args:
          images: uint8 [N,H,W,3] by size.

        Raises:
          StorageError: the disk is full, read-only or gone.
        """
        for size in self._sizes:
            for index, image in enumerate(images[size]):
                save_png(image, self._folder / self._name(index, size))
        last = list(images[self._sizes[-1]])
        grid = labelled_grid(last, self._captions, columns=min(4, len(last)))
        save_png(grid, self._folder / "grid.png")
        write_json(self._folder / RECORD, self._record)
        (self._folder / _BEGUN).unlink(missing_ok=True)

    @staticmethod
    def _name(index: int, size: int) -> str:
        return f"{index:03d}_{size}.png"

    def _check(self, written: set[str]) -> None:
        if self._folder.exists() and not self._folder.is_dir():
            raise InputError(f'--out: "{self._folder}" is no folder; choose another --out')
        if not self._folder.is_dir():
            return
        remedy = "choose another --out, or delete it"
        for name in (RECORD, _BEGUN):
            if not (self._folder / name).exists():
                continue
            there = read_json(self._folder / name, expected=f"what sample writes; {remedy}")
            if differing := _differing(there, self._record):
                raise InputError(
                    f'"{self._folder}" holds pictures of another run of sample (another {differing}); {remedy}'
                )
            return
        pictures = sorted(path.name for path in self._folder.iterdir() if path.suffix.lower() in _PICTURES)
        if pictures:
            what = "pictures" if written & set(pictures) or _is_ours(pictures[0]) else "other pictures"
            raise InputError(
                f'"{self._folder}" holds {what} already ({len(pictures)}, such as {pictures[0]}), which would be mixed '
                f"with this run's; {remedy}"
            )


def _is_ours(name: str) -> bool:
    return bool(re.fullmatch(r"\d{3,}_\d+\.png", name))


def _differing(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """Returns what differs first between two records, in words; "" where nothing does."""
    for key in sorted(there.keys() | here.keys()):
        if _plain(there.get(key)) != _plain(here.get(key)):
            return {"images": "list of prompts or of stages", "cascade_sha256": "state of the cascade"}.get(key, key)
    return ""


def _plain(value: Any) -> Any:
    """`value` as JSON gives it back."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
