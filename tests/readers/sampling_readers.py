"""Readers of cascades, text encoders, embeddings and prompts."""

import functools
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from jax.sharding import SingleDeviceSharding

from imagen_jax.errors import NotFiniteError
from imagen_jax.sampling import load_cascade
from imagen_jax.sampling.folder import load_cascade_encoder, read_stage_config
from imagen_jax.sampling.prompts import read_prompts_file
from imagen_jax.sampling.samples_folder import SamplesFolder
from imagen_jax.text.embeddings import Embeddings
from imagen_jax.text.encoder import identify_encoder
from imagen_jax.text.t5_config import make_encoder, read_config
from imagen_jax.text.t5_weights import load_weights
from imagen_jax.text.tokenizer import Tokenizer
from imagen_jax.text.words import read_words
from tests.readers.reader import Reader
from tests.sampling import tiny_cascade
from tests.text import published

RECORD: dict[str, Any] = {"seed": 0, "settings": {"8": {"times": (1.0, 0.5)}}}
ENCODER: dict[str, Any] = {"d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2}


@functools.cache
def _made(write: Callable[[Path], Any]) -> Path:
    folder = Path(tempfile.mkdtemp())
    write(folder)
    return folder


def _copied(write: Callable[[Path], Any]) -> Callable[[Path], None]:
    """`write`, run once; from then on its files are copied."""
    return lambda folder: shutil.copytree(_made(write), folder, dirs_exist_ok=True) and None


def _cascade(folder: Path) -> None:
    tiny_cascade.write(folder, sizes=(8,))


def _cascade_of_format_1(folder: Path) -> None:
    tiny_cascade.make_format_1(tiny_cascade.write(folder, sizes=(8,)))


def _encoder(folder: Path) -> None:
    published.write_encoder(folder, **ENCODER)


def _encoder_in_parts(folder: Path) -> None:
    published.write_encoder(folder, num_files=2, **ENCODER)


def _json_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer as Json
    from tokenizers import models, normalizers, pre_tokenizers

    pieces = [
        ("<pad>", 0.0),
        ("</s>", 0.0),
        ("<unk>", 0.0),
        ("\u2581red", -1.0),
        ("\u2581apple", -1.0),
        ("\u2581", -3.0),
    ]
    tokenizer: Any = Json(models.Unigram(pieces, 2, False))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.add_special_tokens(["<pad>", "</s>"])
    tokenizer.save(str(folder / "tokenizer.json"))


def _embeddings(folder: Path) -> None:
    tokens = tuple(np.ones((n, 4), ml_dtypes.bfloat16) for n in (3, 1))
    about = {"max_length": 4, "encoder_name": "t5-tiny", "encoder_fingerprint": "e" * 64}
    Embeddings(captions=("red apple", "\u7ea2"), tokens=tokens, **about).save(folder / "text.safetensors")


def _prompts(folder: Path) -> None:
    (folder / "prompts.txt").write_text("a red apple\n\na pear \u2028 here\r\nthird", encoding="utf-8")


def _samples(folder: Path) -> None:
    images = [{"index": 0, "prompt": "red apple", "files": ["000_8.png"]}]
    (folder / "samples.json").write_text(json.dumps(RECORD | {"images": images}))


def _finite(read: Callable[[Path], Any]) -> Callable[[Path], Any]:
    """`read`, where numbers that are not finite are an error of their own, of one line too."""

    def reading(folder: Path) -> Any:
        try:
            return read(folder)
        except NotFiniteError as error:
            return str(error)

    return reading


def _load_params(folder: Path) -> Any:
    return load_cascade(folder / "cascade", keep_encoder=False).params(8)


def _load_weights(folder: Path) -> Any:
    model = make_encoder(read_config(folder), folder, jnp.float16)
    sharding = SingleDeviceSharding(jax.local_devices()[0])
    return load_weights(folder, model, dtype=jnp.float16, sharding=lambda _: sharding)


def _tokenize(folder: Path) -> Any:
    tokenizer = Tokenizer(folder, 8)
    tokenizer.check_ids_below(300)
    tokenizer.is_unknown(["red", "\U0001f993"])
    return tokenizer(["Red apple", "zebra \U0001f34e \ufb01"])


READERS: dict[str, Reader] = {
    "cascade.json": Reader(_copied(_cascade), "cascade/cascade.json", _finite(_load_params)),
    "config.json of a stage": Reader(
        _copied(_cascade_of_format_1), "cascade/stage_8/config.json", _finite(_load_params)
    ),
    "ema.safetensors": Reader(_copied(_cascade_of_format_1), "cascade/stage_8/ema.safetensors", _finite(_load_params)),
    "ema.safetensors with digests": Reader(_copied(_cascade), "cascade/stage_8/ema.safetensors", _load_params),
    "stage.json": Reader(
        _copied(_cascade),
        "cascade/stage_8/config.json",
        lambda folder: read_stage_config(folder / "cascade/stage_8/config.json"),
    ),
    "config.json of a copied encoder": Reader(
        _copied(_cascade),
        "cascade/text_encoder/config.json",
        lambda folder: load_cascade_encoder(folder / "cascade") if _is_damaged(folder) else None,
    ),
    "config.json of an untrained encoder": Reader(_copied(tiny_cascade.write_encoder), "config.json", identify_encoder),
    "config.json of an encoder": Reader(_copied(_encoder), "config.json", identify_encoder),
    "spiece.model": Reader(_copied(tiny_cascade.write_encoder), "spiece.model", _tokenize),
    "tokenizer.json": Reader(_copied(_json_tokenizer), "tokenizer.json", _tokenize),
    "words.txt": Reader(_copied(tiny_cascade.write_encoder), "words.txt", read_words),
    "model.safetensors": Reader(_copied(_encoder), "model.safetensors", _finite(_load_weights)),
    "model.safetensors.index.json": Reader(
        _copied(_encoder_in_parts), "model.safetensors.index.json", _finite(_load_weights)
    ),
    "embeddings": Reader(
        _copied(_embeddings), "text.safetensors", _finite(lambda folder: Embeddings.load(folder / "text.safetensors"))
    ),
    "prompts": Reader(_copied(_prompts), "prompts.txt", lambda folder: read_prompts_file(folder / "prompts.txt")),
    "samples.json": Reader(
        _copied(_samples), "samples.json", lambda folder: SamplesFolder(folder, RECORD, ["red apple"], [8])
    ),
}


def _is_damaged(folder: Path) -> bool:
    """Loading a valid one would draw its weights, by a program that takes seconds to compile."""
    file = "cascade/text_encoder/config.json"
    return (folder / file).read_bytes() != (_made(_cascade) / file).read_bytes()
