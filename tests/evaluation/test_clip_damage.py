"""CLIP folders whose files are damaged, absurd or hostile: one line, at once."""

import json
import time

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from imagen_jax.clip import tokenizer as module
from imagen_jax.clip.config import _BOUNDS, read_towers
from imagen_jax.clip.folder import load_clip
from imagen_jax.clip.preprocess import read_preprocessing
from imagen_jax.clip.tokenizer import ClipTokenizer
from imagen_jax.errors import InputError
from tests.evaluation.clip_folders import write_clip


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    write_clip(folder)
    return folder


@pytest.fixture
def folder(whole, tmp_path):
    for path in whole.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def edit(path, key, value, tower=None):
    config = json.loads(path.read_text())
    (config[tower] if tower else config)[key] = value
    path.write_text(json.dumps(config))


ABSURD = (
    10**9,
    10**400,
    0,
    -1,
    1.5,
    True,
    None,
    "12",
    [12],
    {"n": 12},
    float("nan"),
    float("inf"),
    [[[[12] * 99] * 99]],
)


@pytest.mark.parametrize("name", _BOUNDS)
def test_every_size_has_bounds_and_a_type(folder, name):
    tower = "text_config" if name in ("vocab_size", "max_position_embeddings", "eos_token_id") else "vision_config"
    values = ABSURD if name != "layer_norm_eps" else [value for value in ABSURD if value != 1.5]
    values = values if name != "eos_token_id" else [value for value in values if value != 0 or value is False]
    before = (folder / "config.json").read_bytes()
    started = time.monotonic()
    for value in values:
        if value is True and name == "eos_token_id":
            continue
        (folder / "config.json").write_bytes(before)
        edit(folder / "config.json", name, value, None if name == "projection_dim" else tower)
        with pytest.raises(InputError, match=rf"config\.json has {name} .*expected a number from") as refused:
            read_towers(folder)
        assert len(str(refused.value)) < 600
    assert time.monotonic() - started < 2


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("hidden_act", ["gelu"], "hidden_act .*expected a name"),
        ("hidden_act", "x" * 10_000, "unknown hidden_act"),
        ("num_channels", [3] * 1000, r"num_channels .*expected 3"),
        ("patch_size", 25, "patch_size 25; expected no more than its image_size 24"),
    ],
)
def test_other_values_are_shown_cut_short(folder, name, value, message):
    edit(folder / "config.json", name, value, "vision_config")
    with pytest.raises(InputError, match=message) as refused:
        read_towers(folder)
    assert len(str(refused.value)) < 600


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("image_mean", [0.5, 0.5, float("nan")]),
        ("image_mean", [0.5, 0.5, 10**400]),
        ("image_std", [0.5, 0.5, 0]),
        ("image_std", [0.5, 0.5, -1]),
        ("image_std", [0.5, 0.5, True]),
        ("image_std", [0.5] * 10_000),
        ("size", {"shortest_edge": [24] * 10_000}),
        ("do_resize", "x" * 10_000),
    ],
)
def test_preprocessing_by_other_numbers_is_refused(tmp_path, key, value):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({key: value}))
    with pytest.raises(InputError, match=rf"has {key} .*expected") as refused:
        read_preprocessing(tmp_path, 24)
    assert len(str(refused.value)) < 600


def test_ids_beyond_the_networks_table_are_refused(folder):
    ids = json.loads((folder / "vocab.json").read_text())
    (folder / "vocab.json").write_text(json.dumps(ids | {"zzz": 2**31}))
    with pytest.raises(InputError, match="has the id 2147483648"):
        load_clip(folder)
    (folder / "vocab.json").write_text(json.dumps(ids | {"zzz": 10**9}))
    with pytest.raises(InputError, match="the tokenizer has 1000000001 ids"):
        load_clip(folder)


@pytest.mark.parametrize("name", ["tokenizer.json", "vocab.json", "merges.txt"])
def test_a_tokenizer_larger_than_any_is_not_read(folder, monkeypatch, name):
    if name == "tokenizer.json":
        (folder / name).write_text("{}" + " " * 200)
    monkeypatch.setattr(module, "_MAX_BYTES", 100 if name != "merges.txt" else (folder / "vocab.json").stat().st_size)
    if name == "merges.txt":
        with open(folder / name, "a") as file:
            file.write("\n" * 10_000)
    with pytest.raises(InputError, match=rf"{name}.* more than the \d+"):
        ClipTokenizer(folder, 16)


class Panic(BaseException):
    """As the library's: no Exception."""


def test_a_panic_of_the_library_is_one_line(folder, monkeypatch):
    def panic(_):
        raise Panic("called `Option::unwrap()` on a `None` value")

    monkeypatch.setattr(module, "_read_parts", panic)
    with pytest.raises(InputError, match=r"no readable tokenizer \(called `Option"):
        ClipTokenizer(folder, 16)
    monkeypatch.setattr(module, "_read_parts", lambda _: (_ for _ in ()).throw(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        ClipTokenizer(folder, 16)


def test_a_real_panic_prints_no_stack(folder, capfd):
    path = folder / "tokenizer.json"
    ClipTokenizer(folder, 16)._tokenizer.save(str(path))
    content = json.loads(path.read_text())
    content["model"]["continuing_subword_prefix"] = "x" * 100
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"tokenizer\.json\" is no readable tokenizer"):
        ClipTokenizer(folder, 16)
    assert capfd.readouterr().err == ""


def test_weights_that_are_not_finite_are_refused_by_name(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors["visual_projection.weight"] = tensors["visual_projection.weight"] * np.float32(np.nan)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(InputError, match=r"visual_projection\.weight has numbers that are not finite"):
        load_clip(folder)
