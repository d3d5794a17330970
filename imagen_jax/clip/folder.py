"""A published CLIP from a folder in transformers' layout, without transformers."""

import dataclasses
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from imagen_jax.clip.config import model_name, read_towers
from imagen_jax.clip.network import LARGEST_ID, TextTower, VisionTower
from imagen_jax.clip.preprocess import Preprocessing, read_preprocessing
from imagen_jax.clip.tokenizer import ClipTokenizer
from imagen_jax.errors import InputError
from imagen_jax.files import user_path
from imagen_jax.text.safetensors_folder import find_tensors, read_tensors
from imagen_jax.types import Params

# What embeddings don't need: a factor of training's logits, and what older files have of positions, 0, 1, 2, ...
_IGNORED = ("logit_scale", "text_model.embeddings.position_ids", "vision_model.embeddings.position_ids")


@dataclass(frozen=True)
class Clip:
    """Two networks with all that is needed to embed images and captions.

    Attributes:
      vision, text: the networks.
      vision_params, text_params: float32, on the host.
      preprocessing: of images.
      tokenizer: of captions.
      weights_sha256: hex, over the tensors (`read_tensors`): the same for one file and several.
    """

    vision: VisionTower
    text: TextTower
    vision_params: Params
    text_params: Params
    preprocessing: Preprocessing
    tokenizer: ClipTokenizer
    weights_sha256: str

    @property
    def name(self) -> str:
        """ "vit_l14_336_1b2c3d4e": sizes, and the first digits of the hash, which tell trainings apart."""
        return f"{model_name(self.vision)}_{self.weights_sha256[:8]}"

    @property
    def settings(self) -> str:
        """What embeddings depend on besides the weights: digits of a sha256 over both networks and preprocessing."""
        said = repr([dataclasses.astuple(self.preprocessing), *map(_settings, (self.vision, self.text))])
        return hashlib.sha256(said.encode()).hexdigest()[:16]


def _settings(tower: Any) -> list[Any]:
    fields = [field.name for field in dataclasses.fields(tower) if field.name not in ("parent", "name")]
    return [(name, getattr(tower, name)) for name in fields]


def load_clip(folder: str | os.PathLike[str]) -> Clip:
    """Loads the CLIP of a folder.

    Args:
      folder: config.json, model.safetensors or its parts with their index, tokenizer.json or vocab.json and merges.txt,
        and preprocessor_config.json where images are not prepared as OpenAI does.

    Raises:
      InputError: a file is missing or unreadable, it's another architecture, the files are of different models, or
        weights are not finite.
    """
    folder = user_path(folder)
    vision, text = read_towers(folder)
    preprocessing = read_preprocessing(folder, vision.image_size)
    tokenizer = ClipTokenizer(folder, text.max_position_embeddings)
    if tokenizer.vocab_size > text.vocab_size or text.eos_token_id not in (LARGEST_ID, tokenizer.end_id):
        raise InputError(
            f'"{folder}": the tokenizer has {tokenizer.vocab_size} ids and ends captions with {tokenizer.end_id}, '
            f"config.json a vocab_size of {text.vocab_size} and the eos_token_id {text.eos_token_id}; the files belong "
            "to different models"
        )
    params, sha256 = _load_params(folder, vision, text)
    return Clip(vision, text, params["vision"], params["text"], preprocessing, tokenizer, sha256)


def parameter_shapes(vision: VisionTower, text: TextTower) -> dict[tuple[str, ...], tuple[int, ...]]:
    """Shapes by path; the first of a path is "vision" or "text"."""
    size, length = vision.image_size, text.max_position_embeddings
    key = jax.random.key(0)
    images, ids = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32), jax.ShapeDtypeStruct((1, length), jnp.int32)
    params = {
        "vision": jax.eval_shape(vision.init, key, images)["params"],
        "text": jax.eval_shape(text.init, key, ids)["params"],
    }
    flat: Any = flatten_dict(params)
    return {path: leaf.shape for path, leaf in flat.items()}


def transformers_name(path: tuple[str, ...]) -> str:
    """transformers' name of the parameter with this path."""
    tower, *owners = path
    if not owners[0].endswith("_projection"):
        group = ["embeddings"] if owners[0].endswith("_embedding") else []
        owners = [f"{tower}_model", *group, *owners]
    if owners[-1] in ("kernel", "scale", "embedding"):
        owners[-1] = "weight"
    return ".".join(owners).replace("layers_", "layers.")


def _load_params(folder: Path, vision: VisionTower, text: TextTower) -> tuple[dict[str, Params], str]:
    flat: dict[tuple[str, ...], np.ndarray] = {}
    shapes = parameter_shapes(vision, text)
    paths = {transformers_name(path): path for path in shapes}

    def keep(name: str, tensor: np.ndarray) -> None:
        path = paths[name]
        if not np.isfinite(tensor).all():
            raise InputError(f'"{folder}": {name} has numbers that are not finite; fetch the weights again')
        flat[path] = (_from_torch(tensor) if path[-1] == "kernel" else tensor).astype(np.float32)

    tensors = find_tensors(folder, ignored=_IGNORED, transformers_class="CLIPModel")
    stored = {
        name: _torch_shape(shapes[path]) if path[-1] == "kernel" else shapes[path] for name, path in paths.items()
    }
    sha256 = read_tensors(folder, tensors, stored, keep)
    return unflatten_dict(flat), sha256


def _from_torch(kernel: np.ndarray) -> np.ndarray:
    """[out, in] -> [in, out], and [out, in, height, width] -> [height, width, in, out]."""
    return np.moveaxis(kernel, (0, 1), (-1, -2))


def _torch_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (shape[-1], shape[-2], *shape[:-2])
