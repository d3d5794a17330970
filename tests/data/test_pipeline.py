"""The input pipeline: determinism, sharding, resuming, and what pmap gets."""

import itertools
from typing import Any

import jax
import ml_dtypes
import numpy as np
import pytest
from absl import logging
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from imagen_jax.data import pipeline
from imagen_jax.data.pipeline import check_batch_size, make_dataset, pad_text, prefetch_to_devices
from imagen_jax.errors import InputError

NUM_RECORDS = 22
SIZES = {"image_size": 16, "low_res_size": 4, "crop_size": 8}


class NumberedSource:
    """Record i: a noise picture whose first token is i."""

    spec = "numbered"
    fingerprint = "f00d"

    def __init__(self, num_records: int = NUM_RECORDS):
        self._num_records = num_records
        self.num_decoded = 0

    def __len__(self):
        return self._num_records

    def __getitem__(self, index):
        self.num_decoded += 1
        image = np.random.default_rng(index).integers(0, 256, (20, 16, 3), dtype=np.uint8)
        return {"image": image, "caption": str(index)}

    def captions(self):
        return [str(i) for i in range(self._num_records)]


class NumberedStore:
    source_fingerprint = "f00d"

    def __init__(self, num_records: int = NUM_RECORDS):
        self._num_records = num_records

    def __len__(self):
        return self._num_records

    def __getitem__(self, index):
        return np.full((1 + index % 8, 3), index, ml_dtypes.bfloat16)


def make(source=None, store=None, **kwargs):
    source = NumberedSource() if source is None else source
    store = NumberedStore() if store is None else store
    arguments: dict[str, Any] = {"batch_size": 8, "max_tokens": 5, "seed": 0, **SIZES, **kwargs}
    return make_dataset(source, store, **arguments)


def take(dataset, count):
    return list(itertools.islice(iter(dataset), count))


def numbers(batches):
    return np.concatenate([batch["text_emb"][:, 0, 0].astype(int) for batch in batches])


def assert_same(batch, other):
    assert batch.keys() == other.keys()
    for name in batch:
        np.testing.assert_array_equal(np.asarray(batch[name]), np.asarray(other[name]), err_msg=name)


def test_shapes_and_types_are_the_contract():
    (batch,) = take(make(), 1)
    described = {name: (array.shape, array.dtype) for name, array in batch.items()}
    assert described == {
        "image": ((8, 8, 8, 3), np.float32),
        "low_res": ((8, 2, 2, 3), np.float32),
        "text_emb": ((8, 5, 3), ml_dtypes.bfloat16),
        "text_mask": ((8, 5), np.bool_),
    }
    assert abs(batch["image"]).max() <= 1
    (base,) = take(make(low_res_size=None, crop_size=None), 1)
    assert base["image"].shape == (8, 16, 16, 3) and "low_res" not in base


def test_text_is_padded_with_zeros_or_cut():
    embedding = np.arange(6, dtype=np.float32).reshape(3, 2).astype(ml_dtypes.bfloat16)
    padded, mask = pad_text(embedding, 5).values()
    np.testing.assert_array_equal(padded[:3], embedding)
    assert not padded[3:].astype(bool).any() and mask.tolist() == [True, True, True, False, False]
    cut, mask = pad_text(embedding, 2).values()
    np.testing.assert_array_equal(cut, embedding[:2])
    assert mask.all() and cut.dtype == ml_dtypes.bfloat16


def test_the_same_seed_gives_the_same_batches_for_any_number_of_threads():
    for batch, other in zip(take(make(), 6), take(make(num_threads=5), 6), strict=True):
        assert_same(batch, other)
    assert not np.array_equal(numbers(take(make(), 6)), numbers(take(make(seed=1), 6)))


