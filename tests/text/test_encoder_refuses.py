"""Encoders from elsewhere: no NaN gets out of one, and none takes minutes or gigabytes before it is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from imagen_jax.errors import InputError, NotFiniteError
from imagen_jax.text.encoder import encoder_files, identify_encoder, load_encoder
from imagen_jax.text.untrained import write_untrained_encoder
from tests.text.published import CAPTIONS, write_encoder

SMALL: dict[str, Any] = {"d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2}


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("encoders") / "t5"
    write_encoder(folder, **SMALL)
    return folder


@pytest.fixture
def folder(written, tmp_path) -> Path:
    return shutil.copytree(written, tmp_path / "t5")


def edit_weights(folder: Path, name: str, value: float) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors[name] = np.full_like(tensors[name], value)
    save_file(tensors, folder / "model.safetensors")


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


NORM = "encoder.final_layer_norm.weight"


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_weight_that_is_not_finite_is_one_error_that_names_it(folder, value):
    edit_weights(folder, NORM, value)
    with pytest.raises(NotFiniteError, match=f'^text encoder "{folder}": {NORM} holds infinities or NaN; fetch'):
        load_encoder(folder)


def test_a_weight_that_is_too_large_for_its_type_is_one_error(folder):
    edit_weights(folder, "shared.weight", 1e30)
    with pytest.raises(NotFiniteError, match=r"shared.weight is too large for float16 .* use float32"):
        load_encoder(folder, dtype="float16")


def test_an_embedding_that_overflows_names_its_caption_and_the_remedy(folder):
    edit_weights(folder, NORM, 60000.0)
    encoder = load_encoder(folder, 16, "float16")
    message = r'^text encoder, caption "red apple": .* overflows in float16: use float32 \(--encoder_dtype=float32\)'
    with pytest.raises(NotFiniteError, match=message):
        encoder.embed(["red apple"])
    assert np.isfinite(load_encoder(folder, 16).embed(["red apple"]).tokens[0].astype(np.float32)).all()


def test_a_token_id_beyond_the_weights_is_one_error_that_names_the_caption(tmp_path):
    from tokenizers import Tokenizer as Json
    from tokenizers import models, pre_tokenizers

    write_encoder(tmp_path, **SMALL)
    (tmp_path / "spiece.model").unlink()
    # Three words, one of which has an id that no word of three should have.
    tokenizer: Any = Json(models.WordLevel({"<unk>": 2, "red": 3, "apple": 7000}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    encoder = load_encoder(tmp_path, 8)
    encoder.embed(["red red"])
    with pytest.raises(InputError, match=r"caption 1 \('red apple'\) the token id 7000, beyond the vocab_size of 300"):
        encoder.embed(["red", "red apple"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_layers": 10**9}, r"num_layers = 1,000,000,000; expected 128 at most"),
        ({"d_model": 10**12}, r"d_model = 1,000,000,000,000; expected 65,536 at most"),
        ({"vocab_size": 10**400}, "vocab_size"),
        ({"num_heads": True}, "positive integer for: num_heads"),
        ({"relative_attention_num_buckets": 0}, "positive integer for: relative_attention_num_buckets"),
        ({"relative_attention_num_buckets": 2.5}, "positive integer for: relative_attention_num_buckets"),
        ({"relative_attention_num_buckets": 31}, "expected an even number of at least 4 buckets"),
        ({"relative_attention_num_buckets": 2}, "expected an even number of at least 4 buckets"),
        ({"relative_attention_max_distance": 8}, "a distance above a quarter of it"),
        ({"layer_norm_epsilon": "x"}, "positive number for: layer_norm_epsilon"),
        ({"layer_norm_epsilon": float("nan")}, "positive number for: layer_norm_epsilon"),
        ({"imagen_jax_untrained_seed": "x"}, "imagen_jax_untrained_seed = 'x'; expected a whole number"),
        ({"imagen_jax_untrained_seed": 1, "d_ff": 200_000, "d_model": 50_000}, "an untrained encoder of .* parameters"),
    ],
)
def test_a_config_of_absurd_sizes_is_refused_at_once(folder, changes, message):
    edit_config(folder, **changes)
    with pytest.raises(InputError, match=message) as error:
        identify_encoder(folder)
    assert "\n" not in str(error.value) and len(str(error.value)) < 1000


@pytest.mark.parametrize("name", ["../x.safetensors", "/etc/x.safetensors", "x.bin", "a\0.safetensors", "a" * 300])
def test_an_index_names_files_beside_it_only(folder, name):
    (folder / "model.safetensors").rename(folder.parent / "x.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"shared.weight": name}}))
    with pytest.raises(InputError, match=r"expected .safetensors files beside it: fetch it again"):
        identify_encoder(folder)


def test_an_index_of_a_million_tensors_is_refused(folder):
    (folder / "model.safetensors").unlink()
    names = {f"t{number}": "model-1.safetensors" for number in range(100_001)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    with pytest.raises(InputError, match="names 100,001 tensors"):
        identify_encoder(folder)


def test_an_index_that_names_another_file_than_the_tensors_is_one_error(tmp_path):
    write_encoder(tmp_path, num_files=2, **SMALL)
    index = tmp_path / "model.safetensors.index.json"
    names = json.loads(index.read_text())["weight_map"]
    index.write_text(json.dumps({"weight_map": dict.fromkeys(names, min(names.values()))}))
    with pytest.raises(InputError, match=r"has no tensor .*, which model.safetensors.index.json says it has"):
        identify_encoder(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_length": "8"}, "max_length is '8'; expected a whole number"),
        ({"max_length": 10**9}, "expected a whole number, 65,536 at most"),
        ({"max_length": True}, "max_length is True"),
        ({"batch_size": 2.0}, r"batch size must be a whole number, at least 1 \(got 2.0\)"),
        ({"dtype": "int8"}, r"dtype must be one of float32, bfloat16, float16 \(got 'int8'\)"),
        ({"dtype": "nonsense"}, "dtype must be one of"),
    ],
)
def test_a_wrong_argument_is_one_error(written, arguments, message):
    with pytest.raises(InputError, match=message):
        load_encoder(written, **arguments)


def test_a_tokenizer_that_makes_rust_panic_is_one_error(tmp_path):
    # A normaliser as SentencePiece compiles it, cut.
    description = {"version": "1.0", "normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}}
    write_encoder(tmp_path, **SMALL)
    (tmp_path / "spiece.model").unlink()
    (tmp_path / "tokenizer.json").write_text(json.dumps(description))
    with pytest.raises(InputError, match=r"is no readable tokenizer .its normalizer is damaged.; fetch it again"):
        load_encoder(tmp_path)


# Words.


@pytest.fixture(scope="module")
def untrained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("untrained") / "encoder"
    write_untrained_encoder(CAPTIONS, folder, vocab_size=80, d_model=8, d_ff=8, num_layers=1, num_heads=2)
    return folder


def test_words_that_no_caption_has_are_said(untrained):
    encoder = load_encoder(untrained, 16)
    assert encoder.describe_unseen(["Red APPLE", "a dark-blue pear, grinning!"]) == ""
    said = encoder.describe_unseen(["red apple", "a zebra", "zebra and \u7ea2 lion", "red tiger"])
    start = (
        'the text encoder has never seen "zebra" (prompt 1), "\u7ea2" (prompt 2), "lion" (prompt 2) and 1 more words: '
    )
    assert said.startswith(start)


def test_the_list_of_words_is_no_part_of_the_fingerprint(untrained, tmp_path):
    older = shutil.copytree(untrained, tmp_path / "older")
    (older / "words.txt").unlink()
    assert identify_encoder(older)[1] == identify_encoder(untrained)[1]
    names = [path.name for path in encoder_files(untrained)]
    assert names == ["config.json", "spiece.model", "words.txt"]
    # Written again, it gains what it lacks.
    write_untrained_encoder(CAPTIONS, older, vocab_size=80, d_model=8, d_ff=8, num_layers=1, num_heads=2)
    assert (older / "words.txt").read_bytes() == (untrained / "words.txt").read_bytes()


def test_without_a_list_what_the_vocabulary_lacks_is_said(untrained, tmp_path):
    older = shutil.copytree(untrained, tmp_path / "older")
    (older / "words.txt").unlink()
    encoder = load_encoder(older, 16)
    assert encoder.describe_unseen(["a red zebra"]) == ""  # of letters that it knows
    said = encoder.describe_unseen(["a red zebra", "a \U0001f993"])
    assert said.startswith(
        'the text encoder has never seen "\U0001f993" (prompt 1): its vocabulary has no piece for it'
    )


def test_a_damaged_list_is_said_and_costs_no_picture(untrained, tmp_path, caplog):
    damaged = shutil.copytree(untrained, tmp_path / "damaged")
    (damaged / "words.txt").write_bytes(b"\xff\xfe")
    assert load_encoder(damaged, 16).describe_unseen(["a zebra"]) == ""
    assert "words.txt is damaged" in caplog.text


def test_embeddings_that_are_not_finite_are_one_error(written):
    text = load_encoder(written, 16).embed(["red", "blue"])
    tokens = text.tokens[1].copy()
    tokens[0, 0] = ml_dtypes.bfloat16(np.nan)
    object.__setattr__(text, "tokens", (text.tokens[0], tokens))
    text.padded([0])
    with pytest.raises(
        NotFiniteError, match=r'text encoder, prompt 1 \("blue"\): its embedding by .* holds infinities'
    ):
        text.padded()
