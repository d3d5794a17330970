import logging
from typing import Any

import numpy as np
import pytest
import sentencepiece

from imagen_jax.errors import InputError
from imagen_jax.text.tokenizer import EOS_ID, PAD_ID, Tokenizer, count_pieces, train_vocabulary

CAPTIONS = [
    f"{color} {noun}, {style} style"
    for color in ("red", "green", "dark blue")
    for noun in ("apple", "grinning face", "flag: Côte d\u2019Ivoire")
    for style in ("openmoji", "twemoji")
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer")
    (path / "spiece.model").write_bytes(train_vocabulary(CAPTIONS, vocab_size=100))
    return path


@pytest.fixture(scope="module")
def tokenizer(folder):
    return Tokenizer(folder, 32)


def test_rows_are_tokens_then_one_end_of_sentence_then_padding(tokenizer):
    ids, mask = tokenizer([*CAPTIONS, ""])
    assert ids.shape == mask.shape == (len(CAPTIONS) + 1, 32)
    assert ids.dtype == np.int32
    assert mask.dtype == bool
    for row, real in zip(ids, mask, strict=True):
        n = real.sum()
        assert real[:n].all()
        assert row[n - 1] == EOS_ID
        assert (row[: n - 1] > EOS_ID).all()
        assert (row[n:] == PAD_ID).all()
    assert mask[-1].sum() == 1


def test_ids_are_those_of_the_sentencepiece_library(folder):
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "spiece.model"))
    tokenizer = Tokenizer(folder, 64)
    for caption in (*CAPTIONS, "RED Apple", "  two   spaces ", "苹果 🍎 apple", "person\u2019s ﬁne", "zebra 42"):
        ids, mask = tokenizer([caption])
        assert ids[mask].tolist() == [*pieces.encode(caption), EOS_ID]


def test_captions_of_the_training_set_have_no_unknown_token(tokenizer):
    ids, _ = tokenizer([*CAPTIONS, "pack my box with 5 dozen quiz jugs"])
    assert (ids != 2).all()


def test_case_is_folded(tokenizer):
    ids, _ = tokenizer(["red apple", "Red APPLE"])
    np.testing.assert_array_equal(ids[0], ids[1])


def test_what_the_vocabulary_lacks_is_unknown_not_an_error(tokenizer):
    ids, mask = tokenizer(["🍎", "红苹果"])
    assert (ids[mask] < tokenizer.vocab_size).all()
    assert (ids == 2).any(axis=1).all()


def test_a_long_caption_is_cut_and_counted(tokenizer, caplog):
    with caplog.at_level(logging.WARNING, logger="absl"):
        ids, mask = tokenizer(["red apple", "a" * 10_000])
    assert mask[1].all()
    assert ids[1, -1] == EOS_ID
    assert "1 of 2 captions are longer than 32 tokens and were cut" in caplog.text


def test_nothing_is_said_where_nothing_is_cut(tokenizer, caplog):
    tokenizer(["red apple"])
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("captions", "message"),
    [
        ([], "captions is empty"),
        ("red apple", "put it in a list"),
        (["red apple", 3], "caption 1 is int '3'; expected a string"),
        ([None], "caption 0 is NoneType"),
        (["\ud800"], "caption 0 is not valid Unicode"),
    ],
)
def test_what_is_not_a_list_of_strings_is_refused(tokenizer, captions, message):
    with pytest.raises(InputError, match=message):
        tokenizer(captions)


def test_a_vocabulary_is_the_same_bytes_every_time():
    first = train_vocabulary(CAPTIONS, vocab_size=100)
    assert train_vocabulary(CAPTIONS * 2, vocab_size=100) == first


@pytest.mark.parametrize("captions", [["apple"], ["苹果 🍎", "two\nlines"]])
def test_few_captions_give_a_small_vocabulary(captions):
    assert 3 < count_pieces(train_vocabulary(captions, vocab_size=5000)) < 100


@pytest.mark.parametrize(("captions", "vocab_size"), [([], 100), (["", "  "], 100), (CAPTIONS, 5)])
def test_a_vocabulary_that_cannot_be_is_refused(captions, vocab_size):
    with pytest.raises(InputError, match="vocabulary"):
        train_vocabulary(captions, vocab_size=vocab_size)


def test_a_folder_without_a_tokenizer_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"expected spiece.model or tokenizer.json"):
        Tokenizer(tmp_path, 32)
    (tmp_path / "spiece.model").write_bytes(b"garbage")
    with pytest.raises(InputError, match=r"is no readable tokenizer .*fetch it again"):
        Tokenizer(tmp_path, 32)


def test_a_tokenizer_in_the_folder_beside_is_found_out(folder, tmp_path):
    (tmp_path / "text_encoder").mkdir()
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "spiece.model").write_bytes((folder / "spiece.model").read_bytes())
    with pytest.raises(InputError, match=r"copy it from .*tokenizer/spiece\.model"):
        Tokenizer(tmp_path / "text_encoder", 32)


def test_bytes_stand_for_what_a_multilingual_vocabulary_lacks(tmp_path):
    """mT5's and umT5's vocabularies fall back to bytes; <unk> would lose what was said."""
    flags: Any = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1, "minloglevel": 2, "num_threads": 1}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CAPTIONS),
        model_prefix=str(tmp_path / "spiece"),
        vocab_size=400,
        hard_vocab_limit=False,
        byte_fallback=True,
        remove_extra_whitespaces=False,
        **flags,
    )
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "spiece.model"))
    tokenizer = Tokenizer(tmp_path, 32)
    for caption in ("red \U0001f34e apple", "\u7ea2", "two  spaces "):
        ids, mask = tokenizer([caption])
        assert ids[mask].tolist() == [*pieces.encode(caption), EOS_ID]
        assert (ids[mask] != 2).all()


def test_special_tokens_in_a_caption_are_text(tokenizer):
    ids, mask = tokenizer(["red </s> apple <pad>"])
    assert (ids[mask][:-1] > EOS_ID).all()


def test_a_json_tokenizer_is_read_with_its_own_normaliser(tmp_path):
    from tokenizers import Tokenizer as Json
    from tokenizers import models, normalizers, pre_tokenizers

    words = [
        ("<pad>", 0.0),
        ("</s>", 0.0),
        ("<unk>", 0.0),
        ("\u2581red", -1.0),
        ("\u2581apple", -1.0),
        ("\u2581", -3.0),
    ]
    json_tokenizer = Json(models.Unigram(words, 2, False))
    json_tokenizer.normalizer = normalizers.Lowercase()  # pyright: ignore[reportAttributeAccessIssue]
    json_tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()  # pyright: ignore[reportAttributeAccessIssue]
    json_tokenizer.enable_truncation(1)
    json_tokenizer.enable_padding(length=9)
    json_tokenizer.save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer(tmp_path, 8)
    ids, mask = tokenizer(["RED Apple"])
    assert ids[mask].tolist() == [3, 4, EOS_ID]
    assert tokenizer.vocab_size == len(words)


def test_a_length_without_room_for_a_token_is_refused(folder):
    with pytest.raises(InputError, match="max_length is 1"):
        Tokenizer(folder, 1)
