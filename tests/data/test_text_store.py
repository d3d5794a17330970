"""Reading a text store, whole, incomplete and damaged."""

import concurrent.futures
import dataclasses
import gc
import json
import os
import pickle

import ml_dtypes
import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordReader

from imagen_jax.data import text_store
from imagen_jax.data.text_store import TextStore
from imagen_jax.data.text_store_writer import write_text_store
from imagen_jax.errors import InputError
from tests.text_stores import LENGTHS, MANIFEST, WIDTH, contents, embeddings, encode

IN_MEMORY, ON_DISK = {}, {"in_memory_bytes": 0}


@pytest.fixture(params=["bfloat16", "int8"])
def path(tmp_path, request):
    out = tmp_path / "deep" / "store"
    write_text_store(out, encode=encode, manifest=dataclasses.replace(MANIFEST, dtype=request.param))
    return out


@pytest.fixture(params=[IN_MEMORY, ON_DISK], ids=["in memory", "on disk"])
def store(path, request):
    return TextStore(path, **request.param)


def int8_error_bound(emb):
    """[n,D]: half a scale, and bfloat16's rounding of a value that is at most so much larger than x."""
    x = np.abs(emb.astype(np.float64))
    half_scale = x.max(axis=1, keepdims=True) / 127 / 2 * (1 + 1e-6)
    return half_scale + (x + half_scale) * 2**-8


def test_what_is_written_is_read(store):
    assert len(store) == len(LENGTHS)
    for i, expected in enumerate(embeddings()):
        assert store[i].dtype == ml_dtypes.bfloat16
        assert store[i].shape == expected.shape
        np.testing.assert_array_equal(store[i], store[np.int64(i)])
        if store.manifest.dtype == "bfloat16":
            np.testing.assert_array_equal(store[i], expected)
        else:
            assert (np.abs(store[i].astype(float) - expected.astype(float)) <= int8_error_bound(expected)).all()


def test_what_a_store_is_of_is_read(store):
    assert (store.width, store.max_length) == (WIDTH, 5)
    assert store.manifest == dataclasses.replace(MANIFEST, dtype=store.manifest.dtype)
    assert (store.encoder_name, store.encoder_fingerprint) == (MANIFEST.encoder_name, MANIFEST.encoder_fingerprint)
    assert store.source_fingerprint == MANIFEST.source_fingerprint


def test_in_memory_and_on_disk_are_the_same_and_read_only(path):
    memory, disk = TextStore(path, **IN_MEMORY), TextStore(path, **ON_DISK)
    for i in range(len(LENGTHS)):
        np.testing.assert_array_equal(memory[i], disk[i])
        for store in (memory, disk):
            with pytest.raises(ValueError, match="read-only"):
                store[i][0, 0] = 0


def test_int8_keeps_every_token_within_half_a_step_at_any_size(tmp_path):
    rng = np.random.default_rng(1)
    # From the smallest to the largest bfloat16, beside tokens of one value and of a single outlier.
    sizes = 10.0 ** rng.uniform(-38, 38, size=(200, 1))
    x = (rng.normal(size=(200, 64)) * sizes).astype(ml_dtypes.bfloat16)
    x[:3] = np.array([[0], [-1], [3.3e38]])
    x[3] = 0
    x[3, 5] = -4
    manifest = dataclasses.replace(MANIFEST, dtype="int8", width=64, max_length=200, count=1)
    write_text_store(tmp_path / "store", encode=lambda start, stop: [x], manifest=manifest)
    back = TextStore(tmp_path / "store")[0]
    assert (np.abs(back.astype(float) - x.astype(float)) <= int8_error_bound(x)).all()
    np.testing.assert_array_equal(back[0], 0)
    np.testing.assert_array_equal(back[3], x[3])


def test_records_have_the_documented_layout(path):
    shards = sorted(path.glob("*.array_record"))
    assert [shard.name for shard in shards] == [f"embeddings-0000{k}-of-00003.array_record" for k in range(3)]
    records = [record for shard in shards for record in ArrayRecordReader(str(shard)).read_all()]
    store = TextStore(path)
    for i, (record, emb) in enumerate(zip(records, embeddings(), strict=True)):
        if store.manifest.dtype == "bfloat16":
            assert record == emb.tobytes()
            continue
        assert len(record) == len(emb) * (4 + WIDTH)
        scale = np.frombuffer(record[: 4 * len(emb)], "<f4")
        np.testing.assert_array_equal(scale, np.abs(emb.astype(np.float32)).max(axis=1) / np.float32(127))
        values = np.frombuffer(record[4 * len(emb) :], np.int8).reshape(emb.shape)
        assert (np.abs(values.astype(int)).max(axis=1) == 127).all()
        np.testing.assert_array_equal((values * scale[:, None]).astype(ml_dtypes.bfloat16), store[i])


