"""Text embeddings of a finite data set, computed once and read by index.

A store is a folder: `manifest.json`, and ArrayRecord files ("shards") of `shard_size` examples each, the last of what
remains, in the order of the data set. While shards are missing the manifest is named `manifest.partial.json`.
`text_store_writer` makes it.

An example is one record with its n real tokens; padding is not stored: captions use a tenth of the tokens that there is
room for. All is little-endian, and n follows from the record's length:

  bfloat16: [n,D] bfloat16; 2D bytes a token.
  int8:     [n] float32, each token's scale max|x| / 127, then [n,D] int8, round(x / scale); 4 + D bytes a token.
"""

import concurrent.futures
import dataclasses
import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from array_record.python.array_record_module import ArrayRecordReader

from imagen_jax import storage
from imagen_jax.errors import InputError, StorageError
from imagen_jax.files import read_json, user_path

FORMAT_VERSION = 2
MANIFEST = "manifest.json"
PARTIAL_MANIFEST = "manifest.partial.json"
DTYPES = ("bfloat16", "int8")
DEFAULT_SHARD_SIZE = 8192
# Up to here a store is held in memory: chosen by us, small beside the pictures that a pipeline holds.
_IN_MEMORY_BYTES = 256 * 2**20
# Each open shard is an open file, of which a process often may have 1,024. Opening one again costs half a millisecond.
_MAX_OPEN_SHARDS = 512
# Beyond these a manifest is damaged, or would make whoever believes it loop and allocate for hours.
_MAX_SIZES = {"width": 2**17, "max_length": 2**17, "count": 10**10, "shard_size": 10**10}
_MAX_SHARDS = 10**6
_MAX_MANIFEST_BYTES = 2**20
_OPENING_THREADS = 64  # on a shared file system opening a file is mostly waiting


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a store holds: `count` examples of [n,width], n <= max_length; by which encoder, of which data, and how.

    Raises:
      InputError: a field of another type, another dtype than `DTYPES`, a size out of range, or too many shards.
    """

    encoder_name: str
    encoder_fingerprint: str
    tokenizer_fingerprint: str
    encoder_dtype: str
    width: int
    max_length: int
    count: int
    source_spec: str
    source_fingerprint: str
    dtype: str = "bfloat16"
    shard_size: int = DEFAULT_SHARD_SIZE
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value, wanted = getattr(self, field.name), int if field.type is int else str
            if type(value) is not wanted:  # a bool is no int
                raise InputError(f"{field.name} {_short(value)}; expected {wanted.__name__}")
            if isinstance(value, str) and not _is_unicode(value):
                raise InputError(f"{field.name} {_short(value)}; expected text of whole characters")
        if self.dtype not in DTYPES:
            raise InputError(f"dtype {_short(self.dtype)}; expected one of {', '.join(DTYPES)}")
        for name, most in _MAX_SIZES.items():
            if not 1 <= getattr(self, name) <= most:
                raise InputError(f"{name} {_short(getattr(self, name))}; expected 1 to {most}")
        if self.num_shards > _MAX_SHARDS:
            raise InputError(
                f"count {self.count} by shard_size {self.shard_size} are {self.num_shards} files; expected at most "
                f"{_MAX_SHARDS}, so a larger shard_size"
            )

    @property
    def num_shards(self) -> int:
        """How many files the examples are in."""
        return -(-self.count // self.shard_size)

    @property
    def token_bytes(self) -> int:
        """Of a stored token."""
        return 2 * self.width if self.dtype == "bfloat16" else 4 + self.width

    def shard_name(self, shard: int) -> str:
        """The file of shard 0 <= `shard` < num_shards."""
        return f"embeddings-{shard:05d}-of-{self.num_shards:05d}.array_record"

    def examples(self, shard: int) -> range:
        """The indices of the examples in shard 0 <= `shard` < num_shards."""
        return range(shard * self.shard_size, min((shard + 1) * self.shard_size, self.count))


class TextStore:
    """Random access to a store. Threads may share it; a pickle of it is its path.

    `store[i]` is [n,D] bfloat16, the real tokens of example i, read-only; `len(store)` is the data set's.

    Attributes:
      path: its folder.
      width: D.
      max_length: the most tokens an example may have.
      encoder_name, encoder_fingerprint, source_fingerprint: as in the manifest.
      manifest: all of it.
    """

    def __init__(self, path: str | os.PathLike[str], *, in_memory_bytes: int = _IN_MEMORY_BYTES):
        """Opens the store at `path`.

        Args:
          in_memory_bytes: a store of at most this size, as bfloat16, is read and decoded here; of a larger one, every
            shard is opened and its records are counted.

        Raises:
          InputError: there is none (the message has the command that makes it), it is incomplete, or it is damaged. A
            record that is damaged is found when it is read.
        """
        self.path = user_path(path)
        self.manifest = self._read_complete_manifest()
        self.width = self.manifest.width
        self.max_length = self.manifest.max_length
        self.encoder_name = self.manifest.encoder_name
        self.encoder_fingerprint = self.manifest.encoder_fingerprint
        self.source_fingerprint = self.manifest.source_fingerprint
        self._in_memory_bytes = in_memory_bytes
        self._reader = functools.lru_cache(_MAX_OPEN_SHARDS)(functools.partial(_open_shard, self.path, self.manifest))
        shards = range(self.manifest.num_shards)
        with concurrent.futures.ThreadPoolExecutor(_OPENING_THREADS) as pool:
            stored_bytes = sum(pool.map(self._check, shards))
        small = stored_bytes / self.manifest.token_bytes * 2 * self.width <= in_memory_bytes
        self._rows: list[np.ndarray] | None = None
        if small:
            sizes = [len(self.manifest.examples(shard)) for shard in shards]
            self._rows = [row for shard, size in enumerate(sizes) for row in self._read(shard, range(size))]
            self._reader.cache_clear()  # closes the files

    def __len__(self) -> int:
        return self.manifest.count

    def __getitem__(self, index: int) -> np.ndarray:
        if not 0 <= index < len(self):
            raise IndexError(f"example {index} of a text store of {len(self)}")
        if self._rows is not None:
            return self._rows[index]
        shard, position = divmod(int(index), self.manifest.shard_size)
        return self._read(shard, [position])[0]

    def __reduce__(self) -> tuple[Any, ...]:
        return functools.partial(TextStore, in_memory_bytes=self._in_memory_bytes), (self.path,)

    def _read_complete_manifest(self) -> Manifest:
        manifest = read_manifest(self.path)
        if manifest is None:
            raise InputError(
                f'no text store at "{self.path}"; make it with: '
                f"python -m imagen_jax.precompute_text --encoder=DIR --data=SPEC --out={self.path}"
            )
        missing = missing_shards(self.path, manifest)
        if (self.path / PARTIAL_MANIFEST).exists():
            raise InputError(
                f'"{self.path}" is incomplete: {manifest.num_shards - len(missing)} of {manifest.num_shards} shards '
                "are there; run precompute_text again with the same flags: it goes on from there"
            )
        if missing:
            raise InputError(
                f'"{self.path / manifest.shard_name(missing[0])}" is missing ({len(missing)} of {manifest.num_shards} '
                "shards are); run precompute_text again with the same flags: it makes only what is missing"
            )
        return manifest

    def _check(self, shard: int) -> int:
        """Opens a shard and returns its size in bytes."""
        self._reader(shard)
        return (self.path / self.manifest.shard_name(shard)).stat().st_size

    def _read(self, shard: int, positions: Sequence[int]) -> list[np.ndarray]:
        reader = self._reader(shard)
        try:
            return [_from_record(record, self.manifest) for record in reader.read(positions)]
        except Exception as e:  # array_record raises whatever its parsers meet
            if storage.describe_failure(e):
                raise
            raise _damaged(self.path / self.manifest.shard_name(shard), _first_line(e)) from e


def read_manifest(path: Path) -> Manifest | None:
    """The manifest of the store at `path`, complete or not; None if there is none.

    Raises:
      InputError: it is damaged, or of another format.
    """
    # In this order, or it could be missed: whoever finishes a store renames the first to the second.
    for file in (path / PARTIAL_MANIFEST, path / MANIFEST):
        if not os.path.exists(file):
            continue
        try:
            fields = read_json(file, expected="a text store's manifest", max_bytes=_MAX_MANIFEST_BYTES)
            version = fields["format_version"]
            if type(version) is int and version != FORMAT_VERSION:
                raise _OtherFormatError(
                    f'"{path}" is a text store of format {_short(version)}; this code reads {FORMAT_VERSION}: delete '
                    "it and make it again"
                )
            return Manifest(**fields)
        except _OtherFormatError:
            raise
        except (ValueError, TypeError, KeyError) as e:
            if not os.path.exists(file):  # renamed meanwhile
                continue
            raise InputError(f'"{file}" is damaged; delete "{path}" and make it again: {_first_line(e)}') from e
    return None


class _OtherFormatError(InputError):
    """A store that is whole, of another version of this code."""


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half a surrogate pair, which no file and no terminal takes
        return False
    return True


def _short(value: Any) -> str:
    """`value` for a message."""
    if type(value) is int and value.bit_length() > 128:
        return "of 40 digits or more"
    return ascii(value)[:100]


def missing_shards(path: Path, manifest: Manifest) -> list[int]:
    """The shards of `manifest` that the folder `path` doesn't hold, in order."""
    there = set(os.listdir(path))  # one call, where shards may be thousands and the file system far away
    return [shard for shard in range(manifest.num_shards) if manifest.shard_name(shard) not in there]


