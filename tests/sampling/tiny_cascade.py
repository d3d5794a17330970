"""A cascade folder of 8 -> 16 px with random weights and an untrained encoder; nothing is trained for it."""

import hashlib
import json
from pathlib import Path
from typing import Any

import jax
from flax.traverse_util import unflatten_dict

from imagen_jax.sampling.export_folder import write_cascade
from imagen_jax.sampling.stage_config import StageConfig, parameter_shapes
from imagen_jax.text.encoder import identify_encoder
from imagen_jax.text.untrained import write_untrained_encoder
from imagen_jax.types import Params
from tests.randomised import randomised

CAPTIONS = ["red apple", "blue apple", "green pear", "dark blue pear"]
MAX_TOKENS, WIDTH = 8, 16
MODELS: dict[int, dict[str, Any]] = {
    8: {"name": "unet", "channels": 8, "channel_mults": [1], "num_blocks": 1, "attention_levels": [False]},
    16: {
        "name": "efficient_unet", "channels": 8, "channel_mults": [1], "num_blocks": [1], "attention": ["none"],
    },
}  # fmt: skip


def write_encoder(folder: Path) -> None:
    write_untrained_encoder(CAPTIONS, folder, vocab_size=60, d_model=WIDTH, d_ff=16, num_layers=1, num_heads=2)


def stage_config(image_size: int, encoder: Path, **changes: Any) -> StageConfig:
    name, fingerprint = identify_encoder(encoder)
    values = {
        "name": f"stage_{image_size}",
        "model": MODELS[image_size] | {"dtype": "float32"},
        "image_size": image_size,
        "low_res_size": 8 if image_size == 16 else None,
        "schedule": "cosine",
        "prediction": "v",
        "max_tokens": MAX_TOKENS,
        "text_width": WIDTH,
        "encoder_name": name,
        "encoder_fingerprint": fingerprint,
        "text_encoder": str(encoder),
        "source": "",
        "sampling": {"num_steps": 2, "guidance_weight": 2.0, "threshold": "static"},
    }
    return StageConfig(**values | changes)


def params_of(image_size: int, encoder: Path, *, scale: float = 0.1) -> Params:
    shapes = unflatten_dict(parameter_shapes(stage_config(image_size, encoder)), sep="/")
    return jax.tree.map(lambda leaf: scale * leaf, randomised(shapes))


def renew_digests(cascade: Path) -> None:
    """Makes cascade.json fit what the other files are now, as if they had been written so."""
    index = json.loads((cascade / "cascade.json").read_text())
    index["sha256"] = {name: hashlib.sha256((cascade / name).read_bytes()).hexdigest() for name in index["sha256"]}
    (cascade / "cascade.json").write_text(json.dumps(index))


def make_format_1(cascade: Path) -> None:
    """Makes it a cascade of an earlier version, without digests."""
    index = json.loads((cascade / "cascade.json").read_text())
    (cascade / "cascade.json").write_text(json.dumps({"format_version": 1, "stages": index["stages"]}))


def write(folder: Path, *, sizes: tuple[int, ...] = (8, 16), copy_encoder: bool = True, scale: float = 0.1) -> Path:
    """Writes folder/encoder and folder/cascade, and returns the latter; the larger the scale, the more captions say."""
    encoder = folder / "encoder"
    write_encoder(encoder)
    configs = [stage_config(size, encoder) for size in sizes]
    params = [params_of(size, encoder, scale=scale) for size in sizes]
    write_cascade(folder / "cascade", configs, params, encoder_folder=encoder if copy_encoder else None)
    return folder / "cascade"