@pytest.mark.parametrize(("dtype", "times_fewer"), [("bfloat16", 4), ("int8", 8)])
def test_captions_take_a_fraction_of_padded_float16(tmp_path, dtype, times_fewer):
    count, num_tokens, width = 60, 20, 512
    manifest = dataclasses.replace(MANIFEST, dtype=dtype, width=width, max_length=128, count=count, shard_size=30)
    emb = np.ones((num_tokens, width), ml_dtypes.bfloat16)
    write_text_store(tmp_path / "store", encode=lambda start, stop: [emb] * (stop - start), manifest=manifest)
    on_disk = sum(map(len, contents(tmp_path / "store").values()))
    assert on_disk * times_fewer <= count * 128 * width * 2


@pytest.mark.parametrize("index", [-1, len(LENGTHS)])
def test_an_index_outside_is_an_error(store, index):
    with pytest.raises(IndexError, match="text store of 7"):
        store[index]


@pytest.mark.parametrize("where", [IN_MEMORY, ON_DISK])
def test_a_pickled_store_reads_the_same_in_the_same_way(path, where):
    store = TextStore(path, **where)
    data = pickle.dumps(store)
    assert len(data) < 500
    copy = pickle.loads(data)
    np.testing.assert_array_equal(copy[2], store[2])
    assert is_in_memory(copy) is is_in_memory(store) is (where == IN_MEMORY)