def _open_shard(path: Path, manifest: Manifest, shard: int) -> ArrayRecordReader:
    file = path / manifest.shard_name(shard)
    try:
        # Nothing beyond a record is read: access is random.
        reader = ArrayRecordReader(str(file), options="readahead_buffer_size:0", file_reader_buffer_size=32768)
        count = reader.num_records()
    except Exception as e:  # array_record raises whatever its parsers meet
        if isinstance(e, StorageError) or storage.describe_failure(e):
            raise
        raise _damaged(file, _first_line(e)) from e
    if count != len(manifest.examples(shard)):
        raise _damaged(file, f"it holds {count} embeddings, not {len(manifest.examples(shard))}")
    return reader


def _damaged(file: Path, reason: str) -> InputError:
    return InputError(
        f'"{file}" is damaged; delete that file and run precompute_text again with the same flags: it makes only what '
        f"is missing ({reason})"
    )


def _from_record(record: bytes, manifest: Manifest) -> np.ndarray:
    """Decodes [n,D] bfloat16, read-only.

    Raises:
      ValueError: a record of no whole number of tokens, or of more than there may be.
    """
    num_tokens, rest = divmod(len(record), manifest.token_bytes)
    if rest or not 1 <= num_tokens <= manifest.max_length:
        raise ValueError(
            f"a record has {len(record)} bytes; expected 1 to {manifest.max_length} tokens of {manifest.token_bytes}"
        )
    if manifest.dtype == "bfloat16":
        return np.frombuffer(record, ml_dtypes.bfloat16).reshape(-1, manifest.width)
    scale = np.frombuffer(record, "<f4", num_tokens)
    values = np.frombuffer(record, np.int8, offset=scale.nbytes).reshape(num_tokens, manifest.width)
    emb = (values * scale[:, None]).astype(ml_dtypes.bfloat16)
    emb.flags.writeable = False
    return emb


def _first_line(e: Exception) -> str:
    # Messages of array_record may have bytes of the file in them.
    text = str(e).encode(errors="replace").decode()
    return (text.splitlines() or [type(e).__name__])[0][:200]