def test_every_epoch_has_every_record_once_in_another_order():
    stream = numbers(take(make(), 11))  # 88 records: 4 epochs
    epochs = stream.reshape(4, NUM_RECORDS)
    assert all(sorted(epoch) == list(range(NUM_RECORDS)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_without_shuffling_the_order_is_the_sources():
    np.testing.assert_array_equal(numbers(take(make(shuffle=False), 11)), np.tile(np.arange(NUM_RECORDS), 4))


@pytest.mark.parametrize("process_count", [2, 4])
def test_the_global_batch_does_not_depend_on_the_number_of_processes(process_count):
    shards = [take(make(process_index=k, process_count=process_count), 7) for k in range(process_count)]
    for step, whole in enumerate(take(make(), 7)):
        joined = {name: np.concatenate([shard[step][name] for shard in shards]) for name in whole}
        assert_same(joined, whole)


def test_crops_differ_between_epochs_and_records():
    (batch,) = take(make(NumberedSource(1), NumberedStore(1), batch_size=16), 1)
    assert len({image.tobytes() for image in batch["image"]}) > 3


def test_images_are_decoded_once_if_they_fit_in_memory(monkeypatch):
    source = NumberedSource()
    kept = take(make(source, num_threads=1), 12)
    assert source.num_decoded == NUM_RECORDS
    monkeypatch.setattr(pipeline, "CACHE_BYTES", 1000)
    source = NumberedSource()
    decoded_again = take(make(source, num_threads=1), 12)
    assert source.num_decoded > 2 * NUM_RECORDS
    for batch, other in zip(kept, decoded_again, strict=True):
        assert_same(batch, other)


def test_resuming_continues_with_the_next_batch():
    straight = take(make(), 9)
    iterator = iter(make())
    for _ in range(4):
        next(iterator)
    resumed = iter(make())
    resumed.set_state(iterator.get_state())
    for batch in straight[4:]:
        assert_same(next(resumed), batch)


def prefetched(**kwargs):
    return prefetch_to_devices(iter(make(**kwargs)), sharding=over(jax.local_devices()[:1]), depth=3)


def over(devices):
    return NamedSharding(Mesh(np.array(devices), ("batch",)), PartitionSpec("batch"))


def test_resuming_through_the_prefetch_continues_after_the_batch_last_yielded():
    straight = take(make(), 9)
    iterator = prefetched()
    for _ in range(4):
        jax.block_until_ready(next(iterator))
    state = iterator.get_state()
    iterator.close()
    resumed = prefetched()
    next(resumed)  # the read-ahead of an iterator already in use is dropped
    resumed.set_state(state)
    for batch in straight[4:]:
        assert_same(jax.tree.map(lambda array: np.asarray(array)[0], next(resumed)), batch)
    resumed.close()


def test_pmap_takes_a_prefetched_batch_without_copying():
    devices = jax.local_devices()
    iterator = prefetch_to_devices(iter(make(batch_size=2 * len(devices))), sharding=over(devices))
    batch = next(iterator)
    assert batch["image"].shape == (len(devices), 2, 8, 8, 3)
    identity = jax.pmap(lambda batch: jax.tree.map(lambda array: array, batch), axis_name="data", donate_argnums=0)
    same = identity(batch)
    assert batch["image"].sharding.is_equivalent_to(same["image"].sharding, 5)
    with jax.transfer_guard("disallow"):
        identity(next(iterator))
    iterator.close()


@pytest.mark.parametrize(
    ("batch_size", "divisor", "nearest"), [(12, 8, "8 or 16"), (3, 8, "the nearest: 8"), (0, 2, "2"), (-5, 2, "2")]
)
def test_a_batch_size_that_does_not_divide_names_the_nearest(batch_size, divisor, nearest):
    with pytest.raises(InputError, match=f"batch size {batch_size} must be .*{divisor} devices.*{nearest}"):
        check_batch_size(batch_size, divisor, what="devices")


def test_bad_arguments_are_found_before_the_first_batch():
    with pytest.raises(InputError, match="4 processes; the nearest: 8 or 12"):
        make(batch_size=10, process_count=4)
    with pytest.raises(InputError, match="crop_size 6 must be a multiple"):
        make(crop_size=6)
    with pytest.raises(InputError, match='"numbered" has no records'):
        make(NumberedSource(num_records=0))


def test_a_store_for_another_source_is_refused():
    store = NumberedStore()
    store.source_fingerprint = "beef"
    for source, texts in ((NumberedSource(), store), (NumberedSource(NUM_RECORDS - 1), NumberedStore())):
        with pytest.raises(InputError, match=r'were not made for "numbered".*compute them again'):
            make_dataset(source, texts, image_size=8, batch_size=2, max_tokens=2, seed=0)


def test_an_error_in_a_record_reaches_the_consumer():
    class Broken(NumberedSource):
        def __getitem__(self, index):
            raise InputError("record 3 broke")

    iterator = prefetch_to_devices(iter(make(Broken())), sharding=over(jax.local_devices()[:1]))
    with pytest.raises(InputError, match="record 3 broke"):
        next(iterator)
    iterator.close()


class SizedSource(NumberedSource):
    """Its first records are smaller than the others."""

    spec = "folder/x"

    def __init__(self, sides: list[int] | None):
        super().__init__(NUM_RECORDS)
        self._sides = sides

    def __getitem__(self, index):
        return {**super().__getitem__(index), "file": f"{index}.png"}

    def sizes(self):
        return self._sides and [(side, side + 2) for side in self._sides]


@pytest.mark.parametrize(
    ("small", "line"),
    [
        (
            [15, 4, 8],
            '"folder/x": 3 of 22 pictures are smaller than 16 px and are enlarged, the smallest ("1.png", 4 x 6 px) 4 '
            "times; larger ones would teach more detail",
        ),
        (
            [12],
            '"folder/x": 1 of 22 pictures is smaller than 16 px and is enlarged, the smallest ("0.png", 12 x 14 px) '
            "1.33 times; larger ones would teach more detail",
        ),
    ],
)
def test_pictures_that_are_enlarged_are_counted_in_one_warning(monkeypatch, small, line):
    lines = []
    monkeypatch.setattr(logging, "warning", lambda message, *args: lines.append(message % args))
    source = SizedSource([*small, *[16] * (NUM_RECORDS - len(small))])
    for process in (0, 1):
        make(source, process_index=process, process_count=2)
    assert lines == [line]


def test_nothing_is_said_of_pictures_that_are_large_enough_or_of_unknown_size(monkeypatch):
    monkeypatch.setattr(logging, "warning", None)
    for source in (SizedSource([16] * NUM_RECORDS), SizedSource(None), NumberedSource()):
        make(source)
