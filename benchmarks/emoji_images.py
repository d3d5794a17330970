"""The emoji data set in memory, as small as the package's own feature network sees it."""

import numpy as np
from PIL import Image

from imagen_jax.data.sources import open_source
from imagen_jax.evaluation.emoji_cnn import IMAGE_SIZE


def read_emoji(split: str, *, data_dir: str) -> tuple[np.ndarray, list[dict[str, str]]]:
    """Images uint8 [N,64,64,3], reduced as the network reduces them, and the records without their images.

    Raises:
      InputError: see `open_source`.
    """
    source = open_source(f"emoji:{split}", data_dir=data_dir)
    images, records = [], []
    for index in range(len(source)):
        record = source[index]
        image = Image.fromarray(record.pop("image")).resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC)
        images.append(np.asarray(image))
        records.append(record)
    return np.stack(images), records
