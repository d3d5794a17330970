"""Writing a text store, by one process or by one on each of several hosts, so that it may be killed at any moment.

A file is written under a name that carries the host's number, and renamed when it is whole; so what is under a final
name is never made again, and running the same command again goes on with the rest. Hosts share nothing but the folder.
"""

import contextlib
import dataclasses
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import ml_dtypes
import numpy as np
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from imagen_jax import storage
from imagen_jax.data.text_store import MANIFEST, PARTIAL_MANIFEST, Manifest, missing_shards, read_manifest
from imagen_jax.errors import InputError, StorageError
from imagen_jax.files import sync, sync_folder, user_path, write_text

_PARTIAL = ".partial-host"


class Progress(NamedTuple):
    """Of a store that is being written.

    Attributes:
      shards_there: how many are complete, of all hosts.
      num_made: examples that this call has written.
      num_left: examples that this host has still to write.
    """

    shards_there: int
    num_made: int
    num_left: int


def write_text_store(
    out: str | os.PathLike[str],
    *,
    encode: Callable[[int, int], Iterable[np.ndarray]],
    manifest: Manifest,
    host: int = 0,
    num_hosts: int = 1,
    on_shard: Callable[[Progress], None] | None = None,
) -> Progress:
    """Writes this host's missing shards, k with k % num_hosts == host, and completes the store if no other is missing.

    The bytes of a store don't depend on interruptions or on the number of hosts, if those of `encode` don't.

    Args:
      out: the store's folder; is made.
      encode: (start, stop) -> [n,D] bfloat16 with 1 <= n <= max_length, of the examples start..stop-1 in the source's
        order. Called once for each shard that this call makes.
      manifest: the same for all hosts, but for names.
      on_shard: called when a shard is complete.

    Returns:
      Where it stands: complete if `shards_there` is the manifest's num_shards; `num_made` is 0 if there was nothing
      to do.

    Raises:
      InputError: `out` holds something else, or another process writes it as the same host.
      ValueError: embeddings that don't fit the manifest.
      StorageError: the disk is full, read-only or gone; the shards that are complete stay, and the next call goes on.
    """
    assert 0 <= host < num_hosts, (host, num_hosts)
    out = user_path(out)
    _start(out, manifest, host=host)
    mine = [shard for shard in missing_shards(out, manifest) if shard % num_hosts == host]
    total = sum(len(manifest.examples(shard)) for shard in mine)
    num_made = 0
    for shard in mine:
        examples = manifest.examples(shard)
        _write_shard(out, shard, encode(examples.start, examples.stop), manifest, host=host)
        num_made += len(examples)
        if on_shard is not None:
            on_shard(Progress(_count_shards(out, manifest), num_made, total - num_made))
    shards_there = _count_shards(out, manifest)
    if shards_there == manifest.num_shards:
        _complete(out)
    return Progress(shards_there, num_made, 0)


def check_folder(out: str | os.PathLike[str]) -> Manifest | None:
    """The manifest of the store that `out` is, complete or not; None for an empty folder, or none.

    Raises:
      InputError: it's something else, or damaged.
    """
    out = user_path(out)
    if out.exists() and not out.is_dir():
        raise InputError(f'"{out}" exists and is no text store; choose another --out')
    # Listed before the manifest is looked for: another host may be starting the store meanwhile.
    names = os.listdir(out) if out.exists() else []
    there = read_manifest(out)
    if there is None and not all(_PARTIAL in name for name in names):
        raise InputError(f'"{out}" exists and is no text store; choose another --out')
    return there


def _start(out: Path, manifest: Manifest, *, host: int) -> None:
    """Makes the folder and its manifest, unless they are there, and removes what a killed run of this host left.

    Raises:
      InputError: `out` is something else than an empty folder or the store of `manifest`.
    """
    there = check_folder(out)
    if there is not None:
        _check_same(out, there, manifest)
    with storage.writing(out):
        out.mkdir(parents=True, exist_ok=True)
        for leftover in out.glob(f"*{_PARTIAL}{host}-*"):
            leftover.unlink(missing_ok=True)
        if there is None:
            text = json.dumps(dataclasses.asdict(manifest), indent=2, ensure_ascii=False) + "\n"
            partial = _partial(out / PARTIAL_MANIFEST, host=host)
            write_text(partial, text)
            partial.replace(out / PARTIAL_MANIFEST)
            sync_folder(out)


