"""What a CLIP sees of an image: short side to its size by Pillow's bicubic, the centre, and its mean and deviation."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from imagen_jax.errors import InputError
from imagen_jax.files import read_json
from imagen_jax.json_values import shown
from imagen_jax.resize import pil_bicubic
from imagen_jax.types import Array

_FILE = "preprocessor_config.json"
# OpenAI's, of their training images.
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)
# What can't be left out or done in another way. 3 is Pillow's number of bicubic.
_STEPS: dict[str, tuple[Any, ...]] = dict.fromkeys(
    ("do_resize", "do_center_crop", "do_rescale", "do_normalize"), (True,)
)
_STEPS |= {"resample": (3,), "rescale_factor": (1 / 255,)}
# Of means and deviations of pixels in 0..1.
_MOST = 10.0
# Pillow's resampling of 8-bit pixels keeps weights in so many bits after the point.
_BITS = 22


@dataclass(frozen=True)
class Preprocessing:
    """Attributes: size: of the square that the network sees, in pixels. mean, std: of R, G and B in 0..1."""

    size: int
    mean: tuple[float, ...] = _MEAN
    std: tuple[float, ...] = _STD


def read_preprocessing(folder: Path, image_size: int) -> Preprocessing:
    """What preprocessor_config.json says; without that file, OpenAI's values.

    Args:
      image_size: the network's.

    Raises:
      InputError: the file is damaged, asks for other steps than those above, or for another size than the network's.
    """
    path = folder / _FILE
    if not path.is_file():
        return Preprocessing(image_size)
    config = read_json(path, expected="how a CLIP's images are prepared")
    sizes = {  # a number in older files
        "size": ({"shortest_edge": image_size}, image_size),
        "crop_size": ({"height": image_size, "width": image_size}, image_size),
    }
    for key, known in (_STEPS | sizes).items():
        if key in config and config[key] not in known:
            raise InputError(
                f'"{path}" has {key} {shown(config[key])}; expected {known[0]!r}: nothing else is done here'
            )
    mean = _numbers(path, config, "image_mean", _MEAN, least=-10.0)
    std = _numbers(path, config, "image_std", _STD, least=1e-3)
    return Preprocessing(image_size, mean, std)


def preprocess(images: Array, how: Preprocessing) -> jax.Array:
    """uint8 [N,H,W,3] -> float32 [N,size,size,3], as transformers' CLIPImageProcessor on Pillow prepares images.

    That one (CLIPImageProcessorPil) resizes horizontally, rounds to 0..255, and then does so vertically. This comes to
    the same integers, since Pillow's sums are in fixed point and these too; what is scaled is within 2e-6. Only Pillow
    13 differs, for images more than twice as tall as wide that shrink: there it begins vertically.
    """
    height, width = images.shape[1:3]
    short = min(height, width)
    rows, columns = (_weights(length, how.size * length // short, how.size) for length in (height, width))
    x = _resized(jnp.einsum("pw,nhwc->nhpc", columns, jnp.asarray(images, jnp.int32)))
    x = _resized(jnp.einsum("ph,nhwc->npwc", rows, x))
    mean, std = (np.asarray(values, np.float32)[None, None, None] for values in (how.mean, how.std))
    return (x.astype(jnp.float32) / 255.0 - mean) / std


def _weights(size_in: int, size_out: int, crop: int) -> np.ndarray:
    """int32 [crop, size_in], of the resized axis's centre."""
    weights = pil_bicubic(size_in, size_out) * 2**_BITS
    start = (size_out - crop) // 2
    return np.trunc(weights + np.copysign(0.5, weights)).astype(np.int32)[start : start + crop]


def _resized(sums: jax.Array) -> jax.Array:
    return jnp.clip((sums + (1 << (_BITS - 1))) >> _BITS, 0, 255)


def _numbers(
    path: Path, config: dict[str, Any], key: str, usual: tuple[float, ...], *, least: float
) -> tuple[float, ...]:
    values = config.get(key, usual)
    if (
        not isinstance(values, list | tuple)
        or [type(value) in (int, float) for value in values] != [True] * 3
        or not all(least <= value <= _MOST for value in values)
    ):
        raise InputError(f'"{path}" has {key} {shown(values)}; expected three numbers from {least:g} to {_MOST:g}')
    return tuple(float(value) for value in values)
