"""Readers of text stores."""

from collections.abc import Callable
from pathlib import Path

from imagen_jax.data.text_store import MANIFEST as MANIFEST_FILE
from imagen_jax.data.text_store import PARTIAL_MANIFEST, TextStore, read_manifest
from imagen_jax.data.text_store_writer import write_text_store
from tests.readers.reader import Reader
from tests.text_stores import MANIFEST, encode


def _write(folder: Path) -> None:
    write_text_store(folder, encode=encode, manifest=MANIFEST)


def _write_partial(folder: Path) -> None:
    write_text_store(folder, encode=encode, manifest=MANIFEST, host=1, num_hosts=2)


def _read(**options: int) -> Callable[[Path], object]:
    def read(folder: Path) -> object:
        store = TextStore(folder, **options)
        return [store[i] for i in range(len(store))]

    return read


READERS = {
    "manifest": Reader(_write, MANIFEST_FILE, _read()),
    "manifest of an incomplete store": Reader(_write_partial, PARTIAL_MANIFEST, read_manifest),
    "shard": Reader(_write, MANIFEST.shard_name(1), _read()),
    "shard, on disk": Reader(_write, MANIFEST.shard_name(0), _read(in_memory_bytes=0)),
}