def _complete(out: Path) -> None:
    try:
        with storage.writing(out / MANIFEST):
            (out / PARTIAL_MANIFEST).replace(out / MANIFEST)
            sync_folder(out)
    except FileNotFoundError:  # another host was faster, or only a deleted shard was missing
        if not (out / MANIFEST).is_file():
            raise


def _write_shard(out: Path, shard: int, embeddings: Iterable[np.ndarray], manifest: Manifest, *, host: int) -> None:
    path = out / manifest.shard_name(shard)
    partial = _partial(path, host=host)
    try:
        _write_records(partial, embeddings, manifest, examples=manifest.examples(shard))
        # A host that started at the same moment with other settings may have replaced the manifest.
        there = read_manifest(out)
        if there is not None:
            _check_same(out, there, manifest)
        if not partial.exists():
            raise InputError(
                f'"{partial}" has gone: another process writes this store as host {host}; let it finish, or give each '
                "its own --host"
            )
        with storage.writing(path):
            with open(partial, "rb") as file:
                sync(file)
            partial.rename(path)
            sync_folder(out)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def _write_records(path: Path, embeddings: Iterable[np.ndarray], manifest: Manifest, *, examples: range) -> None:
    # One record a group, or a random read would decode its neighbours too; uncompressed, because the low bits of an
    # embedding are noise.
    with storage.writing(path):
        writer = ArrayRecordWriter(str(path), "group_size:1,uncompressed")
    count = 0
    try:
        for emb in embeddings:
            _check_embedding(emb, manifest, index=examples.start + count)
            with storage.writing(path):
                writer.write(_to_record(emb, manifest.dtype))
            count += 1
    finally:
        with storage.writing(path):
            writer.close()
    if path.exists():
        _check_written(path, count)
    if count != len(examples):
        raise ValueError(f"{count} embeddings for the {len(examples)} examples from {examples.start} on")


def _check_written(path: Path, count: int) -> None:
    """Raises StorageError unless the file has `count` records: the writer may not have said that the disk is full."""
    try:
        reader = ArrayRecordReader(str(path), options="readahead_buffer_size:0", file_reader_buffer_size=32768)
        there = reader.num_records()
        reader.close()
    except Exception as error:
        raise StorageError(f'can\'t write "{path}" whole; make space and run the same command again') from error
    if there != count:
        raise StorageError(f'can\'t write "{path}" whole; make space and run the same command again')


def _check_embedding(emb: np.ndarray, manifest: Manifest, *, index: int) -> None:
    if emb.dtype != ml_dtypes.bfloat16 or emb.ndim != 2 or emb.shape[1] != manifest.width:
        raise ValueError(f"embedding {index} is {emb.dtype} {emb.shape}; expected bfloat16 [n,{manifest.width}]")
    if not 1 <= len(emb) <= manifest.max_length:
        raise ValueError(f"embedding {index} has {len(emb)} tokens; expected 1 to {manifest.max_length}")
    if not np.isfinite(emb).all():
        raise ValueError(f"embedding {index} is not finite")


def _to_record(emb: np.ndarray, dtype: str) -> bytes:
    """`text_store`'s module docstring has the layout."""
    if dtype == "bfloat16":
        return emb.tobytes()
    x = emb.astype(np.float32)
    scale = np.abs(x).max(axis=1, keepdims=True) / np.float32(127)
    values = np.rint(x / np.where(scale > 0, scale, 1)).astype(np.int8)
    return scale.astype("<f4").tobytes() + values.tobytes()


def _partial(path: Path, *, host: int) -> Path:
    """The host's number says whose it is to delete; process ids are unique on one host only."""
    return path.with_name(f"{path.name}{_PARTIAL}{host}-{os.getpid()}")


def _count_shards(out: Path, manifest: Manifest) -> int:
    return manifest.num_shards - len(missing_shards(out, manifest))


def _check_same(out: Path, there: Manifest, manifest: Manifest) -> None:
    """Raises InputError unless the manifest that is `there` differs from `manifest` in names at most."""
    # A name or a spec may be spelled in two ways; the fingerprints are what they stand for.
    names = ("encoder_name", "source_spec")
    differing = [
        f"{field.name} {getattr(there, field.name)}, not {getattr(manifest, field.name)}"
        for field in dataclasses.fields(Manifest)
        if field.name not in names and getattr(there, field.name) != getattr(manifest, field.name)
    ]
    if differing:
        raise InputError(
            f'"{out}" is another text store ({there.encoder_name} on {there.source_spec}; {"; ".join(differing)}); '
            "choose another --out, or delete it"
        )
