"""The mains run as a user runs them: two of them can't be imported into one process, since both define --data."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from imagen_jax.data.sources import open_source
from imagen_jax.data.text_store import TextStore
from imagen_jax.errors import EXIT_BAD_INPUT
from imagen_jax.text.encoder import load_encoder

CAPTIONS = ["red apple", "green pear", "red apple", "blue sky over a very long road to the sea", "green pear"]


def run(root, main, *flags):
    command = [sys.executable, "-m", f"imagen_jax.{main}", f"--data=folder/{root / 'images'}"]
    return subprocess.run([*command, f"--data_dir={root / 'datasets'}", *flags], capture_output=True, text=True)


def precompute(root, *flags):
    return run(root, "precompute_text", f"--encoder={root / 'encoder'}", "--max_length=12", "--batch_size=2", *flags)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder with a folder data set, and its encoder."""
    path = tmp_path_factory.mktemp("run")
    (path / "images").mkdir()
    for i, caption in enumerate(CAPTIONS):
        Image.fromarray(np.full((8, 8, 3), 40 * i, np.uint8)).save(path / "images" / f"{i}.png")
        (path / "images" / f"{i}.txt").write_text(caption)
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
        emb, mask = encoder.encode([source[i]["caption"]])
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