def is_in_memory(store):
    """Whether what is read is kept, not made at every reading."""
    return store[0] is store[0]


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_the_limit_of_memory_is_of_what_is_decoded(tmp_path, dtype):
    emb = np.ones((100, 512), ml_dtypes.bfloat16)
    manifest = dataclasses.replace(MANIFEST, dtype=dtype, width=512, max_length=100, count=20, shard_size=10)
    write_text_store(tmp_path, encode=lambda start, stop: [emb] * (stop - start), manifest=manifest)
    decoded_bytes = 20 * emb.nbytes
    assert not is_in_memory(TextStore(tmp_path, in_memory_bytes=decoded_bytes - 1))
    assert is_in_memory(TextStore(tmp_path, in_memory_bytes=decoded_bytes * 5 // 4))


def test_threads_read_the_same(store):
    expected = [store[i] for i in range(7)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for i, row in enumerate(pool.map(lambda i: store[i % 7], range(700))):
            np.testing.assert_array_equal(row, expected[i % 7])


def test_few_of_many_shards_are_open_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(text_store, "_MAX_OPEN_SHARDS", 2)
    write_text_store(tmp_path, encode=encode, manifest=dataclasses.replace(MANIFEST, shard_size=1))
    gc.collect()  # or a store of another test would close its files meanwhile
    before = len(os.listdir("/dev/fd"))
    store = TextStore(tmp_path, **ON_DISK)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for i, row in enumerate(pool.map(lambda i: store[i % 7], range(140))):
            np.testing.assert_array_equal(row, embeddings()[i % 7])
    assert len(os.listdir("/dev/fd")) == before + 2


def test_a_missing_store_names_the_command_that_makes_it(tmp_path):
    out = tmp_path / "none"
    command = f"python -m imagen_jax.precompute_text --encoder=DIR --data=SPEC --out={out}"
    with pytest.raises(InputError) as error:
        TextStore(out)
    assert command in str(error.value)


def test_an_incomplete_store_says_how_much_is_there(tmp_path):
    write_text_store(tmp_path, encode=encode, manifest=MANIFEST, host=1, num_hosts=2)
    with pytest.raises(InputError, match=r"is incomplete: 1 of 3 shards are there; run precompute_text again"):
        TextStore(tmp_path)


def change_manifest(path, **changes):
    """A change to None takes the field away."""
    fields = json.loads((path / "manifest.json").read_text()) | changes
    kept = {name: value for name, value in fields.items() if value is not None}
    (path / "manifest.json").write_text(json.dumps(kept))


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: (path / "manifest.json").write_text("{"),
        lambda path: (path / "manifest.json").write_text("[]"),
        lambda path: (path / "manifest.json").write_bytes(b"\xff"),
        lambda path: change_manifest(path, width=None),
        lambda path: change_manifest(path, colour="red"),
        lambda path: change_manifest(path, dtype="int4"),
        lambda path: change_manifest(path, shard_size=0),
        lambda path: change_manifest(path, format_version=1),
    ],
)
def test_without_its_manifest_a_store_is_to_be_made_again(path, damage):
    damage(path)
    with pytest.raises(InputError, match="make it again"):
        TextStore(path)


def test_an_old_store_names_both_formats(path):
    change_manifest(path, format_version=1, tokenizer_fingerprint=None, shard_size=None)
    with pytest.raises(InputError, match="text store of format 1; this code reads 2: delete it"):
        TextStore(path)


def remove(shard):
    shard.unlink()


def truncate(shard):
    shard.write_bytes(shard.read_bytes()[:-100])


def empty(shard):
    shard.write_bytes(b"")


def miscount(shard):
    """Shard 2 has one example, shard 1 three."""
    shard.write_bytes((shard.parent / MANIFEST.shard_name(2)).read_bytes())


def flip_a_bit_of_the_first_record(shard):
    data = bytearray(shard.read_bytes())
    payload = data.index(next(iter(ArrayRecordReader(str(shard)).read([0]))))
    data[payload] ^= 1
    shard.write_bytes(data)


@pytest.mark.parametrize("damage", [remove, truncate, empty, miscount, flip_a_bit_of_the_first_record])
@pytest.mark.parametrize("where", [IN_MEMORY, ON_DISK])
def test_of_a_damaged_shard_the_remedy_works_and_makes_only_that_one(path, damage, where):
    manifest = TextStore(path).manifest
    before, encoded = contents(path), []
    shard = path / manifest.shard_name(1)
    damage(shard)
    with pytest.raises(InputError, match="run precompute_text again with the same flags: it makes only what") as error:
        TextStore(path, **where)[3]
    assert str(shard) in str(error.value)
    assert ("delete that file" in str(error.value)) == shard.exists()

    shard.unlink(missing_ok=True)
    write_text_store(path, encode=lambda *span: encoded.append(span) or encode(*span), manifest=manifest)
    assert encoded == [(3, 6)]
    assert contents(path) == before


@pytest.mark.parametrize(("changes", "message"), [({"dtype": "float16"}, "bfloat16, int8"), ({"count": 0}, "count 0")])
def test_a_manifest_of_no_store_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(MANIFEST, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"count": 10**12},
        {"count": 10**400},
        {"count": 10**10, "shard_size": 1},
        {"width": 10**12},
        {"width": True},
        {"max_length": 5.0},
        {"shard_size": "3"},
        {"encoder_name": ["x"]},
        {"source_spec": "\ud800"},
        {"dtype": {}},
        {"format_version": "2"},
    ],
)
@pytest.mark.parametrize("name", ["manifest.json", "manifest.partial.json"])
def test_a_field_of_another_type_or_size_is_one_error(path, changes, name):
    change_manifest(path, **changes)
    (path / "manifest.json").rename(path / name)
    with pytest.raises(InputError, match=r"is damaged.*make it again") as error:
        TextStore(path)
    assert "\n" not in str(error.value) and len(str(error.value)) < 1000


@pytest.mark.parametrize("where", [IN_MEMORY, ON_DISK])
@pytest.mark.parametrize("changes", [{"width": WIDTH - 1}, {"width": 2 * WIDTH}, {"max_length": 2}])
def test_records_that_do_not_fit_the_manifest_are_an_error(path, where, changes):
    change_manifest(path, **changes)
    with pytest.raises(InputError, match=r"is damaged.*a record has \d+ bytes; expected 1 to"):
        [TextStore(path, **where)[i] for i in range(7)]


def test_a_store_is_found_in_the_home_folder(path, monkeypatch):
    monkeypatch.setenv("HOME", str(path.parent))
    assert len(TextStore(f"~/{path.name}")) == 7
