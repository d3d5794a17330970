"""A folder of images to score: samples, or a real set without captions."""

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from absl import logging

from imagen_jax.data.image_files import LeftOut, describe_left_out, list_pictures
from imagen_jax.data.preprocess import full_image
from imagen_jax.data.records import EXTENSIONS, BadRecord, inspect_image, quiet_decoder, read_image
from imagen_jax.data.sources.base import fingerprint
from imagen_jax.errors import InputError
from imagen_jax.files import user_path
from imagen_jax.sampling.images import to_uint8

# More than this, and the distance is not one of the images that were meant.
MAX_BAD_FRACTION = 0.01
_THREADS = 4
# Images that are decoded ahead.
_AHEAD = 64


class ImageFolder:
    """The images below a folder, as `list_pictures` finds them, of one size or cropped and resized to one.

    Attributes:
      fingerprint: hex of a sha256 over the files' contents in this order; their names don't count.
      bad: (file, reason) of those that can't be read and are left out.
      size: (height, width) of all.
    """

    def __init__(self, root: Path, *, crop_to: int | None = None, files: Sequence[Path] | None = None):
        """Reads and decodes every image once, so that what is wrong is found before anything is computed.

        Args:
          crop_to: pixels to which the largest square of each is resized by area, as training sees images; None: they
            are of one size, and taken as they are.
          files: the images, in this order; None: all below the folder.

        Raises:
          InputError: no such folder, no images in it, more than 1% of them bad, or images of several sizes.
        """
        root = user_path(root)
        if not root.is_dir():
            raise InputError(f'"{root}" is no folder; expected one with {", ".join(EXTENSIONS)} images')
        left_out: list[LeftOut] = []
        if files is None:
            files, _, left_out = list_pictures(root)
        if not files:
            found = f" (left out: {describe_left_out(left_out)})" if left_out else ""
            raise InputError(f'no images in "{root}"{found}; expected {", ".join(EXTENSIONS)} files')
        with quiet_decoder(), ThreadPoolExecutor(_THREADS) as pool:
            results = list(pool.map(_inspect, files))
        self.bad = [(str(path), found) for path, found in zip(files, results, strict=True) if isinstance(found, str)]
        _report(root, left_out, self.bad, num_files=len(files))
        good = [(path, *found) for path, found in zip(files, results, strict=True) if not isinstance(found, str)]
        self._crop_to = crop_to
        self.size = (crop_to, crop_to) if crop_to else _one_size({path: size for path, _, size in good})
        self.fingerprint = fingerprint([f"crop_to={crop_to}"] if crop_to else [], [digest for _, digest, _ in good])
        self._files = [path for path, _, _ in good]

    def __len__(self) -> int:
        return len(self._files)

    def read(self, rows: range) -> Iterator[np.ndarray]:
        """See `ImageSet.read`. Raises InputError if a file has been removed or broken meanwhile."""
        files = self._files[rows.start : rows.stop]
        with ThreadPoolExecutor(_THREADS) as pool:
            for start in range(0, len(files), _AHEAD):
                yield from pool.map(self._decode, files[start : start + _AHEAD])

    def _decode(self, path: Path) -> np.ndarray:
        try:
            image = read_image(path)
        except (OSError, BadRecord) as error:
            raise InputError(f"{path} could be read before but not now ({error}); start again") from error
        return to_uint8(full_image(image, image_size=self._crop_to)) if self._crop_to else image


def _inspect(path: Path) -> tuple[str, tuple[int, int]] | str:
    """(sha256 of the file, size of the image), or why it can't be used."""
    try:
        digest, height, width = inspect_image(path)
    except OSError as error:
        return f"image can't be read: {error.strerror or error}"
    except BadRecord as error:
        return str(error)
    return digest, (height, width)


def _report(root: Path, left_out: list[LeftOut], bad: list[tuple[str, str]], *, num_files: int) -> None:
    if len(bad) > MAX_BAD_FRACTION * num_files:
        raise InputError(
            f'{len(bad)} of {num_files} images in "{root}" can\'t be used, for example {bad[0][0]} ({bad[0][1]}): '
            f"more than {MAX_BAD_FRACTION:.0%}; write them again, or remove them"
        )
    unused = left_out + [LeftOut(path, reason) for path, reason in bad]
    if unused:
        items = "1 item" if len(unused) == 1 else f"{len(unused)} items"
        num_used = num_files - len(bad)
        logging.warning('"%s": left out %s: %s; %d images are used', root, items, describe_left_out(unused), num_used)


def _one_size(sizes: dict[Path, tuple[int, int]]) -> tuple[int, int]:
    counts = Counter(sizes.values()).most_common()
    if len(counts) > 1:
        examples = [next(path for path, other in sizes.items() if other == size) for size, _ in counts[:2]]
        named = " and ".join(f"{path} ({sizes[path][0]} x {sizes[path][1]})" for path in examples)
        raise InputError(
            f"images of {len(counts)} sizes, such as {named}; expected one size, since the way to it changes every "
            "distance: crop and resize them first, as the other set was (--crop_to=256 does it to the reference)"
        )
    return counts[0][0]
