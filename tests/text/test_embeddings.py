import errno
import os

import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from imagen_jax import files
from imagen_jax.errors import InputError, NotFiniteError, StorageError
from imagen_jax.text.embeddings import Embeddings

LENGTHS = (3, 1, 4)


@pytest.fixture
def text():
    rng = np.random.default_rng(0)
    return Embeddings(
        captions=("red apple", "", "\u7ea2\u82f9\u679c \U0001f34e"),
        tokens=tuple(rng.normal(size=(n, 8)).astype(ml_dtypes.bfloat16) for n in LENGTHS),
        max_length=4,
        encoder_name="t5-tiny",
        encoder_fingerprint="e" * 64,
    )


def test_what_is_saved_is_loaded(text, tmp_path):
    text.save(tmp_path / "deep" / "text.safetensors")
    loaded = Embeddings.load(tmp_path / "deep" / "text.safetensors")
    assert loaded.captions == text.captions
    assert (loaded.max_length, loaded.encoder_name, loaded.encoder_fingerprint) == (4, "t5-tiny", "e" * 64)
    for mine, other in zip(text.tokens, loaded.tokens, strict=True):
        assert other.dtype == ml_dtypes.bfloat16
        np.testing.assert_array_equal(other, mine)


def test_padding_is_zero_and_masked(text):
    emb, mask = text.padded().values()
    assert emb.shape == (3, 4, 8)
    assert emb.dtype == ml_dtypes.bfloat16
    assert mask.sum(axis=1).tolist() == list(LENGTHS)
    assert (emb[~mask] == 0).all()
    for row, tokens in enumerate(text.tokens):
        np.testing.assert_array_equal(emb[row][mask[row]], tokens)
    np.testing.assert_array_equal(text.padded([2, 0])["text_emb"], emb[[2, 0]])


def test_rows_are_taken_in_order_and_as_often_as_asked(text):
    taken = text.take([1, 1, 0])
    assert taken.captions == ("", "", "red apple")
    assert len(taken) == 3
    np.testing.assert_array_equal(taken.padded()["text_emb"], text.padded([1, 1, 0])["text_emb"])


def cut(path):
    path.write_bytes(path.read_bytes()[:-20])


def shorten_the_captions(path):
    data = path.read_bytes()
    assert b'\\"red apple\\", ' in data
    path.write_bytes(data.replace(b'\\"red apple\\", ', b" " * 15))


def replace(path):
    save_file({"tokens": np.zeros((2, 2))}, path)


def rewrite(**changes):
    """Writes it again with other arrays, or (as texts) other metadata."""

    def change(path):
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in ("tokens", "lengths")}
        tensors |= {name: value for name, value in changes.items() if not isinstance(value, str)}
        save_file(tensors, path, metadata | {name: value for name, value in changes.items() if isinstance(value, str)})

    return change


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut, "is damaged .*compute the embeddings again"),
        (replace, "not a file of text embeddings"),
        (None, "no file of"),
        (shorten_the_captions, "2 captions for 3 embeddings"),
        (rewrite(captions="[" * 100_000), "nested too deeply"),
        (rewrite(captions='{"red": 1}'), "its captions are no list of texts"),
        (rewrite(captions="[1, 2, 3]"), "its captions are no list of texts"),
        (rewrite(max_length="3"), "texts of up to 4 tokens, and a max_length of 3"),
        (rewrite(max_length="-4"), "a max_length of 0"),
        (rewrite(max_length="9" * 100), "is damaged"),
        (rewrite(tokens=np.zeros((8, 8), np.float32)), r"tokens is F32 \[8, 8\]"),
        (rewrite(tokens=np.zeros((8,), ml_dtypes.bfloat16)), r"tokens is BF16 \[8\]"),
        (rewrite(lengths=np.array([9, -2, 1], np.int32)), "do not fit them"),
        (rewrite(lengths=np.array([3.0, 1.0, 4.0], np.float32)), r"lengths is F32"),
        (rewrite(lengths=np.array([3, 1, 3], np.int32)), "do not fit them"),
    ],
)
def test_a_file_of_something_else_is_refused(text, tmp_path, damage, message):
    path = tmp_path / "text.safetensors"
    if damage:
        text.save(path)
        damage(path)
    with pytest.raises(InputError, match=message) as error:
        Embeddings.load(path)
    assert "\n" not in str(error.value)


def test_a_file_with_a_nan_is_one_error_that_names_the_prompt(text, tmp_path):
    tokens = np.concatenate(text.tokens)
    tokens[3, 0] = np.nan
    text.save(tmp_path / "text")
    rewrite(tokens=tokens)(tmp_path / "text")
    with pytest.raises(NotFiniteError, match=r'prompt 1 \(""\): its embedding by t5-tiny holds infinities or NaN'):
        Embeddings.load(tmp_path / "text")


def test_the_home_folder_may_be_written_as_a_tilde(text, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    text.save("~/text")
    assert (tmp_path / "text").is_file() and Embeddings.load("~/text").captions == text.captions


def test_a_full_disk_is_one_line_and_leaves_nothing(text, tmp_path, monkeypatch):
    def full(file):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files, "sync", full)
    with pytest.raises(StorageError, match=r"can't write .*text.: No space left on device"):
        text.save(tmp_path / "text")
    assert list(tmp_path.iterdir()) == []
