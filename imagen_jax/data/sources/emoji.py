"""The emoji data set: about 3,800 pictures captioned like "red apple, openmoji style", built from pip packages."""

import dataclasses
import logging as std_logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from absl import logging

from imagen_jax import storage
from imagen_jax.data.sources.base import fingerprint
from imagen_jax.data.sources.tfds import decode_record, open_records, reading
from imagen_jax.errors import InputError
from imagen_jax.files import user_path
from imagen_jax.registry import lookup

SPLITS = {"train": "train", "test": "test"}
DEFAULT_RESOLUTION = 256
MIN_RESOLUTION, MAX_RESOLUTION = 8, 2048

# (Unicode group, Unicode subgroup) -> whether it belongs.
SUBSETS: Mapping[str, Callable[[str, str], bool]] = {
    "all": lambda group, subgroup: True,
    "food": lambda group, subgroup: group == "Food & Drink",
    "fruit": lambda group, subgroup: subgroup == "food-fruit",
    "nature": lambda group, subgroup: group == "Animals & Nature",
    "animals": lambda group, subgroup: subgroup.startswith("animal-"),
    "plants": lambda group, subgroup: subgroup.startswith("plant-"),
    "smileys": lambda group, subgroup: group == "Smileys & Emotion" and subgroup not in ("heart", "emotion"),
    "hearts": lambda group, subgroup: subgroup == "heart",
    "people": lambda group, subgroup: group == "People & Body",
    "travel": lambda group, subgroup: group == "Travel & Places",
    "vehicles": lambda group, subgroup: subgroup.startswith("transport-") and group == "Travel & Places",
    "activities": lambda group, subgroup: group == "Activities",
    "objects": lambda group, subgroup: group == "Objects",
    "clothing": lambda group, subgroup: subgroup == "clothing",
    "symbols": lambda group, subgroup: group == "Symbols",
    "flags": lambda group, subgroup: group == "Flags",
}


@dataclasses.dataclass(frozen=True)
class EmojiSpec:
    """ "emoji[/RESOLUTION][/SUBSET][:SPLIT]", parsed."""

    resolution: int = DEFAULT_RESOLUTION
    subset: str = "all"
    split: str = "train"


class EmojiSource:
    """See `open_emoji`. Records: image, caption, name, style, group, subgroup."""

    def __init__(self, spec: str, records: Any, keep: Callable[[str, str], bool], *, identity: str):
        """`records`: a tfds data source; `identity`: the name of what was built, with its resolution."""
        self.spec = spec
        self._records = records
        texts = [{key: value.decode() for key, value in record.items() if key != "image"} for record in records]
        self._indices = [i for i, text in enumerate(texts) if keep(text["group"], text["subgroup"])]
        self._captions = [texts[i]["caption"] for i in self._indices]
        self._texts = texts
        self.fingerprint = fingerprint(self._captions, [identity])

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> dict[str, Any]:
        i = self._indices[index]
        with reading(f"{self.spec}, record {i}"):
            data = self._records[i]["image"]
        image = decode_record(data, where=f"{self.spec}, record {i}")
        return {"image": image, **self._texts[i]}

    def captions(self) -> list[str]:
        return list(self._captions)


def parse_emoji_spec(spec: str) -> EmojiSpec:
    """Parses "emoji[/RESOLUTION][/SUBSET][:SPLIT]", such as "emoji:test", "emoji/food" or "emoji/1024/food:train".

    Raises:
      InputError: a resolution out of range, an unknown subset or split, or a segment too many.
    """
    path, has_split, split = spec.partition(":")
    segments = path.split("/")[1:]
    parsed = EmojiSpec()
    if segments and segments[0].isdecimal():
        parsed = dataclasses.replace(parsed, resolution=int(segments.pop(0)))
        if not MIN_RESOLUTION <= parsed.resolution <= MAX_RESOLUTION:
            raise InputError(
                f'"{spec}": the resolution must be {MIN_RESOLUTION} to {MAX_RESOLUTION} (got {parsed.resolution})'
            )
    if segments:
        parsed = dataclasses.replace(parsed, subset=segments.pop(0))
        lookup(SUBSETS, parsed.subset, what="emoji subset")
    if segments:
        raise InputError(f'"{spec}" has a part too many; expected emoji[/RESOLUTION][/SUBSET][:SPLIT]')
    if has_split:
        parsed = dataclasses.replace(parsed, split=lookup(SPLITS, split, what="emoji split"))
    return parsed


def open_emoji(spec: str, data_dir: str) -> EmojiSource:
    """Opens "emoji[/RESOLUTION][/SUBSET][:SPLIT]", building the data set in `data_dir` the first time (25 s at 256 px).

    RESOLUTION is the side of the raster image (default 256), SUBSET one of `SUBSETS` (default all), SPLIT train or
    test. It is an ordinary tensorflow-datasets folder in ArrayRecord format (see `emoji_builder`). Processes that open
    it at once build it once; an interrupted build leaves nothing behind that would be taken for the data set.

    Raises:
      InputError: a bad spec (see `parse_emoji_spec`), the packages with the pictures are not installed, or what was
        built is damaged.
      StorageError: the disk is full or read-only, and the data set isn't there yet.
    """
    parsed = parse_emoji_spec(spec)
    with reading(spec):
        builder = _built(parsed.resolution, str(user_path(data_dir)))
        records = open_records(builder, parsed.split, spec=spec)
        # The size tells apart what other versions of the packages would build.
        identity = f"{builder.info.full_name}:{parsed.split}:{builder.info.splits[parsed.split].num_bytes}"
        return EmojiSource(spec, records, SUBSETS[parsed.subset], identity=identity)


def _built(resolution: int, data_dir: str) -> Any:
    try:
        import filelock

        from imagen_jax.data.sources import emoji_builder
    except ImportError as error:
        raise InputError(
            f'the emoji data set needs the package "{error.name}", which is not installed: pip install imagen_jax[demo]'
        ) from error

    # TFDS warns of every resolution that is none of the builder's named ones.
    std_logging.getLogger("absl").addFilter(_is_not_about_configurations)
    builder = emoji_builder.Emoji.at(resolution, data_dir=data_dir)
    if builder.data_path.exists():  # whole, since TFDS renames it when it is; and a read-only disk takes no lock
        return builder
    try:
        with storage.writing(str(builder.data_path)):
            Path(data_dir).mkdir(parents=True, exist_ok=True)
            with filelock.FileLock(Path(data_dir) / f".emoji-{resolution}px.lock"):
                # Another process may have built it meanwhile, which a builder finds when it is made.
                builder = emoji_builder.Emoji.at(resolution, data_dir=data_dir)
                if not builder.data_path.exists():
                    _build(builder, resolution)
    except (PermissionError, FileExistsError, NotADirectoryError) as error:
        raise InputError(
            f'the emoji data set can\'t be built in "{data_dir}" ({error.strerror}); choose another --data_dir'
        ) from error
    return builder


def _is_not_about_configurations(record: std_logging.LogRecord) -> bool:
    return not str(record.msg).startswith("Using custom data configuration")


def _build(builder: Any, resolution: int) -> None:
    import tensorflow_datasets as tfds

    logging.info(
        "building the emoji data set at %d px in %s, once: about half a minute up to 256 px, minutes above",
        resolution,
        builder.data_path,
    )
    tfds.disable_progress_bar()
    config = tfds.download.DownloadConfig(try_download_gcs=False, compute_stats=tfds.download.ComputeStatsMode.SKIP)
    builder.download_and_prepare(download_config=config)
