"""CLIP folders as they are published, here small: a real vocabulary of byte pairs, and random weights."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from safetensors.numpy import save_file
from tokenizers import models, pre_tokenizers, trainers

from imagen_jax.clip.config import read_towers
from imagen_jax.clip.folder import parameter_shapes, transformers_name
from imagen_jax.clip.tokenizer import END, START, ClipTokenizer

VISION: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 24,
    "patch_size": 8,
}
TEXT: dict[str, Any] = {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "max_position_embeddings": 16,
}
PROJECTION_DIM = 20

CAPTIONS = [
    f"{start} {thing}{place}"
    for start in ("a photo of", "Two", "an OIL painting,")
    for thing in ("red apples", "a grinning face", "the dog's 12 puppies")
    for place in ("", " in the rain.", " (1887)", " at a caf\u00e9", " \u82f9\u679c \U0001f34e")
]


def write_vocabulary(folder: Path) -> None:
    """vocab.json and merges.txt in the order of OpenAI's: bytes, bytes that end a word, merges, and two tokens."""
    trained = tokenizers.Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    trained.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(False)])
    trainer = trainers.BpeTrainer(vocab_size=150, show_progress=False, end_of_word_suffix="</w>")
    trained.train_from_iterator([caption.lower() for caption in CAPTIONS], trainer)
    merges = [tuple(pair) for pair in json.loads(trained.to_str())["model"]["merges"]]
    assert len(merges) > 40
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*alphabet, *(byte + "</w>" for byte in alphabet), *("".join(pair) for pair in merges), START, END]
    (folder / "vocab.json").write_text(json.dumps({piece: i for i, piece in enumerate(dict.fromkeys(pieces))}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *(" ".join(pair) for pair in merges), ""]))


def config_of(folder: Path, *, hidden_act: str = "quick_gelu", eos_token_id: int | None = None) -> dict[str, Any]:
    """For the vocabulary in the folder; the end of sentence is its own unless given."""
    tokenizer = ClipTokenizer(folder, 16)
    text = {"vocab_size": tokenizer.vocab_size, "eos_token_id": eos_token_id or tokenizer.end_id}
    return {
        "model_type": "clip",
        "projection_dim": PROJECTION_DIM,
        "vision_config": VISION | {"hidden_act": hidden_act},
        "text_config": TEXT | text | {"hidden_act": hidden_act},
    }


def write_clip(folder: Path, *, seed: int = 0) -> None:
    """A folder with all but preprocessor_config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    write_vocabulary(folder)
    (folder / "config.json").write_text(json.dumps(config_of(folder)))
    rng = np.random.default_rng(seed)
    tensors = {}
    for path, shape in parameter_shapes(*read_towers(folder)).items():
        if path[-1] == "kernel":  # as torch has them, [out, in, ...]
            shape = (shape[-1], shape[-2], *shape[:-2])
        spread = 1.0 / np.sqrt(np.prod(shape[1:])) if len(shape) > 1 else 0.3
        offset = 1.0 if path[-1] == "scale" else 0.0
        tensors[transformers_name(path)] = (offset + spread * rng.normal(size=shape)).astype(np.float32)
    save_file(tensors | {"logit_scale": np.asarray(2.6592, np.float32)}, folder / "model.safetensors")
