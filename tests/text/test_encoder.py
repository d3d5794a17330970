import json
import re
import subprocess
import sys
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from imagen_jax.errors import InputError
from imagen_jax.text.encoder import load_encoder
from imagen_jax.text.untrained import write_untrained_encoder

CAPTIONS = [
    f"{color} {noun}, {style} style"
    for color in ("red", "green", "dark blue")
    for noun in ("apple", "pear", "grinning face")
    for style in ("openmoji", "twemoji")
]
SIZES: dict[str, Any] = {"vocab_size": 120, "d_model": 32, "d_ff": 64, "num_layers": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("encoders") / "tiny"
    write_untrained_encoder(CAPTIONS, path, seed=3, **SIZES)
    return path


@pytest.fixture(scope="module")
def encoder(folder):
    return load_encoder(folder, 24, batch_size=4)


def as_float(emb):
    return emb.astype(np.float32)


def test_shapes_types_and_name(encoder):
    emb, mask = encoder.encode(CAPTIONS[:5]).values()
    assert emb.shape == (5, 24, 32) == (5, encoder.max_length, encoder.width)
    assert emb.dtype == ml_dtypes.bfloat16
    assert mask.shape == (5, 24)
    assert mask.dtype == bool
    assert np.isfinite(as_float(emb)).all()
    assert (as_float(emb)[~mask] == 0).all()
    assert "untrained" in encoder.name
    assert re.fullmatch("[0-9a-f]{64}", encoder.fingerprint)


def test_different_captions_have_different_embeddings(encoder):
    emb, mask = encoder.encode(CAPTIONS).values()
    weight = mask[:, :, None]
    pooled = (as_float(emb) * weight).sum(axis=1) / weight.sum(axis=1)
    distance = np.linalg.norm(pooled[:, None] - pooled[None], axis=-1) + 10 * np.eye(len(CAPTIONS))
    assert distance.min() > 0.1


def test_an_embedding_does_not_depend_on_the_rest_of_the_batch(encoder):
    emb, _ = encoder.encode(CAPTIONS[:7]).values()
    for i in range(7):
        np.testing.assert_array_equal(encoder.encode([CAPTIONS[i]])["text_emb"][0], emb[i])


def test_an_embedding_is_the_same_for_every_max_length_that_holds_it(folder):
    captions = [*CAPTIONS[:5], "red apple " * 5, ""]
    whole = load_encoder(folder, 256, batch_size=4).embed(captions).tokens
    assert max(map(len, whole)) > 32
    for max_length in (64, 128):
        shorter = load_encoder(folder, max_length, batch_size=4).embed(captions).tokens
        for mine, other in zip(shorter, whole, strict=True):
            np.testing.assert_array_equal(mine, other)


def test_long_and_short_captions_come_back_in_their_order(folder):
    encoder = load_encoder(folder, 64, batch_size=2)
    captions = ["red apple " * n for n in (1, 20, 2, 9, 30, 1, 5)] + CAPTIONS
    alone = [encoder.embed([caption]).tokens[0] for caption in captions]
    for mine, together in zip(alone, encoder.embed(captions).tokens, strict=True):
        np.testing.assert_array_equal(mine, together)


def test_ragged_embeddings_are_the_real_tokens(encoder):
    emb, mask = encoder.encode(CAPTIONS[:6]).values()
    ragged = list(encoder.encode_ragged(CAPTIONS[:6]))
    assert len(ragged) == 6
    for row, all_tokens, real in zip(ragged, emb, mask, strict=True):
        np.testing.assert_array_equal(row, all_tokens[real])


def test_equal_captions_are_encoded_once_and_come_in_order(encoder, monkeypatch):
    tokenized = []
    tokenizer = encoder._tokenizer
    monkeypatch.setattr(encoder, "_tokenizer", lambda captions: tokenized.extend(captions) or tokenizer(captions))
    a, b, c = (next(encoder.encode_ragged([caption])) for caption in CAPTIONS[:3])
    tokenized.clear()
    captions = [CAPTIONS[i] for i in (0, 1, 0, 2, 1, 1)]
    for row, expected in zip(encoder.encode_ragged(captions), (a, b, a, c, b, b), strict=True):
        np.testing.assert_array_equal(row, expected)
    assert tokenized == CAPTIONS[:3]


@pytest.mark.parametrize("prompt", ["", " ", "🍎", "红苹果", "a" * 10_000, "line\nbreak\x00", "<pad></s><extra_id_0>"])
def test_any_text_has_an_embedding(encoder, prompt):
    emb, mask = encoder.encode([prompt]).values()
    assert mask.any()
    assert np.isfinite(as_float(emb)).all()


def test_bad_captions_are_refused(encoder):
    with pytest.raises(InputError, match="captions is empty"):
        encoder.encode([])
    with pytest.raises(InputError, match="put it in a list"):
        next(encoder.encode_ragged("red apple"))


def test_the_seed_decides_the_weights_and_the_fingerprint(folder, encoder, tmp_path):
    write_untrained_encoder(CAPTIONS, tmp_path / "same", seed=3, **SIZES)
    write_untrained_encoder(CAPTIONS, tmp_path / "other", seed=4, **SIZES)
    same, other = (load_encoder(tmp_path / name, 24, batch_size=4) for name in ("same", "other"))
    emb, again, different = (e.encode(CAPTIONS[:4])["text_emb"] for e in (encoder, same, other))
    np.testing.assert_array_equal(emb, again)
    assert np.abs(as_float(emb) - as_float(different)).max() > 0.5
    assert encoder.fingerprint == same.fingerprint != other.fingerprint


def test_the_vocabulary_decides_the_fingerprint(encoder, tmp_path):
    write_untrained_encoder([*CAPTIONS, "yellow banana"], tmp_path / "other", seed=3, **SIZES)
    assert load_encoder(tmp_path / "other").fingerprint != encoder.fingerprint


def test_an_encoder_folder_is_not_overwritten_by_another(folder):
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    write_untrained_encoder(CAPTIONS, folder, seed=3, **SIZES)
    with pytest.raises(InputError, match=r"holds another encoder \(config.json differs\)"):
        write_untrained_encoder(CAPTIONS, folder, seed=5, **SIZES)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


def test_heads_that_do_not_divide_the_width_are_refused(tmp_path):
    with pytest.raises(InputError, match="width 30"):
        write_untrained_encoder(CAPTIONS, tmp_path / "x", d_model=30)
    assert not (tmp_path / "x").exists()


def edited(folder, tmp_path, **changes):
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = json.loads((folder / "config.json").read_text()) | changes
    (tmp_path / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
    return tmp_path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"imagen_jax_untrained_seed": None}, r"has no weights; expected model.safetensors"),
        ({"model_type": "gpt2"}, "model_type 'gpt2'; expected the encoder of a T5"),
        ({"feed_forward_proj": "gated-relu"}, "feed_forward_proj 'gated-relu'"),
        ({"d_kv": None, "num_layers": "2"}, "positive integer for: d_kv, num_layers"),
        ({"vocab_size": 10}, "a vocab_size of 10"),
        ({"layer_norm_epsilon": "1e-6"}, "positive number for: layer_norm_epsilon"),
        ({"relative_attention_num_buckets": 0}, "positive integer for: relative_attention_num_buckets"),
        ({"model_type": ["t5"]}, "expected the encoder of a T5"),
    ],
)
def test_a_config_of_something_else_is_refused(folder, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        load_encoder(edited(folder, tmp_path, **changes))


def test_missing_and_broken_files_are_named(folder, tmp_path):
    with pytest.raises(InputError, match="no encoder folder"):
        load_encoder(tmp_path / "nothing")
    with pytest.raises(InputError, match=r"config\.json\" is missing"):
        load_encoder(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match="is damaged"):
        load_encoder(tmp_path)
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    with pytest.raises(InputError, match=r"expected spiece.model or tokenizer.json"):
        load_encoder(tmp_path)


def test_the_import_is_light():
    code = "import sys, imagen_jax.text.encoder; print({'torch', 'tensorflow', 'sentencepiece'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
