"""Text embeddings of a finite data set, computed once and read by index.

A store is a folder: `manifest.json` and an ArrayRecord file with one record an example, the bfloat16 bytes of its
[n,D] real tokens. Padding is not stored: captions use a tenth of the tokens that there is room for.
"""

import dataclasses
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from array_record.python.array_record_data_source import ArrayRecordDataSource
from array_record.python.array_record_module import ArrayRecordWriter

from imagen_jax.errors import InputError

_FORMAT_VERSION = 1
_MANIFEST = "manifest.json"
_RECORDS = "embeddings.array_record"
# Up to here a store is held in memory: chosen by us, small beside the pictures that a pipeline holds.
_IN_MEMORY_BYTES = 256 * 2**20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a store holds: `count` examples of [n,width] `dtype`, n <= max_length; by which encoder, of which data."""

    encoder_name: str
    encoder_fingerprint: str
    width: int
    max_length: int
    count: int
    source_spec: str
    source_fingerprint: str
    dtype: str = "bfloat16"
    format_version: int = _FORMAT_VERSION


def write_text_store(out: str | os.PathLike[str], *, embeddings: Iterable[np.ndarray], manifest: Manifest) -> bool:
    """Writes a store, whole or not at all.

    Args:
      out: the store's folder; is made.
      embeddings: `manifest.count` arrays [n,D] bfloat16 with 1 <= n <= max_length, in the source's order. Not touched
        if `out` is already this store.

    Returns:
      False if `out` was already a store with the same manifest (but for names), True if it was written.

    Raises:
      InputError: `out` holds something else.
      ValueError: `embeddings` don't fit the manifest.
    """
    out = Path(out)
    if _is_same(out, manifest):
        return False
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f"{out.name}.partial-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        _write_records(partial / _RECORDS, embeddings, manifest)
        text = json.dumps(dataclasses.asdict(manifest), indent=2, ensure_ascii=False) + "\n"
        (partial / _MANIFEST).write_text(text, encoding="utf-8")
        try:
            partial.rename(out)
        except OSError:  # another process was faster
            if not _is_same(out, manifest):
                raise
            return False
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return True


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

    def __init__(self, path: str | os.PathLike[str]):
        """Opens the store at `path`.

        Raises:
          InputError: there is none (the message has the command that makes it), or it is damaged.
        """
        self.path = Path(path)
        self.manifest = _read_manifest(self.path)
        self.width = self.manifest.width
        self.max_length = self.manifest.max_length
        self.encoder_name = self.manifest.encoder_name
        self.encoder_fingerprint = self.manifest.encoder_fingerprint
        self.source_fingerprint = self.manifest.source_fingerprint
        records = self.path / _RECORDS
        try:
            self._source = ArrayRecordDataSource([str(records)])
            count = len(self._source)
            small = records.stat().st_size <= _IN_MEMORY_BYTES
            self._rows = [self._to_array(r) for r in self._source.__getitems__(range(count))] if small else None
        except (OSError, RuntimeError, ValueError) as e:
            raise InputError(f'"{records}" is damaged; delete "{path}" and make it again: {_first_line(e)}') from e
        if count != self.manifest.count:
            raise InputError(
                f'"{path}" holds {count} embeddings, its manifest says {self.manifest.count}; delete it and make it '
                "again"
            )

    def __len__(self) -> int:
        return self.manifest.count

    def __getitem__(self, index: int) -> np.ndarray:
        if not 0 <= index < len(self):
            raise IndexError(f"example {index} of a text store of {len(self)}")
        return self._rows[index] if self._rows is not None else self._to_array(self._source[index])

    def __reduce__(self) -> tuple[Any, ...]:
        return TextStore, (self.path,)

    def _to_array(self, record: bytes) -> np.ndarray:
        return np.frombuffer(record, ml_dtypes.bfloat16).reshape(-1, self.width)


def _write_records(path: Path, embeddings: Iterable[np.ndarray], manifest: Manifest) -> None:
    # One record a group, or a random read would decode its neighbours too; uncompressed, because the low bits of an
    # embedding are noise.
    writer = ArrayRecordWriter(str(path), "group_size:1,uncompressed")
    count = 0
    try:
        for emb in embeddings:
            if emb.dtype != ml_dtypes.bfloat16 or emb.ndim != 2 or emb.shape[1] != manifest.width:
                raise ValueError(
                    f"embedding {count} is {emb.dtype} {emb.shape}; expected bfloat16 [n,{manifest.width}]"
                )
            if not 1 <= len(emb) <= manifest.max_length:
                raise ValueError(f"embedding {count} has {len(emb)} tokens; expected 1 to {manifest.max_length}")
            writer.write(emb.tobytes())
            count += 1
    finally:
        writer.close()
    if count != manifest.count:
        raise ValueError(f"{count} embeddings for a manifest of {manifest.count}")


def _is_same(out: Path, manifest: Manifest) -> bool:
    """Whether `out` is the store of `manifest`.

    Raises:
      InputError: it exists and is something else.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    if not (out / _MANIFEST).is_file():
        raise InputError(f'"{out}" exists and is no text store; choose another --out')
    there = _read_manifest(out)
    # A name or a spec may be spelled in two ways; the fingerprints are what they stand for.
    same_names = dataclasses.replace(there, encoder_name=manifest.encoder_name, source_spec=manifest.source_spec)
    if same_names == manifest:
        return True
    differing = [
        f"{f.name} {getattr(there, f.name)}, not {getattr(manifest, f.name)}"
        for f in dataclasses.fields(Manifest)
        if getattr(same_names, f.name) != getattr(manifest, f.name)
    ]
    raise InputError(
        f'"{out}" is another text store ({there.encoder_name} on {there.source_spec}; {"; ".join(differing)}); '
        "choose another --out, or delete it"
    )


def _read_manifest(path: Path) -> Manifest:
    file = path / _MANIFEST
    if not file.is_file():
        raise InputError(
            f'no text store at "{path}"; make it with: '
            f"python -m imagen_jax.precompute_text --encoder=DIR --data=SPEC --out={path}"
        )
    try:
        fields = json.loads(file.read_text(encoding="utf-8"))
        version = fields["format_version"]
        if version != _FORMAT_VERSION:
            raise InputError(
                f'"{path}" is a text store of format {version}; this code reads {_FORMAT_VERSION}: delete it and make '
                "it again"
            )
        return Manifest(**fields)
    except InputError:
        raise
    except (ValueError, TypeError, KeyError) as e:
        raise InputError(f'"{file}" is damaged; delete "{path}" and make it again: {_first_line(e)}') from e


def _first_line(e: Exception) -> str:
    return (str(e).splitlines() or [type(e).__name__])[0][:200]
