"""Encoder folders as they are published: config.json, a vocabulary and safetensors, here with small random weights."""

import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from safetensors.numpy import save_file

from imagen_jax.text.t5_config import make_encoder
from imagen_jax.text.t5_weights import transformers_name
from imagen_jax.text.tokenizer import train_vocabulary
from imagen_jax.text.untrained import draw_params
from imagen_jax.types import Params

SIZES: dict[str, Any] = {"vocab_size": 300, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
CAPTIONS = [f"{color} {noun}" for color in ("red", "green", "dark blue") for noun in ("apple", "pear", "grinning face")]


def write_encoder(folder: Path, *, seed: int = 0, num_files: int = 1, decoder: bool = False, **config: Any) -> Params:
    """Writes an encoder (default T5 v1.1; a key of `config` that is None is left out) and returns its parameters."""
    config = {"model_type": "t5", "feed_forward_proj": "gated-gelu"} | SIZES | config
    config = {key: value for key, value in config.items() if value is not None}
    params = draw_params(make_encoder(config, folder, jnp.float32), seed)
    tensors = {}
    flat: dict[Any, Any] = flatten_dict(params)  # pyright: ignore[reportAssignmentType]
    for path, array in flat.items():
        tensors[transformers_name(path)] = np.array(array.T if path[-1] == "kernel" else array, order="C")
    if decoder:  # as in a checkpoint of the whole model
        tensors["encoder.embed_tokens.weight"] = tensors["shared.weight"]
        tensors["decoder.block.0.layer.0.SelfAttention.q.weight"] = np.zeros((32, 32), np.float32)
        tensors["lm_head.weight"] = np.zeros((300, 32), np.float32)
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder, tensors, num_files=num_files)
    (folder / "spiece.model").write_bytes(train_vocabulary(CAPTIONS, vocab_size=150))
    (folder / "config.json").write_text(json.dumps(config))
    return params


def write_tensors(folder: Path, tensors: dict[str, np.ndarray], *, num_files: int = 1) -> None:
    """`model.safetensors`, or several files and their index."""
    if num_files == 1:
        save_file(tensors, folder / "model.safetensors")
        return
    names = [f"model-{number + 1:05d}-of-{num_files:05d}.safetensors" for number in range(num_files)]
    file_of = {key: names[number % num_files] for number, key in enumerate(sorted(tensors))}
    for name in names:
        save_file({key: tensors[key] for key in tensors if file_of[key] == name}, folder / name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": file_of}))
