"""From a text encoder in the published layout to pictures, by the commands of the README."""

import json
import shutil
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from imagen_jax.data.text_store import TextStore
from imagen_jax.errors import EXIT_BAD_INPUT, InputError
from imagen_jax.sampling import folder as folder_module
from imagen_jax.sampling import load_cascade
from imagen_jax.sampling.folder import load_cascade_encoder
from imagen_jax.text.embeddings import Embeddings
from imagen_jax.text.encoder import load_encoder
from tests.mains import run, run_folder
from tests.sampling.tiny_cascade import renew_digests
from tests.text.published import write_encoder

DATA = "--data=emoji/32/hearts:train"
PROMPTS = ["red heart, twemoji style", "\u7ea2\u5fc3 \u2764", "heart " * 2000]
# Of tests/tiny_config.py are 8, in which no caption of the data set has room.
TOKENS = 32


def precompute(folder: Path, encoder: str, out: str, *flags: str, expect: int = 0) -> str:
    places = (f"--data_dir={folder}/datasets", f"--encoder={folder}/{encoder}", f"--out={folder}/{out}")
    return run("precompute_text", DATA, *places, f"--max_length={TOKENS}", *flags, expect=expect)


def train(folder: Path, *flags: str, expect: int = 0) -> str:
    tokens = f"--config.data.max_tokens={TOKENS}"
    config = ("--config=tests/tiny_config.py:base", f"--workdir={folder}/base", *run_folder(folder), tokens)
    return run("train", *config, *flags, expect=expect)


def sample(folder: Path, out: str, *flags: str, expect: int = 0) -> str:
    return run("sample", f"--cascade={folder}/cascade", f"--out={folder}/{out}", *flags, expect=expect)


def pictures(folder: Path, out: str) -> list[np.ndarray]:
    return [np.asarray(Image.open(path)) for path in sorted((folder / out).glob("*_8.png"))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """All that the commands wrote. The encoder's files are split, hold a decoder, and lie beside the hub's own."""
    folder = tmp_path_factory.mktemp("published")
    write_encoder(folder / "encoder", num_files=2, decoder=True)
    write_encoder(folder / "wide", d_model=64)
    (folder / "encoder" / "README.md").write_text("of the hub")
    precompute(folder, "encoder", "text", "--encoder_dtype=bfloat16", "--store_dtype=int8", "--shard_size=5")
    train(folder)
    run("export", f"--workdirs={folder}/base", f"--out={folder}/cascade")
    sample(folder, "samples", *[f"--prompt={prompt}" for prompt in PROMPTS], f"--save_embeddings={folder}/prompts")
    return folder


def test_the_store_says_what_is_in_it(folder):
    store = TextStore(folder / "text")
    assert store.manifest.encoder_name == "encoder (t5, width 32, 2 layers)"
    assert (store.manifest.encoder_dtype, store.manifest.dtype, store.width) == ("bfloat16", "int8", 32)
    assert store.manifest.num_shards > 1
    stage = json.loads((folder / "base" / "stage.json").read_text())
    assert stage["encoder_fingerprint"] == store.encoder_fingerprint == load_encoder(folder / "encoder").fingerprint


def test_the_encoder_stays_where_it_is_unless_asked(folder):
    assert sorted(path.name for path in (folder / "cascade").iterdir()) == ["cascade.json", "stage_8"]
    run("export", f"--workdirs={folder}/base", f"--out={folder}/whole", "--copy_encoder")
    names = {path.name for path in (folder / "whole" / "text_encoder").iterdir()}
    assert names == {
        *("config.json", "spiece.model", "model.safetensors.index.json"),
        *("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"),
    }
    assert load_cascade_encoder(folder / "whole").name == "encoder (t5, width 32, 2 layers)"
    assert load_cascade_encoder(folder / "cascade").name == "encoder (t5, width 32, 2 layers)"


def test_saved_embeddings_take_the_place_of_prompts(folder):
    sample(folder, "again", f"--embeddings={folder}/prompts")
    assert len(pictures(folder, "samples")) == 3
    for first, again in zip(pictures(folder, "samples"), pictures(folder, "again"), strict=True):
        np.testing.assert_array_equal(first, again)
    records = [json.loads((folder / out / "samples.json").read_text()) for out in ("samples", "again")]
    assert records[0] == records[1]
    assert [image["prompt"] for image in records[0]["images"]] == PROMPTS


def test_negative_prompts_may_be_texts_or_embeddings(folder):
    cascade = load_cascade(folder / "cascade", keep_encoder=False, dtype="bfloat16")
    settings: dict[str, Any] = {"guidance": 3.0, "steps": 2}
    images = cascade(["red heart", "blue heart"], negative_prompts="green heart", **settings)
    text = load_encoder(folder / "encoder", TOKENS, "bfloat16").embed(["red heart", "blue heart", "green heart"])
    same = cascade(text.take([0, 1]), negative_prompts=text.take([2]), **settings)
    np.testing.assert_array_equal(images, same)
    mixed = cascade(text.take([0, 1]), negative_prompts=["green heart"], **settings)
    np.testing.assert_array_equal(images, mixed)


def test_encoder_and_networks_are_never_in_memory_together(folder, monkeypatch):
    encoders: list[Any] = []
    loads: list[str] = []
    load_encoder_, load_params_ = folder_module.load_encoder, folder_module._load_params

    def watched_encoder(*args: Any, **kwargs: Any) -> Any:
        loads.append("encoder")
        assert not cascade._loaded_params
        encoder = load_encoder_(*args, **kwargs)
        encoders.append(weakref.ref(encoder))
        return encoder

    def watched_params(*args: Any) -> Any:
        loads.append("networks")
        assert all(encoder() is None for encoder in encoders)
        return load_params_(*args)

    monkeypatch.setattr(folder_module, "load_encoder", watched_encoder)
    monkeypatch.setattr(folder_module, "_load_params", watched_params)
    cascade = load_cascade(folder / "cascade", keep_encoder=False)
    for _ in range(2):
        cascade(["red heart"], negative_prompts="green heart", guidance=3.0, steps=2)
    assert loads == ["encoder", "networks", "encoder", "networks"]


def test_an_encoder_on_the_cpu_in_bfloat16_gives_about_the_same(folder):
    flags = ("--encoder_devices=cpu", "--encoder_dtype=bfloat16", f"--save_embeddings={folder}/cpu_prompts")
    sample(folder, "cpu", f"--prompt={PROMPTS[0]}", *flags)
    exact, rounded = (Embeddings.load(folder / name).tokens[0] for name in ("prompts", "cpu_prompts"))
    error = np.linalg.norm(rounded.astype(np.float32) - exact.astype(np.float32))
    assert 0 < error < 0.02 * np.linalg.norm(exact.astype(np.float32))


def test_a_moved_encoder_is_named_by_a_flag(folder, tmp_path):
    shutil.copytree(folder / "cascade", tmp_path / "cascade")
    path = tmp_path / "cascade" / "stage_8" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"text_encoder": "/elsewhere/t5"}))
    renew_digests(tmp_path / "cascade")
    flags = (f"--prompt={PROMPTS[0]}", f"--cascade={tmp_path}/cascade")
    error = sample(folder, "moved", *flags, expect=EXIT_BAD_INPUT)
    assert "was trained with encoder (t5, width 32, 2 layers), width 32 (of no published T5); there is no" in error
    assert "--encoder" in error
    assert error.count("\nerror: ") == 1 and "Traceback" not in error
    sample(folder, "moved", *flags, f"--encoder={folder}/encoder")
    np.testing.assert_array_equal(pictures(folder, "moved")[0], pictures(folder, "samples")[0])


