"""COCO's captions as prompts, and its images as reference, from the user's `captions_val2014.json`.

The file is {"images": [{"id", "file_name", ...}], "annotations": [{"id", "image_id", "caption"}], ...}. What is drawn
doesn't depend on its order.
"""

from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import logging

from imagen_jax.errors import InputError
from imagen_jax.evaluation.bounds import check_count
from imagen_jax.evaluation.prompts.prompt_lists import PromptList
from imagen_jax.files import read_json, user_path
from imagen_jax.json_values import is_text

READINGS = ("captions", "images")
_EXPECTED = 'COCO\'s captions, such as captions_val2014.json, an object with "images" and "annotations"'


# The largest of COCO's, captions_train2014.json, has 66 MB; parsed it takes ten times as much memory.
_MAX_BYTES = 90 * 2**20
_MOST_ID = 2**53


class _Caption(NamedTuple):
    id: int
    image_id: int
    text: str


def read_coco(annotations: Path, *, reading: str, count: int = 30_000, seed: int) -> PromptList:
    """Draws captions without replacement; with one seed, fewer of them are the first of more.

    The paper's 30k random captions of the validation set (Imagen, arXiv 2205.11487) can be read in two ways, and the
    distances of the two differ: see `reading`.

    Args:
      reading: "captions" draws from all captions, so that an image may be drawn more than once; "images" draws
        images, and one caption of each.
      count: of prompts.

    Raises:
      InputError: no such file, not JSON, not COCO's, an empty caption, an unknown reading, or fewer captions or images
        with captions than `count`.
    """
    annotations = user_path(annotations)
    if reading not in READINGS:
        raise InputError(f'unknown reading "{reading}" of COCO; choose from: {", ".join(READINGS)}')
    check_count("count", count, least=1)
    check_count("seed", seed, least=0)
    captions, num_images = _load(annotations)
    of_image: dict[int, list[_Caption]] = {}
    for caption in captions:
        of_image.setdefault(caption.image_id, []).append(caption)
    of_each = [of_image[image_id] for image_id in sorted(of_image)]
    if reading == "images" and num_images > len(of_each):
        logging.info("%d of %d images have no caption, and are not drawn", num_images - len(of_each), num_images)
    there = len(captions) if reading == "captions" else len(of_each)
    if count > there:
        raise InputError(f'{count} {reading} asked of "{annotations}", which has {there}; expected 1 to {there}')
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(there)[:count]
    if reading == "captions":
        drawn = [captions[index] for index in chosen]
    else:
        which = rng.random(there)
        drawn = [of_each[index][int(which[index] * len(of_each[index]))] for index in chosen]
    return PromptList(
        f"coco{f'{count // 1000}k' if count % 1000 == 0 else count}-{reading}",
        prompts=tuple(caption.text for caption in drawn),
        categories=("",) * count,
        ids=tuple(str(caption.id) for caption in drawn),
    )


def _load(path: Path) -> tuple[list[_Caption], int]:
    """Captions, sorted by id, and the number of images."""
    content = read_json(path, expected=_EXPECTED, max_bytes=_MAX_BYTES)
    images = {
        _field(image, "id", int, path, "images", index) for index, image in enumerate(_list(content, "images", path))
    }
    captions = []
    for index, entry in enumerate(_list(content, "annotations", path)):
        text = " ".join(_field(entry, "caption", str, path, "annotations", index).split())
        key, image_id = (_field(entry, name, int, path, "annotations", index) for name in ("id", "image_id"))
        caption = _Caption(key, image_id, text)
        if not text:
            raise InputError(f'"{path}": caption {caption.id} is empty; remove it, or download the file again')
        if caption.image_id not in images:
            raise InputError(
                f'"{path}": caption {caption.id} is of image {caption.image_id}, which isn\'t among "images"'
            )
        captions.append(caption)
    twice = [key for key, times in Counter(caption.id for caption in captions).items() if times > 1]
    if twice:
        raise InputError(f'"{path}": caption {twice[0]} is there twice; download the file again')
    return sorted(captions), len(images)


def _list(content: dict[str, Any], key: str, path: Path) -> list[Any]:
    found = content.get(key)
    if not isinstance(found, list) or not found:
        raise InputError(f'"{path}" has no list "{key}" with anything in it; expected {_EXPECTED}')
    return found


def _field(entry: Any, key: str, kind: type, path: Path, what: str, index: int) -> Any:
    value = entry.get(key) if isinstance(entry, dict) else None
    usable = isinstance(value, kind) and not isinstance(value, bool)
    if isinstance(value, int) and not 0 <= value < _MOST_ID:
        usable = False
    if isinstance(value, str) and not is_text(value):
        usable = False
    if not usable:
        raise InputError(f'"{path}": {what}[{index}] has no "{key}" that can be used; expected {_EXPECTED}')
    return value
