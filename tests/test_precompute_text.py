"""The mains run as a user runs them: two of them can't be imported into one process, since both define --data."""

import json
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from imagen_jax.data.sources import open_source
from imagen_jax.data.text_store import TextStore
from imagen_jax.errors import EXIT_BAD_INPUT, InputError
from imagen_jax.text.encoder import load_encoder
from tests.text_stores import contents

CAPTIONS = ["red apple", "green pear", "red apple", "blue sky over a very long road to the sea", "green pear"]


def command(root, main, *flags):
    main_with_data = [sys.executable, "-m", f"imagen_jax.{main}", f"--data=folder/{root / 'images'}"]
    return [*main_with_data, f"--data_dir={root / 'datasets'}", *flags]


def precompute_command(root, *flags):
    encoder = f"--encoder={root / 'encoder'}"
    return command(root, "precompute_text", encoder, "--max_length=12", "--batch_size=2", *flags)


def run(root, main, *flags):
    return subprocess.run(command(root, main, *flags), capture_output=True, text=True)


def precompute(root, *flags):
    return subprocess.run(precompute_command(root, *flags), capture_output=True, text=True)


def make_images(folder, captions):
    folder.mkdir()
    for i, caption in enumerate(captions):
        Image.fromarray(np.full((8, 8, 3), i % 256, np.uint8)).save(folder / f"{i:03d}.png")
        (folder / f"{i:03d}.txt").write_text(caption)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder with a folder data set, and its encoder."""
    path = tmp_path_factory.mktemp("run")
    make_images(path / "images", CAPTIONS)
    done = run(
        path, "untrained_encoder", f"--out={path / 'encoder'}", "--width=32", "--num_layers=1", "--vocab_size=60"
    )
    assert done.returncode == 0, done.stderr
    assert "untrained" in done.stdout
    assert done.stderr == ""
    return path


@pytest.fixture(scope="module")
def first(root):
    return precompute(root, f"--out={root / 'store'}")


def test_the_store_holds_what_the_encoder_gives_in_the_order_of_the_source(root, first):
    assert first.returncode == 0, first.stderr
    source = open_source(f"folder/{root / 'images'}", data_dir=str(root / "datasets"))
    encoder = load_encoder(root / "encoder", 12, batch_size=2)
    store = TextStore(root / "store")
    assert len(store) == len(source) == len(CAPTIONS)
    assert (store.encoder_fingerprint, store.source_fingerprint) == (encoder.fingerprint, source.fingerprint)
    for i in range(len(source)):
        emb, mask = encoder.encode([source[i]["caption"]]).values()
        np.testing.assert_array_equal(store[i], emb[0][mask[0]])


def test_one_line_says_what_was_written_and_warnings_count_what_was_cut(first):
    assert first.stdout.count("\n") == 1
    assert "5 embeddings" in first.stdout
    assert "untrained" in first.stdout
    assert "1 of 3 captions are longer than 12 tokens and were cut" in first.stderr


def test_running_again_says_that_it_is_there(root, first):
    again = precompute(root, f"--out={root / 'store'}")
    assert again.returncode == 0
    assert "already there, 5 embeddings" in again.stdout


def test_a_store_of_another_encoder_is_one_line_and_exit_code_2(root, first, tmp_path):
    fields = json.loads((root / "store" / "manifest.json").read_text()) | {"encoder_fingerprint": "0" * 64}
    (tmp_path / "manifest.json").write_text(json.dumps(fields))
    done = precompute(root, f"--out={tmp_path}")
    assert done.returncode == EXIT_BAD_INPUT
    assert "is another text store" in done.stderr
    assert done.stderr.count("\n") == 1


def test_hosts_write_their_parts_and_the_last_one_completes_the_store(root, first):
    out = root / "by_hosts"
    flags = (f"--out={out}", "--shard_size=2", "--num_hosts=2", "--store_dtype=int8")
    one = precompute(root, *flags, "--host=1")
    assert one.returncode == 0, one.stderr
    assert one.stdout == f"{out}: 1 of 3 shards are there; the others are the other hosts'\n"
    with pytest.raises(InputError, match="1 of 3 shards"):
        TextStore(out)

    other = precompute(root, *flags, "--host=0")
    assert "5 embeddings, 0.4 MB" in other.stdout
    assert re.search(r"^2 of 3 shards  \d+\.\d captions/s  \d:\d\d:\d\d left$", other.stderr, re.M)
    assert re.search(r"^3 of 3 shards  \d+\.\d captions/s  0:00:00 left$", other.stderr, re.M)
    bfloat16, int8 = TextStore(root / "store"), TextStore(out)
    assert int8.manifest.dtype == "int8"
    for i in range(len(CAPTIONS)):
        x, y = bfloat16[i].astype(float), int8[i].astype(float)
        assert np.abs(x - y).max() < np.abs(x).max() / 100


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--host=2", "--num_hosts=2"), "--host=2 --num_hosts=2: expected 0 <= host < num_hosts"),
        (("--num_hosts=0",), "--host=0 --num_hosts=0: expected"),
        (("--store_dtype=int4",), "--store_dtype=int4: expected one of bfloat16, int8"),
    ],
)
def test_a_bad_flag_is_one_line_and_exit_code_2(root, tmp_path, flags, message):
    done = precompute(root, f"--out={tmp_path / 'store'}", *flags)
    assert done.returncode == EXIT_BAD_INPUT
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "store").exists()


def test_a_killed_run_goes_on_to_the_same_bytes(root, tmp_path):
    (tmp_path / "encoder").symlink_to(root / "encoder")
    make_images(tmp_path / "images", [f"{i} red apples" for i in range(150)])
    out, whole = tmp_path / "store", tmp_path / "whole"
    killed = subprocess.Popen(
        precompute_command(tmp_path, f"--out={out}", "--shard_size=1"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    while not list(out.glob("*.array_record")):
        assert killed.poll() is None
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    there = {path.name: path.stat().st_mtime_ns for path in out.glob("*.array_record")}
    assert 1 <= len(there) < 150
    with pytest.raises(InputError, match=f"incomplete: {len(there)} of 150"):
        TextStore(out)

    for folder in (out, whole):
        done = precompute(tmp_path, f"--out={folder}", "--shard_size=1")
        assert done.returncode == 0, done.stderr
    assert contents(out) == contents(whole)
    assert len(TextStore(out)) == 150
    assert {name: (out / name).stat().st_mtime_ns for name in there} == there
