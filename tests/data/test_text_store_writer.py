"""Writing a text store: interrupted and killed at any point, by several hosts, over something else."""

import concurrent.futures
import dataclasses
import json
import os
import resource
import shutil
import stat
import threading

import ml_dtypes
import numpy as np
import pytest

from imagen_jax.data.text_store import TextStore
from imagen_jax.data.text_store_writer import Progress, write_text_store
from imagen_jax.errors import InputError, StorageError
from tests.text_stores import LENGTHS, MANIFEST, WIDTH, contents, embeddings, encode

SPANS = [(0, 3), (3, 6), (6, 7)]  # of the three shards


class Recorder:
    """`encode` that notes what it was called for; `before_record(i)` is called before example i and after the last."""

    def __init__(self, before_record=lambda index: None):
        self.spans = []
        self._before_record = before_record

    def __call__(self, start, stop):
        self.spans.append((start, stop))
        return self._rows(start, stop)

    def _rows(self, start, stop):
        for index, emb in zip(range(start, stop), encode(start, stop), strict=True):
            self._before_record(index)
            yield emb
        self._before_record(stop)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The files of a store that was written without an interruption."""
    out = tmp_path_factory.mktemp("whole") / "store"
    assert write_text_store(out, encode=encode, manifest=MANIFEST) == Progress(3, 7, 0)
    return contents(out)


def test_a_store_is_its_shards_and_its_manifest(whole):
    assert sorted(whole) == [*(f"embeddings-0000{k}-of-00003.array_record" for k in range(3)), "manifest.json"]


def test_progress_is_told_after_every_shard(tmp_path):
    told = []
    write_text_store(tmp_path, encode=encode, manifest=MANIFEST, on_shard=told.append)
    assert told == [Progress(1, 3, 4), Progress(2, 6, 1), Progress(3, 7, 0)]


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("point", range(len(LENGTHS) + 1))
def test_an_interruption_at_any_record_keeps_the_shards_before_it(tmp_path, whole, point, interruption):
    def interrupt(index):
        if index == point:
            raise interruption

    with pytest.raises(interruption):
        write_text_store(tmp_path, encode=Recorder(interrupt), manifest=MANIFEST)
    num_whole = point // 3 if point < 7 else 2
    # At the end of a shard the interruption comes before it is complete.
    num_whole -= point in (3, 6)
    left = contents(tmp_path)
    assert set(left) == {"manifest.partial.json", *(MANIFEST.shard_name(k) for k in range(num_whole))}
    again = Recorder()
    write_text_store(tmp_path, encode=again, manifest=MANIFEST)
    assert again.spans == SPANS[num_whole:]
    assert contents(tmp_path) == whole


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """What a kill would leave before each record, after each shard's last one, and after each shard."""
    root = tmp_path_factory.mktemp("killed")
    out, copies = root / "store", []

    def copy(_):
        copies.append(shutil.copytree(out, root / f"copy{len(copies)}"))

    write_text_store(out, encode=Recorder(copy), manifest=MANIFEST, on_shard=copy)
    assert len(copies) == len(LENGTHS) + 2 * len(SPANS)
    return copies


@pytest.mark.parametrize("point", range(len(LENGTHS) + 2 * len(SPANS)))
def test_after_a_kill_at_any_point_the_rest_is_made_and_nothing_else(killed, whole, point):
    out = killed[point]
    missing = [k for k in range(3) if not (out / MANIFEST.shard_name(k)).exists()]
    with pytest.raises(InputError, match=f"incomplete: {3 - len(missing)} of 3"):
        TextStore(out)
    again = Recorder()
    assert write_text_store(out, encode=again, manifest=MANIFEST).shards_there == 3
    assert again.spans == [SPANS[k] for k in missing]
    assert contents(out) == whole


def test_after_a_kill_before_the_manifest_was_whole_all_is_made(tmp_path, whole):
    (tmp_path / "manifest.partial.json.partial-host0-77").write_text('{"enc')
    write_text_store(tmp_path, encode=encode, manifest=MANIFEST)
    assert contents(tmp_path) == whole


