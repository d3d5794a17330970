"""Data sets: captioned images by index. A new one is a file here and a line in `SOURCES`."""

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from absl import logging

from imagen_jax.data.sources.base import Source
from imagen_jax.data.sources.emoji import open_emoji
from imagen_jax.data.sources.folder import open_folder
from imagen_jax.data.sources.tfds import open_tfds
from imagen_jax.errors import InputError
from imagen_jax.files import user_path
from imagen_jax.registry import did_you_mean, find, is_import_path

__all__ = ["SOURCES", "Source", "named_folder", "open_source", "own_opener"]

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
        or the path of a folder alone. A folder that has the name of a kind is "./emoji". An opener of the caller's own,
        as those of `SOURCES`, is "my_project.data:open_mine" or, with whatever it makes of it, "...:open_mine?MORE".
      data_dir: where data sets are built, looked for and indexed; "~" is the home folder.

    Raises:
      InputError: neither a kind nor a folder, or what the opener of this kind raises.
    """
    data_dir = str(user_path(data_dir))
    if named_folder(spec) is not None:
        return open_folder(f"folder/{spec}", data_dir)
    kind = _kind(spec)
    if own_opener(spec):
        return _open_own(own_opener(spec), spec, data_dir)
    if kind not in SOURCES:
        raise InputError(
            f'"{spec}" is neither a folder that is there nor a data set ({", ".join(SOURCES)}).'
            f"{did_you_mean(kind, SOURCES)}"
        )
    return SOURCES[kind](spec, data_dir)


def own_opener(spec: str) -> str:
    """Returns the import path of the opener of one's own that `spec` names, "" where it names none."""
    path = spec.partition("?")[0]
    return path if _kind(spec) not in SOURCES and is_import_path(path) else ""


def _open_own(path: str, spec: str, data_dir: str) -> Source:
    try:
        opener = find(SOURCES, path, what="data set")
    except InputError as error:
        raise InputError(f"{error}{did_you_mean(_kind(spec), SOURCES)}") from error
    wrong = f'"{path}" is no function that opens a data set, (spec, data_dir) -> Source'
    if not callable(opener):
        raise InputError(wrong)
    try:
        source = opener(spec, data_dir)
    except InputError:
        raise
    except Exception as error:  # the caller's own code, of every class
        raise InputError(f"{wrong}: {type(error).__name__}: {' '.join(str(error).split())[:300]}") from error
    if not all(hasattr(source, name) for name in ("spec", "fingerprint", "captions", "__len__", "__getitem__")):
        raise InputError(f"{wrong} (it returns {source!r:.80})")
    return source


def named_folder(spec: str) -> Path | None:
    """The folder that `spec` is the path of; None where it names a kind of data set, or no folder that is there.

    Raises:
      InputError: "~NAME" of nobody here.
    """
    if not spec:
        return None
    path = user_path(spec)
    if not os.path.isdir(path):  # which takes any text, unlike Path.is_dir
        return None
    if (kind := _kind(spec)) in SOURCES:
        logging.warning(
            '"%s" is the %s data set, although there is such a folder; for that write "./%s"', spec, kind, spec
        )
        return None
    return path


def _kind(spec: str) -> str:
    return re.split("[/:?]", spec, maxsplit=1)[0]
