"""A small text store: seven examples in three shards."""

from collections.abc import Iterator
from pathlib import Path

import ml_dtypes
import numpy as np

from imagen_jax.data.text_store import Manifest

WIDTH = 8
LENGTHS = (3, 1, 5, 2, 5, 4, 1)
MANIFEST = Manifest(
    encoder_name="untrained test encoder",
    encoder_fingerprint="e" * 64,
    tokenizer_fingerprint="c" * 64,
    encoder_dtype="float32",
    width=WIDTH,
    max_length=5,
    count=len(LENGTHS),
    source_spec="folder/é",
    source_fingerprint="f" * 64,
    shard_size=3,
)


def embeddings() -> list[np.ndarray]:
    """[n,WIDTH] bfloat16 each."""
    rng = np.random.default_rng(0)
    return [rng.normal(size=(n, WIDTH)).astype(ml_dtypes.bfloat16) for n in LENGTHS]


def encode(start: int, stop: int) -> Iterator[np.ndarray]:
    """What `write_text_store` wants."""
    return iter(embeddings()[start:stop])


def contents(folder: Path) -> dict[str, bytes]:
    """All files by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}
