"""Any prepared tensorflow-datasets data set that has an image and a caption. TensorFlow is not needed to read it."""

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import numpy as np

from imagen_jax import storage
from imagen_jax.data.records import BadRecord, clean_caption, decode_image
from imagen_jax.data.sources.base import fingerprint, load_index, save_index
from imagen_jax.errors import InputError, StorageError
from imagen_jax.files import user_path

IMAGE_FEATURES = ("image",)
CAPTION_FEATURES = ("caption", "captions", "text")
_GRAMMAR = 'expected tfds/NAME[:SPLIT][?image=FEATURE&caption=FEATURE], e.g. "tfds/coco_captions:train"'


class TfdsSource:
    """See `open_tfds`. Records: image, caption."""

    def __init__(self, spec: str, records: Any, index: dict[str, Any], *, image_feature: str, identity: str):
        """`index`: "captions" and, for each, the record that it belongs to ("indices")."""
        self.spec = spec
        self._records = records
        self._indices: list[int] = index["indices"]
        self._captions: list[str] = index["captions"]
        self._image_feature = image_feature
        self.fingerprint = fingerprint(self._captions, [identity, *map(str, self._indices)])

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Raises InputError for a damaged record, or an image that doesn't decode."""
        i = self._indices[index]
        with reading(f"{self.spec}, record {i}"):
            data = self._records[i][self._image_feature]
        image = decode_record(data, where=f"{self.spec}, record {i}")
        return {"image": image, "caption": self._captions[index]}

    def captions(self) -> list[str]:
        return list(self._captions)


def open_tfds(spec: str, data_dir: str) -> TfdsSource:
    """Opens "tfds/NAME[:SPLIT][?image=FEATURE&caption=FEATURE]", prepared in `data_dir` in ArrayRecord format.

    NAME may hold a config ("coco_captions/2014"); the newest version there is read. SPLIT is tfds's ("train",
    "validation[:10%]"; default train). Where the caption is a sequence (coco_captions has five for each
    image), the first one is taken. Records without a caption are left out. The captions are read once and kept in
    `data_dir`.

    Raises:
      InputError: a bad spec, a data set that isn't there in this format or is damaged, or features that don't fit.
    """
    name, split, features = _parse(spec)
    data_dir = str(user_path(data_dir))
    with reading(spec):
        return _open(spec, name, split, features, data_dir=data_dir)


@contextlib.contextmanager
def reading(where: str) -> Iterator[None]:
    """Makes one InputError of whatever TFDS and array_record raise at damaged files of a prepared data set.

    They raise what their parsers happen to meet (KeyError, ParseError, RuntimeError), so all of it is caught, but for
    failures of the disk. `where` is the data set, or a record of it.
    """
    try:
        yield
    except (InputError, StorageError):
        raise
    except Exception as error:
        if storage.describe_failure(error):
            raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise InputError(f'"{where}": the prepared data set is damaged ({reason}); prepare it again') from error


def _open(spec: str, name: str, split: str, features: dict[str, str], *, data_dir: str) -> TfdsSource:
    builder = _prepared(name, data_dir, spec=spec)
    image_feature = _choose_feature(builder, features.get("image"), IMAGE_FEATURES, what="image", spec=spec)
    caption_feature = _choose_feature(builder, features.get("caption"), CAPTION_FEATURES, what="caption", spec=spec)
    records = open_records(builder, split, spec=spec)
    # The size stands for the content, which would take hours to read.
    split_info = builder.info.splits[split]
    identity = f"{builder.info.full_name}:{split}:{len(records)}:{split_info.num_bytes}"
    signature = f"{identity}?{caption_feature}"
    index_path = Path(data_dir) / "index" / f"tfds-{hashlib.sha256(signature.encode()).hexdigest()[:16]}.json"
    index = load_index(index_path, signature)
    if index is None or not _is_index(index, num_records=len(records)):
        index = {"signature": signature, **_read_captions(records, caption_feature, spec=spec)}
        save_index(index_path, index)
    if not index["captions"]:
        raise InputError(f'"{spec}": none of its {len(records)} records has a text in "{caption_feature}"')
    return TfdsSource(spec, records, index, image_feature=image_feature, identity=identity)


