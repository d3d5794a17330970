"""Data sets: captioned images by index. A new one is a file here and a line in `SOURCES`."""

import re
from collections.abc import Callable, Mapping

from imagen_jax.data.sources.base import Source
from imagen_jax.data.sources.emoji import open_emoji
from imagen_jax.data.sources.folder import open_folder
from imagen_jax.data.sources.tfds import open_tfds
from imagen_jax.files import user_path
from imagen_jax.registry import lookup

__all__ = ["SOURCES", "Source", "open_source"]

# kind -> (spec, data_dir) -> Source. What follows the kind in a spec is the opener's own grammar.
SOURCES: Mapping[str, Callable[[str, str], Source]] = {
    "emoji": open_emoji,
    "folder": open_folder,
    "tfds": open_tfds,
}


def open_source(spec: str, *, data_dir: str) -> Source:
    """Opens a data set.

    Args:
      spec: "emoji[/RESOLUTION][/SUBSET][:SPLIT]", "tfds/NAME[:SPLIT][?image=FEATURE&caption=FEATURE]", "folder/PATH"
        or the path of a folder alone.
      data_dir: where data sets are built, looked for and indexed.

    Raises:
      InputError: an unknown kind, or what the opener of this kind raises.
    """
    kind = re.split("[/:?]", spec, maxsplit=1)[0]
    if spec and kind not in SOURCES and user_path(spec).is_dir():
        return open_folder(f"folder/{spec}", data_dir)
    return lookup(SOURCES, kind, what="data source")(spec, data_dir)