def test_a_host_removes_what_its_own_killed_runs_left_and_nothing_else(tmp_path):
    leftover = f"{MANIFEST.shard_name(2)}.partial-host"
    for name in ("1-77", "1-78", "0-77", "11-77"):
        (tmp_path / f"{leftover}{name}").write_bytes(b"half")
    write_text_store(tmp_path, encode=encode, manifest=MANIFEST, host=1, num_hosts=12)
    assert {name for name in contents(tmp_path) if "host" in name} == {f"{leftover}0-77", f"{leftover}11-77"}


@pytest.mark.parametrize("order", [(0, 1), (1, 0), (3, 0, 2, 1)])
def test_hosts_in_any_order_make_the_same_store_and_each_its_own_part(tmp_path, whole, order):
    spans, made = [], 0
    for host in order:
        recorder = Recorder()
        progress = write_text_store(tmp_path, encode=recorder, manifest=MANIFEST, host=host, num_hosts=len(order))
        assert recorder.spans == SPANS[host :: len(order)]
        spans += recorder.spans
        made += progress.num_made
        assert progress.shards_there == len(spans)
        assert (tmp_path / "manifest.json").exists() == (len(spans) == 3)
    assert made == 7
    assert contents(tmp_path) == whole


def test_hosts_at_the_same_time_make_the_same_store(tmp_path, whole):
    for attempt in range(10):
        barrier = threading.Barrier(4)

        def write(host, out=tmp_path / str(attempt), barrier=barrier):
            barrier.wait()
            return write_text_store(out, encode=encode, manifest=MANIFEST, host=host, num_hosts=4)

        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            results = list(pool.map(write, range(4)))
        assert max(result.shards_there for result in results) == 3
        assert contents(tmp_path / str(attempt)) == whole


def test_one_host_can_make_what_another_left_undone(tmp_path, whole):
    write_text_store(tmp_path, encode=encode, manifest=MANIFEST, host=1, num_hosts=2)
    rest = Recorder()
    write_text_store(tmp_path, encode=rest, manifest=MANIFEST)
    assert rest.spans == [SPANS[0], SPANS[2]]
    assert contents(tmp_path) == whole


def test_a_second_process_of_one_host_is_noticed(tmp_path, whole):
    second = Recorder()

    def start_another(index):
        if index == 2:
            write_text_store(tmp_path, encode=second, manifest=MANIFEST)

    with pytest.raises(InputError, match="another process writes this store as host 0"):
        write_text_store(tmp_path, encode=Recorder(start_another), manifest=MANIFEST)
    assert contents(tmp_path) == whole


def test_a_host_with_other_settings_that_starts_at_the_same_moment_is_noticed(tmp_path):
    other = dataclasses.replace(MANIFEST, encoder_fingerprint="a" * 64)

    def overwrite(index):
        if index == 4:
            (tmp_path / "manifest.partial.json").write_text(json.dumps(dataclasses.asdict(other)))

    with pytest.raises(InputError, match="is another text store"):
        write_text_store(tmp_path, encode=Recorder(overwrite), manifest=MANIFEST)
    assert set(contents(tmp_path)) == {"manifest.partial.json", MANIFEST.shard_name(0)}


def test_the_same_store_again_is_not_computed(tmp_path, whole):
    write_text_store(tmp_path, encode=encode, manifest=MANIFEST)
    renamed = dataclasses.replace(MANIFEST, source_spec="folder/./é", encoder_name="another name")
    never = Recorder()
    assert write_text_store(tmp_path, encode=never, manifest=renamed) == Progress(3, 0, 0)
    assert never.spans == []
    assert contents(tmp_path) == whole


@pytest.mark.parametrize("num_hosts", [1, 2])  # complete, incomplete
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("encoder_fingerprint", "a" * 64),
        ("tokenizer_fingerprint", "d" * 64),
        ("encoder_dtype", "bfloat16"),
        ("source_fingerprint", "b" * 64),
        ("max_length", 7),
        ("count", 2),
        ("dtype", "int8"),
        ("shard_size", 4),
    ],
)
def test_another_store_is_not_overwritten(tmp_path, num_hosts, field, value):
    write_text_store(tmp_path, encode=encode, manifest=MANIFEST, num_hosts=num_hosts)
    before = contents(tmp_path)
    changed = dataclasses.replace(MANIFEST, **{field: value})
    with pytest.raises(InputError, match=f"is another text store .*{field} .*, not {value}.*choose another --out, or"):
        write_text_store(tmp_path, encode=encode, manifest=changed)
    assert contents(tmp_path) == before


