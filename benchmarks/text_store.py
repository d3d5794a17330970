"""What a text store takes on disk, and what reading it takes beside a training step.

python -m benchmarks.text_store

Two sets of captions: the emoji demo's, by its encoder (`make demo` leaves it, or: python -m
imagen_jax.untrained_encoder --data=emoji/food:train --out=demo/encoder), and random embeddings as wide as T5-XXL's of
1,632 prompts (as many as PartiPrompts has) of 20 tokens on average.

Bytes a caption are beside float16 padded to 128 tokens. Times are of a batch of 32 drawn at random, read and padded to
128 tokens, the median of 15, from memory and from disk (files that were just written, so the system most likely has
them in its cache); the ratio is to a step of configs/emoji_base.py:demo on one device.
"""

import dataclasses
import hashlib
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np
from absl import flags

from configs import emoji_base
from imagen_jax import build, cli
from imagen_jax.data.pipeline import make_dataset, prefetch_to_devices, stack_text
from imagen_jax.data.sources import open_source
from imagen_jax.data.sources.base import Source
from imagen_jax.data.text_store import DTYPES, Manifest, TextStore
from imagen_jax.data.text_store_writer import write_text_store
from imagen_jax.text.encoder import load_encoder
from imagen_jax.training import parallel

_ENCODER = flags.DEFINE_string("encoder", "demo/encoder", "Folder of the encoder of the emoji captions.")

PADDED_TOKENS = 128
BATCH_SIZE = 32
NUM_PROMPTS, T5_XXL_WIDTH = 1_632, 4_096
RUNS = 15


@dataclasses.dataclass(frozen=True)
class _Captions:
    name: str
    width: int
    count: int
    encode: Callable[[int, int], Iterator[np.ndarray]]


def main() -> None:
    """Prints a table of sizes and one of times."""
    config = emoji_base.get_config("demo")
    source = open_source(config.data.source, data_dir=config.data.data_dir)
    captions = [_emoji(source), _random()]
    with tempfile.TemporaryDirectory() as folder:
        paths = {(c.name, dtype): _write(Path(folder), c, source, dtype) for c in captions for dtype in DTYPES}
        print(f"bytes a caption{'padded float16':>24}" + "".join(f"{dtype:>12}{'fewer':>9}" for dtype in DTYPES))
        for c in captions:
            print(_sizes(c, {dtype: paths[c.name, dtype] for dtype in DTYPES}))
        step_s = _step_seconds(config, source, TextStore(paths[captions[0].name, "bfloat16"]))
        print(f"\na training step of {BATCH_SIZE}: {1e3 * step_s:.1f} ms ({jax.devices()[0].device_kind})")
        for (name, dtype), path in paths.items():
            for where, in_memory_bytes in (("memory", 2**40), ("disk", 0)):
                read_s = _read_seconds(TextStore(path, in_memory_bytes=in_memory_bytes))
                line = f"{1e3 * read_s:.2f} ms a batch, {read_s / step_s:.4f} of a step"
                print(f"{name:14} {dtype:9} from {where:7} {line}")


def _emoji(source: Source) -> _Captions:
    encoder = load_encoder(_ENCODER.value, PADDED_TOKENS)
    texts = source.captions()
    return _Captions("emoji", encoder.width, len(texts), lambda start, stop: encoder.encode_ragged(texts[start:stop]))


def _random() -> _Captions:
    # Gamma with shape 4: mean 20, a tenth below 9 and a tenth above 33.
    lengths = np.random.default_rng(0).gamma(4, 5, NUM_PROMPTS).round().astype(int).clip(2, PADDED_TOKENS)

    def encode(start: int, stop: int) -> Iterator[np.ndarray]:
        for index in range(start, stop):
            emb = np.random.default_rng(index).standard_normal((lengths[index], T5_XXL_WIDTH), np.float32)
            yield emb.astype(ml_dtypes.bfloat16)

    return _Captions("random, 4096", T5_XXL_WIDTH, NUM_PROMPTS, encode)


def _write(folder: Path, captions: _Captions, source: Source, dtype: str) -> Path:
    nobody = hashlib.sha256(b"").hexdigest()
    manifest = Manifest(
        encoder_name="benchmark",
        encoder_fingerprint=nobody,
        tokenizer_fingerprint=nobody,
        encoder_dtype="float32",
        width=captions.width,
        max_length=PADDED_TOKENS,
        count=captions.count,
        source_spec=source.spec,
        source_fingerprint=source.fingerprint,
        dtype=dtype,
    )
    path = folder / captions.name / dtype
    write_text_store(path, encode=captions.encode, manifest=manifest)
    return path


def _sizes(captions: _Captions, paths: dict[str, Path]) -> str:
    padded = 2 * PADDED_TOKENS * captions.width
    line = f"{captions.name:15}{padded:24,}"
    for path in paths.values():
        size = sum(file.stat().st_size for file in path.iterdir()) / captions.count
        line += f"{size:12,.0f}{padded / size:8.1f}x"
    return line


def _step_seconds(config: Any, source: Source, store: TextStore) -> float:
    """Measures a training step of one device, with its batches ready."""
    devices = jax.local_devices()[:1]
    create = build.create(config, text_width=store.width)
    state = parallel.replicate(jax.jit(create)(jax.random.key(0))[0], devices)
    on_device = parallel.parallelise("pmap", build.step(config), devices, state)
    dataset = make_dataset(
        source,
        store,
        image_size=config.data.image_size,
        batch_size=BATCH_SIZE,
        max_tokens=config.data.max_tokens,
        seed=0,
    )
    iterator = prefetch_to_devices(iter(dataset), sharding=on_device.batch_sharding)
    batches = list(itertools.islice(iterator, 4))
    iterator.close()
    numbers = itertools.count()

    def run() -> None:
        nonlocal state
        state, _ = on_device.step(state, {}, batches[next(numbers) % len(batches)], jax.random.key(1))
        jax.block_until_ready(state)

    return _median_seconds(run)


def _read_seconds(store: TextStore) -> float:
    rng = np.random.default_rng(0)

    def run() -> None:
        stack_text([store[i] for i in rng.integers(len(store), size=BATCH_SIZE)], PADDED_TOKENS)

    return _median_seconds(run)


def _median_seconds(run: Callable[[], None]) -> float:
    run()
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


if __name__ == "__main__":
    cli.run(main)
