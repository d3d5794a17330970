"""Opening the images that are measured and those they are compared with: folders of several kinds, data sets, files."""

import re
from pathlib import Path

from absl import logging

from imagen_jax import hosts
from imagen_jax.errors import InputError
from imagen_jax.evaluation.bounds import check_count
from imagen_jax.evaluation.data_images import open_images
from imagen_jax.evaluation.image_folder import ImageFolder
from imagen_jax.evaluation.image_sets import ImageSet
from imagen_jax.evaluation.output_folders import find_last_stage
from imagen_jax.evaluation.reference import REFERENCE_CACHE, Reference
from imagen_jax.files import user_path

# Of an image's side; larger ones are no samples of anything.
MOST_CROP_PX = 8192


def open_set(
    spec: str, *, data_dir: Path, image_size: int | None = None, crop_to: int | None = None
) -> tuple[ImageSet, str]:
    """Opens a folder of images, what `sample` or a sweep wrote (of that the last stage), or a data set.

    Args:
      spec: a path, "~" in it is the home folder, or a data set such as "emoji/food:test".
      data_dir: where prepared data sets are.
      image_size, crop_to: see `open_images`.

    Returns:
      The images, and a sentence on what of the folder was taken; "" where that is all.

    Raises:
      InputError: see `open_images` and `find_last_stage`.
    """
    path = user_path(spec)
    if not path.is_dir():
        return open_images(spec, data_dir=str(data_dir), image_size=image_size, crop_to=crop_to), ""
    found = find_last_stage(path)
    if found.files is not None:
        return ImageFolder(found.folder, crop_to=crop_to, files=found.files), found.said
    return open_images(str(found.folder), data_dir=str(data_dir), image_size=image_size, crop_to=crop_to), found.said


def open_reference(
    spec: str | None, *, image_size: int, shape: tuple[int, ...], crop_to: int | None, data_dir: Path
) -> Reference | None:
    """Opens real images to compare samples of `shape` with; None where none are given.

    Args:
      spec: an .npz of statistics, or see `open_set`; None: there are none.
      image_size: to which a data set's images are brought.
      shape: of a sample, [H,W,3].
      crop_to: of a folder's images, see `ImageFolder`.
      data_dir: where prepared data sets are, and references' features are kept.

    Raises:
      InputError: see `open_set`; `crop_to` out of bounds, or for what isn't cropped.
    """
    if crop_to is not None:
        check_count("--crop_to", crop_to, least=1, most=MOST_CROP_PX)
        if not spec:
            raise InputError(f"--crop_to={crop_to} is for a --reference folder, and none is given; leave it out")
    if not spec:
        return None
    if spec.endswith(".npz"):
        if crop_to:
            raise InputError("--crop_to is for folders of images, and statistics have none; leave it out")
        return Reference(user_path(spec))
    images, said = open_set(spec, data_dir=data_dir, image_size=image_size, crop_to=crop_to)
    if said:
        logging.info("the reference: %s", said)
    hosts.check_equal({"the reference": images.fingerprint})
    real = next(iter(images.read(range(1)))).shape
    if real != shape:
        logging.warning(
            "the samples are %s and the reference's images %s: the way to one size changes every distance (--crop_to)",
            *("{} x {}".format(*each[:2]) for each in (shape, real)),
        )
    return Reference(images, cache=data_dir / REFERENCE_CACHE)


def is_emoji(spec: str | None) -> bool:
    """Tells whether a data set's spec is of emoji: "emoji", "emoji/32/hearts:train"."""
    return spec is not None and re.split("[/:?]", spec, maxsplit=1)[0] == "emoji"
