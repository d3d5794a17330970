"""From a source and its stored text embeddings to batches: infinite, reshuffled every epoch, deterministic, resumable.

Record positions count through all epochs: global batch number b holds positions [b * B, (b + 1) * B), and process k
its k-th contiguous block. So what a batch holds, and in which order, depends on the seed alone and not on the number of
processes.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import grain
import jax
import ml_dtypes
import numpy as np
from absl import logging

from imagen_jax.data.preprocess import check_sizes, full_image, stage_input
from imagen_jax.data.sources.base import Source
from imagen_jax.errors import InputError

# A data set whose images at the stage's size fit in this much memory is decoded once.
CACHE_BYTES = 1 << 30


class TextEmbeddings(Protocol):
    """What the pipeline needs of a text store: bfloat16 [number of tokens, D] by record."""

    source_fingerprint: str

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> np.ndarray: ...


def make_dataset(
    source: Source,
    text_store: TextEmbeddings,
    *,
    image_size: int,
    low_res_size: int | None = None,
    crop_size: int | None = None,
    batch_size: int,
    max_tokens: int,
    seed: int,
    process_index: int = 0,
    process_count: int = 1,
    shuffle: bool = True,
    num_threads: int = 2,
    rows: Sequence[int] | None = None,
    from_record: Callable[[Mapping[str, Any]], Mapping[str, np.ndarray]] | None = None,
) -> grain.IterDataset:
    """An infinite data set of this process's batches; `iter()` of it has get_state and set_state (a few bytes of JSON).

    Args:
      source: images and captions.
      text_store: embeddings of this source's captions.
      image_size, low_res_size, crop_size: see `preprocess.stage_input`; S = crop_size or image_size below.
      batch_size: of all processes together. A process gets B = batch_size / process_count records a batch.
      max_tokens: L. Shorter texts are padded with zeros, longer ones cut.
      seed: of the order and of the crops.
      shuffle: another order in every epoch; without it the source's order.
      num_threads: that decode ahead.
      rows: the records of `source` that are used; None: all.
      from_record: a source's record -> other arrays of an example, by name.

    Returns:
      A data set of dicts of numpy arrays: image float32 [B, S, S, 3] in [-1, 1], low_res (with `low_res_size`) float32
      [B, h, h, 3] in [-1, 1], text_emb bfloat16 [B, L, D], text_mask bool [B, L], and those of `from_record`.

    Says in one warning how many of a folder's pictures are smaller than `image_size`: enlarged ones teach a model blur.

    Raises:
      InputError: a store that was made for another source, an empty source, sizes that don't fit, a batch size that the
        processes don't divide.
    """
    check_sizes(image_size, low_res_size=low_res_size, crop_size=crop_size)
    check_batch_size(batch_size, process_count, what="processes")
    _check_store(source, text_store)
    if process_index == 0:
        _report_enlarged(source, image_size)
    images = _Images(source, image_size, from_record)
    used: Sequence[int] = range(len(source)) if rows is None else rows

    def load(position: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        record = used[position]
        image, others = images[record]
        stage = stage_input(image, low_res_size=low_res_size, crop_size=crop_size, rng=rng)
        return {**stage, **pad_text(text_store[record], max_tokens), **others}

    positions = grain.MapDataset.range(len(used)).seed(seed)
    if shuffle:
        positions = positions.shuffle()
    # Repeated before it is batched, so that batches run across the end of an epoch and no record is left out.
    records = positions.repeat().random_map(load)
    blocks = records.batch(batch_size // process_count)[process_index::process_count]
    return blocks.to_iter_dataset(grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=2 * num_threads))


def pad_text(embedding: np.ndarray, max_tokens: int) -> dict[str, np.ndarray]:
    """[n, D] -> text_emb bfloat16 [max_tokens, D], zero after the first n rows, and text_mask bool [max_tokens]."""
    num_tokens = min(len(embedding), max_tokens)
    padded = np.zeros((max_tokens, embedding.shape[1]), ml_dtypes.bfloat16)
    padded[:num_tokens] = embedding[:num_tokens]
    return {"text_emb": padded, "text_mask": np.arange(max_tokens) < num_tokens}


def stack_text(embeddings: Sequence[np.ndarray], max_tokens: int) -> dict[str, np.ndarray]:
    """N arrays [n, D] -> text_emb bfloat16 [N, max_tokens, D] and text_mask bool [N, max_tokens]."""
    padded = [pad_text(embedding, max_tokens) for embedding in embeddings]
    return {name: np.stack([each[name] for each in padded]) for name in padded[0]}


def check_batch_size(batch_size: int, divisor: int, *, what: str) -> None:
    """Raises InputError with the nearest valid sizes unless `divisor` (the number of `what`) divides `batch_size`."""
    if batch_size >= 1 and batch_size % divisor == 0:
        return
    below = max(batch_size, 0) // divisor * divisor
    nearest = " or ".join(str(size) for size in (below, below + divisor) if size > 0)
    raise InputError(
        f"batch size {batch_size} must be a positive multiple of the {divisor} {what}; the nearest: {nearest}"
    )


def prefetch_to_devices(
    iterator: grain.DatasetIterator, *, sharding: jax.sharding.NamedSharding, device_axis: bool = True, depth: int = 2
) -> grain.DatasetIterator:
    """Batches on this process's devices, made ready by a background thread `depth` batches ahead.

    get_state and set_state are those of the batch last yielded, not of the ones read ahead; the result is a grain
    iterator, so that `grain.checkpoint.CheckpointSave` takes it. Call `close()` at the end to stop the thread.

    Args:
      iterator: of `make_dataset`'s batches, leading dimension B. From here on the thread owns it.
      sharding: of the leading dimension. Over devices of other processes too, the result is the batch of all of them,
        of which each has given its part.
      device_axis: as `jax.pmap` wants them, so that it copies nothing.

    Returns:
      An iterator of dicts of jax.Array [B,...], or with `device_axis` [n, B / n, ...] for this process's n devices.

    Raises:
      InputError: with the first batch, if the devices don't divide B.
    """
    return grain.experimental.ThreadPrefetchDatasetIterator(
        _ToDevices(iterator, sharding, device_axis=device_axis), prefetch_buffer_size=depth
    )


class _ToDevices(grain.DatasetIterator):
    """Splits a batch over the devices."""

    def __init__(self, parent: grain.DatasetIterator, sharding: jax.sharding.NamedSharding, *, device_axis: bool):
        super().__init__(parent)
        self._sharding = sharding
        self._num_devices = len(sharding.addressable_devices)
        self._device_axis = device_axis

    def __next__(self) -> dict[str, jax.Array]:
        return {name: self._put(array) for name, array in next(self._parent).items()}

    def _put(self, array: np.ndarray) -> jax.Array:
        check_batch_size(len(array), self._num_devices, what="devices of this process")
        if self._device_axis:
            array = array.reshape(self._num_devices, -1, *array.shape[1:])
        return jax.make_array_from_process_local_data(self._sharding, array)

    def get_state(self) -> dict[str, Any]:
        return self._parent.get_state()

    def set_state(self, state: dict[str, Any]) -> None:
        self._parent.set_state(state)


class _Images:
    """float32 [S, S, 3] in [-1, 1] by record, and what `from_record` makes of it.

    Kept once decoded if all images fit in `CACHE_BYTES`.
    """

    def __init__(
        self,
        source: Source,
        image_size: int,
        from_record: Callable[[Mapping[str, Any]], Mapping[str, np.ndarray]] | None,
    ):
        self._source = source
        self._image_size = image_size
        self._from_record = from_record or (lambda record: {})
        self._kept: dict[int, tuple[np.ndarray, Mapping[str, np.ndarray]]] = {}
        self._keep = len(source) * image_size**2 * 3 * 4 <= CACHE_BYTES

    def __getitem__(self, record: int) -> tuple[np.ndarray, Mapping[str, np.ndarray]]:
        found = self._kept.get(record)
        if found is None:
            read = self._source[record]
            found = full_image(read["image"], image_size=self._image_size), self._from_record(read)
            num_bytes = found[0].nbytes + sum(array.nbytes for array in found[1].values())
            if self._keep and num_bytes * len(self._source) <= CACHE_BYTES:
                self._kept[record] = found
        return found


def _report_enlarged(source: Source, image_size: int) -> None:
    # An optional method of a source, () -> [(height, width)] of all records, or None: see `FolderSource.sizes`.
    sizes = getattr(source, "sizes", lambda: None)()
    if not sizes:
        return
    # Of a picture the largest square is used.
    sides = [min(size) for size in sizes]
    count = sum(side < image_size for side in sides)
    if not count:
        return
    smallest = int(np.argmin(sides))
    height, width = sizes[smallest]
    file = source[smallest].get("file")
    name = f'"{file}"' if isinstance(file, str) else f"record {smallest}"
    are = "is smaller than %d px and is" if count == 1 else "are smaller than %d px and are"
    logging.warning(
        f'"%s": %d of %d pictures {are} enlarged, the smallest (%s, %d x %d px) %.3g times; '
        "larger ones would teach more detail",
        source.spec, count, len(sizes), image_size, name, height, width, image_size / sides[smallest],
    )  # fmt: skip


def _check_store(source: Source, store: TextEmbeddings) -> None:
    if len(source) == 0:
        raise InputError(f'"{source.spec}" has no records')
    if store.source_fingerprint != source.fingerprint or len(store) != len(source):
        raise InputError(
            f"the stored text embeddings ({len(store)} texts of {store.source_fingerprint[:12]}) were not made for "
            f'"{source.spec}" ({len(source)} captions, {source.fingerprint[:12]}); compute them again'
        )
