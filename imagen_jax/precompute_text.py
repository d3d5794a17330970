"""Computes the text embeddings of a data set once, so that training never runs the encoder.

python -m imagen_jax.precompute_text --encoder=DIR|untrained --data=SPEC --out=STORE

--encoder=untrained makes an encoder of the captions first, as imagen_jax.untrained_encoder does, in STORE_encoder.
Running it again goes on with what is missing. Several hosts that share a file system
each write their part: the same command on all of them, with --host=0 to --host=3 and --num_hosts=4.
"""

import datetime
import time
from collections.abc import Sequence
from pathlib import Path

import jax
from absl import flags, logging

from imagen_jax import cli, shared_flags
from imagen_jax.data.sources import open_source
from imagen_jax.data.text_store import DEFAULT_SHARD_SIZE, DTYPES, Manifest
from imagen_jax.data.text_store_writer import Progress, check_folder, write_text_store
from imagen_jax.errors import InputError
from imagen_jax.terminal import say
from imagen_jax.text.encoder import load_encoder
from imagen_jax.text.untrained import write_untrained_encoder

_ENCODER = flags.DEFINE_string(
    "encoder", None, "Folder of the text encoder; untrained: make a small one in OUT_encoder.", required=True
)
_encoder_settings = shared_flags.define_encoder_flags()
_DATA = flags.DEFINE_string("data", None, "Data set, for example emoji:train or folder/PATH.", required=True)
_OUT = shared_flags.define_path("out", None, "The store is written to this folder.", required=True)
_DATA_DIR = shared_flags.define_path("data_dir", "datasets", "Prepared data sets are kept in this folder.")
_MAX_LENGTH = flags.DEFINE_integer(
    "max_length", 128, "Captions are cut to this many tokens.", lower_bound=2, upper_bound=2**17
)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 64, "Captions a call of the encoder.", lower_bound=1)
_STORE_DTYPE = flags.DEFINE_enum("store_dtype", DTYPES[0], DTYPES, "What is stored: int8 takes half as much.")
_SHARD_SIZE = flags.DEFINE_integer(
    "shard_size", DEFAULT_SHARD_SIZE, "Captions a file; a killed run loses at most so many.", lower_bound=1
)
_HOST = flags.DEFINE_integer(
    "host", None, "The number of this host, from 0, of --num_hosts. Default: JAX's process index."
)
_NUM_HOSTS = flags.DEFINE_integer("num_hosts", None, "Hosts that write this store. Default: JAX's process count.")

_UNTRAINED = "untrained"


def main() -> None:
    """Writes this host's part of the store and prints one line about it."""
    start = time.perf_counter()
    host, num_hosts = _host_and_num_hosts()
    source = open_source(_DATA.value, data_dir=str(_DATA_DIR.value))
    captions = source.captions()
    if not captions:
        raise InputError(f"--data={_DATA.value} has no examples")
    check_folder(_OUT.value)
    settings = _encoder_settings()
    if settings["devices"] is None:
        settings["devices"] = jax.local_devices()  # there is nothing else to do for them
    folder = _ENCODER.value if _ENCODER.value != _UNTRAINED else _make_encoder(captions)
    encoder = load_encoder(folder, _MAX_LENGTH.value, batch_size=_BATCH_SIZE.value, **settings)
    manifest = Manifest(
        encoder_name=encoder.name,
        encoder_fingerprint=encoder.fingerprint,
        tokenizer_fingerprint=encoder.tokenizer_fingerprint,
        encoder_dtype=encoder.dtype,
        width=encoder.width,
        max_length=encoder.max_length,
        count=len(captions),
        source_spec=source.spec,
        source_fingerprint=source.fingerprint,
        dtype=_STORE_DTYPE.value,
        shard_size=_SHARD_SIZE.value,
    )
    encoding_start = time.perf_counter()

    def log(progress: Progress) -> None:
        captions_per_s = progress.num_made / (time.perf_counter() - encoding_start)
        left = datetime.timedelta(seconds=round(progress.num_left / captions_per_s))
        logging.info(
            "%d of %d shards  %.1f captions/s  %s left",
            progress.shards_there, manifest.num_shards, captions_per_s, left,
        )  # fmt: skip

    progress = write_text_store(
        _OUT.value,
        encode=lambda start, stop: encoder.encode_ragged(captions[start:stop]),
        manifest=manifest,
        host=host,
        num_hosts=num_hosts,
        on_shard=log if manifest.num_shards > 1 else None,
    )
    say(f"{_OUT.value}: {_describe(progress, manifest, seconds=time.perf_counter() - start)}")


def _make_encoder(captions: Sequence[str]) -> Path:
    """Makes an untrained encoder beside the store, the same on all hosts, and returns its folder."""
    out = Path(_OUT.value)
    folder = out.with_name(f"{out.name}_encoder")
    write_untrained_encoder(captions, folder)
    say(f"{folder}: an untrained encoder; it tells these captions apart and knows nothing else")
    return folder


def _host_and_num_hosts() -> tuple[int, int]:
    host = jax.process_index() if _HOST.value is None else _HOST.value
    num_hosts = jax.process_count() if _NUM_HOSTS.value is None else _NUM_HOSTS.value
    if not 0 <= host < num_hosts:
        raise InputError(f"--host={host} --num_hosts={num_hosts}: expected 0 <= host < num_hosts")
    return host, num_hosts


def _describe(progress: Progress, manifest: Manifest, *, seconds: float) -> str:
    if progress.shards_there < manifest.num_shards:
        return f"{progress.shards_there} of {manifest.num_shards} shards are there; the others are the other hosts'"
    if not progress.num_made:
        return f"already there, {manifest.count} embeddings by {manifest.encoder_name}"
    num_bytes = sum(path.stat().st_size for path in Path(_OUT.value).glob("*.array_record"))
    return f"{manifest.count} embeddings, {num_bytes / 1e6:.1f} MB, {seconds:.1f} s, by {manifest.encoder_name}"


if __name__ == "__main__":
    cli.run(main)