def open_records(builder: Any, split: str, *, spec: str) -> Any:
    """Random access to a prepared builder's records, images as the bytes of their files, texts as bytes.

    Raises:
      InputError: no such split, or not in ArrayRecord format. `spec` is for the message.
    """
    import tensorflow_datasets as tfds

    images = {name: tfds.decode.SkipDecoding() for name, f in builder.info.features.items() if _is_image(f)}
    try:
        return builder.as_data_source(split, decoders=images)
    except NotImplementedError as error:
        raise InputError(
            f'"{spec}" is not in ArrayRecord format; prepare it with --file_format=array_record'
        ) from error
    except (ValueError, KeyError) as error:
        splits = ", ".join(builder.info.splits)
        raise InputError(f'"{spec}": no split "{split}"; choose from: {splits}') from error


def decode_record(data: Any, *, where: str) -> np.ndarray:
    """Decodes uint8 [H, W, 3]; raises InputError, with the record's place, for an image that doesn't decode."""
    if not isinstance(data, bytes):
        raise InputError(f'"{where}": the image is of type {type(data).__name__}; expected the bytes of an image file')
    try:
        return decode_image(data)
    except BadRecord as error:
        raise InputError(f"{where}: {error}; prepare the data set again") from error


def _parse(spec: str) -> tuple[str, str, dict[str, str]]:
    path, _, query = spec.partition("?")
    path, _, split = path.partition(":")
    name = path.removeprefix("tfds").removeprefix("/")
    features = dict(parse_qsl(query))
    if not name or set(features) - {"image", "caption"}:
        raise InputError(f'"{spec}" names no data set; {_GRAMMAR}')
    return name, split or "train", features


def _prepared(name: str, data_dir: str, *, spec: str) -> Any:
    from tensorflow_datasets.core import read_only_builder, registered

    try:
        # From the files alone: the data set's own code may need TensorFlow.
        return read_only_builder.builder_from_files(name, data_dir=data_dir)
    except (registered.DatasetNotFoundError, FileNotFoundError) as error:
        raise InputError(
            f'"{spec}": no prepared data set "{name}" in {data_dir}; prepare it there, with TensorFlow installed: '
            f"tfds build {name} --data_dir={data_dir} --file_format=array_record"
        ) from error


def _choose_feature(builder: Any, wanted: str | None, usual: tuple[str, ...], *, what: str, spec: str) -> str:
    features = list(builder.info.features)
    chosen = next((name for name in ([wanted] if wanted else usual) if name in features), None)
    if chosen is None:
        raise InputError(
            f'"{spec}": no {what} feature "{wanted or " or ".join(usual)}" among: {", ".join(features)}; {_GRAMMAR}'
        )
    return chosen


def _is_image(feature: Any) -> bool:
    import tensorflow_datasets as tfds

    return isinstance(feature, tfds.features.Image)


def _is_index(index: dict[str, Any], *, num_records: int) -> bool:
    captions, indices = index.get("captions"), index.get("indices")
    return (
        isinstance(captions, list)
        and isinstance(indices, list)
        and len(captions) == len(indices)
        and all(isinstance(caption, str) for caption in captions)
        and all(type(i) is int and 0 <= i < num_records for i in indices)
    )


def _read_captions(records: Any, feature: str, *, spec: str) -> dict[str, list]:
    captions, indices = [], []
    for i in range(len(records)):
        text = _first_text(records[i][feature])
        if not isinstance(text, bytes | str):
            raise InputError(
                f'"{spec}": "{feature}" of record {i} is of type {type(text).__name__}, no text; choose a feature of '
                "texts with ?caption=FEATURE"
            )
        try:
            captions.append(clean_caption(text))
        except BadRecord:
            continue
        indices.append(i)
    return {"captions": captions, "indices": indices}


def _first_text(value: Any) -> Any:
    """The first caption of a text, a sequence of texts, or a sequence of dicts with "text" (a dict of sequences)."""
    if isinstance(value, dict):
        value = value.get("text", "")
    is_sequence = isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.ndim > 0)
    if is_sequence:
        return value[0] if len(value) else ""
    return value