def test_another_encoder_is_refused_everywhere(folder, tmp_path):
    write_encoder(tmp_path / "other", seed=1)
    error = sample(folder, "x", "--prompt=a", f"--encoder={tmp_path}/other", expect=EXIT_BAD_INPUT)
    assert "was trained with encoder (t5, width 32, 2 layers)" in error
    assert "other weights, or another tokenizer" in error
    error = sample(folder, "x", "--prompt=a", f"--encoder={folder}/wide", expect=EXIT_BAD_INPUT)
    assert "is an encoder of width 64 (of no published T5)" in error
    cascade = load_cascade(folder / "cascade", keep_encoder=False)
    with pytest.raises(InputError, match=r"embeddings are by wide .*the cascade was trained with encoder"):
        cascade(load_encoder(folder / "wide", TOKENS).embed(["a"]))
    with pytest.raises(InputError, match="texts cut to 16 tokens, and the cascade was trained with 32"):
        cascade(load_encoder(folder / "encoder", 16).embed(["a"]))
    error = run("export", f"--workdirs={folder}/base", f"--out={tmp_path}/c", f"--encoder={tmp_path}/other", expect=2)
    assert "name the right folder" in error


def test_training_goes_on_with_its_own_encoders_texts_only(folder):
    precompute(folder, "wide", "text_wide")
    error = train(folder, f"--config.data.text_store={folder}/text_wide", expect=EXIT_BAD_INPUT)
    assert "was trained with texts by encoder (t5, width 32, 2 layers), width 32" in error
    assert "is by wide (t5, width 64, 2 layers), width 64" in error


def test_prompts_of_every_kind_are_read(folder):
    tokens = Embeddings.load(folder / "prompts").tokens
    assert [len(row) for row in tokens][2] == TOKENS  # cut
    assert all(np.isfinite(row.astype(np.float32)).all() for row in tokens)
    # Of one place in the list, so of the same noise.
    cascade = load_cascade(folder / "cascade")
    assert len({cascade([prompt], steps=2).tobytes() for prompt in PROMPTS}) == 3
