"""config.json of a CLIP's folder in transformers' layout: the two networks that it describes, and a name for them."""

from pathlib import Path
from typing import Any

from imagen_jax.clip.network import ACTIVATIONS, TextTower, VisionTower
from imagen_jax.errors import InputError
from imagen_jax.files import read_json
from imagen_jax.json_values import shown
from imagen_jax.registry import lookup

_FILES = (
    "config.json, model.safetensors (or its parts and their index) and tokenizer.json (or vocab.json and merges.txt)"
)
# transformers' values of what a config leaves out: those of ViT-B/32.
_PROJECTION_DIM = 512
_LAYERS = {"num_hidden_layers": 12, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}
_VISION = _LAYERS | {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
    "image_size": 224,
    "patch_size": 32,
}
_TEXT = _LAYERS | {
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_attention_heads": 8,
    "vocab_size": 49408,
    "max_position_embeddings": 77,
    "eos_token_id": 49407,
}
# Some four times the largest that is published, so that a damaged number ends here and not in a trace of an hour.
_BOUNDS: dict[str, tuple[float, float]] = {
    "num_hidden_layers": (1, 128),
    "layer_norm_eps": (1e-12, 0.1),
    "hidden_size": (1, 8192),
    "intermediate_size": (1, 32768),
    "num_attention_heads": (1, 128),
    "image_size": (1, 2048),
    "patch_size": (1, 2048),
    "vocab_size": (1, 1_000_000),
    "max_position_embeddings": (2, 4096),
    "eos_token_id": (0, 1_000_000),
    "projection_dim": (1, 8192),
}
# (hidden_size, num_hidden_layers) of published vision towers: arXiv 2010.11929, 2106.04560; bigG is OpenCLIP's.
_LETTERS = {(768, 12): "b", (1024, 24): "l", (1280, 32): "h", (1408, 40): "g", (1664, 48): "bigg"}


def read_towers(folder: Path) -> tuple[VisionTower, TextTower]:
    """The networks that a folder's config.json describes.

    Raises:
      InputError: no such folder or config, another architecture, or values that can't be.
    """
    if not folder.is_dir():
        raise InputError(f'no CLIP folder "{folder}"; expected {_FILES} in it, as transformers lays them out')
    config = read_json(folder / "config.json", expected=f"a CLIP's folder: {_FILES}")
    if config.get("model_type") != "clip":
        raise InputError(
            f'"{folder}": config.json has model_type {shown(config.get("model_type"))}; expected "clip", both towers '
            "of it (such as openai/clip-vit-large-patch14-336)"
        )
    shared = {"projection_dim": config.get("projection_dim", _PROJECTION_DIM)}
    vision = _tower(folder, config, "vision_config", _VISION) | shared
    text = _tower(folder, config, "text_config", _TEXT) | shared
    for values in (vision, text):
        _check(folder, values)
    return VisionTower(**vision), TextTower(**text)


def model_name(vision: VisionTower) -> str:
    """ "vit_l14_336": size, patch and image; "vit_32x2_8_24", width and layers, of a size that is not published."""
    shape = (vision.hidden_size, vision.num_hidden_layers)
    size = _LETTERS.get(shape, "{}x{}_".format(*shape))
    return f"vit_{size}{vision.patch_size}_{vision.image_size}"


def _tower(folder: Path, config: dict[str, Any], key: str, defaults: dict[str, Any]) -> dict[str, Any]:
    # Older files have "text_config_dict" too; where it is there, transformers takes it and not the other.
    found = config.get(f"{key}_dict")
    found = config.get(key) if found is None else found
    if not isinstance(found, dict):
        raise InputError(
            f'"{folder}": config.json has {key} {shown(found)}; expected an object with the sizes of a tower'
        )
    if found.get("num_channels", 3) != 3:
        raise InputError(f'"{folder}": config.json has num_channels {shown(found["num_channels"])}; expected 3, RGB')
    return {name: found.get(name, default) for name, default in defaults.items()}


def _check(folder: Path, values: dict[str, Any]) -> None:
    activation = values["hidden_act"]
    if not isinstance(activation, str):
        raise InputError(f'"{folder}": config.json has hidden_act {shown(activation)}; expected a name')
    lookup(ACTIVATIONS, activation[:80], what=f'hidden_act in "{folder / "config.json"}"')
    for name, value in values.items():
        if name == "hidden_act":
            continue
        kinds, (least, most) = (int, float) if name == "layer_norm_eps" else (int,), _BOUNDS[name]
        if isinstance(value, bool) or not isinstance(value, kinds) or not least <= value <= most:
            raise InputError(
                f'"{folder}": config.json has {name} {shown(value)}; expected a number from {least:g} to {most:,}'
            )
    if values["hidden_size"] % values["num_attention_heads"]:
        raise InputError(
            f'"{folder}": config.json has hidden_size {values["hidden_size"]}, which its num_attention_heads '
            f"{values['num_attention_heads']} do not divide"
        )
    if values.get("patch_size", 1) > values.get("image_size", 1):
        raise InputError(
            f'"{folder}": config.json has patch_size {values["patch_size"]}; expected no more than its image_size '
            f"{values['image_size']}"
        )
