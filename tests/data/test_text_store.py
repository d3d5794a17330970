import concurrent.futures
import dataclasses
import json
import pickle

import ml_dtypes
import numpy as np
import pytest

from imagen_jax.data import text_store
from imagen_jax.data.text_store import Manifest, TextStore, write_text_store
from imagen_jax.errors import InputError

WIDTH = 8
LENGTHS = (3, 1, 5, 2, 5, 4)
MANIFEST = Manifest(
    encoder_name="untrained test encoder",
    encoder_fingerprint="e" * 64,
    width=WIDTH,
    max_length=5,
    count=len(LENGTHS),
    source_spec="folder/é",
    source_fingerprint="f" * 64,
)


def embeddings():
    rng = np.random.default_rng(0)
    return [rng.normal(size=(n, WIDTH)).astype(ml_dtypes.bfloat16) for n in LENGTHS]


@pytest.fixture
def path(tmp_path):
    out = tmp_path / "deep" / "store"
    assert write_text_store(out, embeddings=iter(embeddings()), manifest=MANIFEST)
    return out


@pytest.fixture(params=["in memory", "on disk"])
def store(path, request, monkeypatch):
    if request.param == "on disk":
        monkeypatch.setattr(text_store, "_IN_MEMORY_BYTES", 0)
    return TextStore(path)


def test_what_is_written_is_read(store):
    assert len(store) == len(LENGTHS)
    for i, expected in enumerate(embeddings()):
        assert store[i].dtype == ml_dtypes.bfloat16
        np.testing.assert_array_equal(store[i], expected)
        np.testing.assert_array_equal(store[np.int64(i)], expected)
    assert (store.width, store.max_length) == (WIDTH, 5)
    assert store.manifest == MANIFEST
    assert (store.encoder_name, store.encoder_fingerprint) == (MANIFEST.encoder_name, MANIFEST.encoder_fingerprint)
    assert store.source_fingerprint == MANIFEST.source_fingerprint


def test_only_real_tokens_are_stored(path):
    payload = 2 * WIDTH * sum(LENGTHS)
    manifest_bytes = (path / "manifest.json").stat().st_size
    assert manifest_bytes < 1000
    assert len(list(path.iterdir())) == 2
    assert sum(TextStore(path)[i].nbytes for i in range(len(LENGTHS))) == payload


@pytest.mark.parametrize("index", [-1, len(LENGTHS)])
def test_an_index_outside_is_an_error(store, index):
    with pytest.raises(IndexError, match="text store of 6"):
        store[index]


def test_a_pickled_store_reads_the_same(store):
    copy = pickle.loads(pickle.dumps(store))
    np.testing.assert_array_equal(copy[2], store[2])


def test_threads_read_the_same(store):
    expected = embeddings()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for i, row in enumerate(pool.map(lambda i: store[i % 6], range(600))):
            np.testing.assert_array_equal(row, expected[i % 6])


def test_the_same_store_again_is_not_computed(path):
    def never():
        raise AssertionError("encoded again")
        yield

    renamed = dataclasses.replace(MANIFEST, source_spec="folder/./é", encoder_name="another name")
    before = (path / "manifest.json").read_bytes()
    assert write_text_store(path, embeddings=never(), manifest=renamed) is False
    assert (path / "manifest.json").read_bytes() == before


@pytest.mark.parametrize(
    ("field", "value"),
    [("encoder_fingerprint", "a" * 64), ("source_fingerprint", "b" * 64), ("max_length", 7), ("count", 2)],
)
def test_another_store_is_not_overwritten(path, field, value):
    changed = dataclasses.replace(MANIFEST, **{field: value})
    with pytest.raises(InputError, match=f"is another text store .*{field}"):
        write_text_store(path, embeddings=iter(embeddings()), manifest=changed)
    np.testing.assert_array_equal(TextStore(path)[0], embeddings()[0])


def test_a_folder_of_something_else_is_not_overwritten(tmp_path):
    (tmp_path / "thesis.txt").write_text("do not lose")
    with pytest.raises(InputError, match="is no text store"):
        write_text_store(tmp_path, embeddings=iter(embeddings()), manifest=MANIFEST)
    assert (tmp_path / "thesis.txt").read_text() == "do not lose"


def test_an_empty_folder_becomes_the_store(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    assert write_text_store(out, embeddings=iter(embeddings()), manifest=MANIFEST)
    assert len(TextStore(out)) == 6


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, RuntimeError])
def test_an_interruption_leaves_nothing(tmp_path, interruption):
    def broken():
        yield embeddings()[0]
        raise interruption

    with pytest.raises(interruption):
        write_text_store(tmp_path / "store", embeddings=broken(), manifest=MANIFEST)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (embeddings()[:3], "3 embeddings for a manifest of 6"),
        ([np.zeros((2, WIDTH), np.float32)], "expected bfloat16"),
        ([np.zeros((2, WIDTH + 1), ml_dtypes.bfloat16)], r"expected bfloat16 \[n,8\]"),
        ([np.zeros((6, WIDTH), ml_dtypes.bfloat16)], "6 tokens; expected 1 to 5"),
    ],
)
def test_embeddings_that_do_not_fit_the_manifest_are_refused(tmp_path, rows, message):
    with pytest.raises(ValueError, match=message):
        write_text_store(tmp_path / "store", embeddings=iter(rows), manifest=MANIFEST)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_store_names_the_command_that_makes_it(tmp_path):
    out = tmp_path / "none"
    command = f"python -m imagen_jax.precompute_text --encoder=DIR --data=SPEC --out={out}"
    with pytest.raises(InputError) as error:
        TextStore(out)
    assert command in str(error.value)


def damage_manifest(path):
    (path / "manifest.json").write_text("{")


def miss_a_field(path):
    fields = json.loads((path / "manifest.json").read_text())
    del fields["width"]
    (path / "manifest.json").write_text(json.dumps(fields))


def miscount(path):
    fields = json.loads((path / "manifest.json").read_text()) | {"count": 9}
    (path / "manifest.json").write_text(json.dumps(fields))


def truncate_records(path):
    records = path / "embeddings.array_record"
    records.write_bytes(records.read_bytes()[:-100])


def remove_records(path):
    (path / "embeddings.array_record").unlink()


def age(path):
    fields = json.loads((path / "manifest.json").read_text()) | {"format_version": 0}
    (path / "manifest.json").write_text(json.dumps(fields))


@pytest.mark.parametrize("damage", [damage_manifest, miss_a_field, miscount, truncate_records, remove_records, age])
def test_a_damaged_store_says_what_to_do(path, damage):
    damage(path)
    with pytest.raises(InputError, match=r"make it\s+again"):
        TextStore(path)
