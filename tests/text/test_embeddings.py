import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from imagen_jax.errors import InputError
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
    emb, mask = text.padded()
    assert emb.shape == (3, 4, 8)
    assert emb.dtype == ml_dtypes.bfloat16
    assert mask.sum(axis=1).tolist() == list(LENGTHS)
    assert (emb[~mask] == 0).all()
    for row, tokens in enumerate(text.tokens):
        np.testing.assert_array_equal(emb[row][mask[row]], tokens)
    np.testing.assert_array_equal(text.padded([2, 0])[0], emb[[2, 0]])


def test_rows_are_taken_in_order_and_as_often_as_asked(text):
    taken = text.take([1, 1, 0])
    assert taken.captions == ("", "", "red apple")
    assert len(taken) == 3
    np.testing.assert_array_equal(taken.padded()[0], text.padded([1, 1, 0])[0])


def cut(path):
    path.write_bytes(path.read_bytes()[:-20])


def shorten_the_captions(path):
    data = path.read_bytes()
    assert b'\\"red apple\\", ' in data
    path.write_bytes(data.replace(b'\\"red apple\\", ', b" " * 15))


def replace(path):
    save_file({"tokens": np.zeros((2, 2))}, path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut, "is damaged .*compute the embeddings again"),
        (replace, "not a file of text embeddings"),
        (None, "no file of"),
    ],
)
def test_a_file_of_something_else_is_refused(text, tmp_path, damage, message):
    path = tmp_path / "text.safetensors"
    if damage:
        text.save(path)
        damage(path)
    with pytest.raises(InputError, match=message):
        Embeddings.load(path)