def test_an_old_store_is_not_overwritten(tmp_path):
    (tmp_path / "manifest.json").write_text('{"format_version": 1}')
    with pytest.raises(InputError, match="text store of format 1; this code reads 2: delete it and make it again"):
        write_text_store(tmp_path, encode=encode, manifest=MANIFEST)
    assert len(contents(tmp_path)) == 1


def test_a_folder_of_something_else_is_not_overwritten(tmp_path):
    (tmp_path / "thesis.txt").write_text("do not lose")
    for out in (tmp_path, tmp_path / "thesis.txt"):
        with pytest.raises(InputError, match="is no text store; choose another --out"):
            write_text_store(out, encode=encode, manifest=MANIFEST)
    assert contents(tmp_path) == {"thesis.txt": b"do not lose"}


def test_missing_folders_are_made(tmp_path, whole):
    write_text_store(tmp_path / "deep" / "store", encode=encode, manifest=MANIFEST)
    assert contents(tmp_path / "deep" / "store") == whole


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (np.zeros((2, WIDTH), np.float32), r"embedding 4 is float32 \(2, 8\); expected bfloat16 \[n,8\]"),
        (np.zeros((2, WIDTH + 1), ml_dtypes.bfloat16), r"expected bfloat16 \[n,8\]"),
        (np.zeros((6, WIDTH), ml_dtypes.bfloat16), "embedding 4 has 6 tokens; expected 1 to 5"),
        (np.zeros((0, WIDTH), ml_dtypes.bfloat16), "embedding 4 has 0 tokens"),
        (np.full((1, WIDTH), np.nan, ml_dtypes.bfloat16), "embedding 4 is not finite"),
    ],
)
def test_an_embedding_that_does_not_fit_is_refused_and_keeps_the_shards_before(tmp_path, row, message):
    rows = [*embeddings()[:4], row, *embeddings()[5:]]
    with pytest.raises(ValueError, match=message):
        write_text_store(tmp_path, encode=lambda start, stop: rows[start:stop], manifest=MANIFEST)
    assert set(contents(tmp_path)) == {"manifest.partial.json", MANIFEST.shard_name(0)}


@pytest.mark.parametrize(("difference", "count"), [(-1, 2), (1, 4)])
def test_a_wrong_number_of_embeddings_is_refused(tmp_path, difference, count):
    with pytest.raises(ValueError, match=f"{count} embeddings for the 3 examples from 0 on"):
        write_text_store(tmp_path, encode=lambda start, stop: encode(start, stop + difference), manifest=MANIFEST)
    assert set(contents(tmp_path)) == {"manifest.partial.json"}


def test_a_full_disk_is_one_error_and_the_next_run_goes_on(tmp_path):
    out, rng = tmp_path / "store", np.random.default_rng(0)
    large = [rng.normal(size=(100, 1024)).astype(ml_dtypes.bfloat16) for _ in range(2)]
    manifest = dataclasses.replace(MANIFEST, width=1024, max_length=100, count=2, shard_size=1)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))  # the system's "File too large", at a real write
    try:
        with pytest.raises(StorageError, match=r"embeddings-00000-of-00002.*run the same command again"):
            write_text_store(out, encode=lambda start, stop: large[start:stop], manifest=manifest)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in out.iterdir()] == ["manifest.partial.json"]
    write_text_store(out, encode=lambda start, stop: large[start:stop], manifest=manifest)
    np.testing.assert_array_equal(TextStore(out)[1], large[1])


def test_files_are_readable_as_the_umask_says(tmp_path):
    umask = os.umask(0o027)
    try:
        write_text_store(tmp_path / "store", encode=encode, manifest=MANIFEST)
    finally:
        os.umask(umask)
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "store").iterdir()} == {0o640}
