"""Computes the text embeddings of a data set once, so that training never runs the encoder.

python -m imagen_jax.precompute_text --encoder=DIR --data=SPEC --out=STORE

Running it again with the same encoder and data returns at once.
"""

import time
from collections.abc import Iterator

import numpy as np
from absl import flags

from imagen_jax import cli
from imagen_jax.data.sources import open_source
from imagen_jax.data.text_store import Manifest, write_text_store
from imagen_jax.errors import InputError
from imagen_jax.text.encoder import load_encoder

_ENCODER = flags.DEFINE_string("encoder", None, "Folder of the text encoder.", required=True)
_DATA = flags.DEFINE_string("data", None, "Data set, for example emoji:train or folder/PATH.", required=True)
_OUT = flags.DEFINE_string("out", None, "Folder of the store to write.", required=True)
_DATA_DIR = flags.DEFINE_string("data_dir", "datasets", "Where prepared data sets are kept.")
_MAX_LENGTH = flags.DEFINE_integer("max_length", 128, "Captions are cut to this many tokens.", lower_bound=2)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 64, "Captions a call of the encoder.", lower_bound=1)


def main() -> None:
    """Writes the store and prints one line about it."""
    start = time.perf_counter()
    encoder = load_encoder(_ENCODER.value, _MAX_LENGTH.value, batch_size=_BATCH_SIZE.value)
    source = open_source(_DATA.value, data_dir=_DATA_DIR.value)
    captions = source.captions()
    if not captions:
        raise InputError(f"--data={_DATA.value} has no examples")
    num_bytes = 0

    def counted() -> Iterator[np.ndarray]:
        nonlocal num_bytes
        for emb in encoder.encode_ragged(captions):
            num_bytes += emb.nbytes
            yield emb

    manifest = Manifest(
        encoder_name=encoder.name,
        encoder_fingerprint=encoder.fingerprint,
        width=encoder.width,
        max_length=encoder.max_length,
        count=len(captions),
        source_spec=source.spec,
        source_fingerprint=source.fingerprint,
    )
    if write_text_store(_OUT.value, embeddings=counted(), manifest=manifest):
        seconds = time.perf_counter() - start
        print(f"{_OUT.value}: {len(captions)} embeddings, {num_bytes / 1e6:.1f} MB, {seconds:.1f} s, by {encoder.name}")
    else:
        print(f"{_OUT.value}: already there, {len(captions)} embeddings by {encoder.name}")


if __name__ == "__main__":
    cli.run(main)
