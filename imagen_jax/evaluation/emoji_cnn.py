"""A small feature network that comes with the package: distances between sets of images without any download.

It was trained on emoji alone (benchmarks/emoji_cnn.py), so that its distances compare emoji-like pictures with each
other. They are no FIDs, and compare with no published number; docs/emoji_cnn.md has what they see and what they miss.
"""

import hashlib
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from flax.traverse_util import unflatten_dict

from imagen_jax.errors import InputError
from imagen_jax.evaluation.features import FeatureExtractor, FeatureId, FeatureName
from imagen_jax.evaluation.kernel_distance import gaussian_mmd2
from imagen_jax.resize import FLAVOURS, prepare
from imagen_jax.types import Array, Params

NAME = "emojicnn_v1"
IMAGE_SIZE = 64
TAP = "128"
WEIGHTS = Path(__file__).with_name("emoji_cnn_v1.safetensors")
# Other weights are another metric: they need another name.
WEIGHTS_SHA256 = "a9aba86134fbd9ea947916452afca713472f3c0ff6c4711048d0811881dff3cc"
# Of v1, as the weights are: a quarter of the root mean square distance between two emoji. With the whole distance, 320
# images repeated could not be told from 1,280 distinct ones.
MMD_SIGMA = 4.0

# (width, kernel) of the convolutions, each of which halves the image.
_CONVOLUTIONS = ((32, 5), (64, 3), (96, 3), (128, 3))
# Below the root, whose slope at 0 would be infinite.
_FLOOR = 1e-4


class EmojiCNN(nn.Module):
    """Images float32 [B,64,64,3] in [-1, 1] -> features float32 [B,128], none negative.

    Four convolutions with ReLU, and the square root of the mean over positions: 187 thousand parameters. Nothing is
    normalised, because contrast and sharpness are what distances should see.
    """

    @nn.compact
    def __call__(self, images: Array) -> jax.Array:
        x = jnp.asarray(images)
        for width, kernel in _CONVOLUTIONS:
            x = nn.Conv(width, (kernel, kernel), strides=2, precision=jax.lax.Precision.HIGHEST)(x)
            x = nn.relu(x)
        return jnp.sqrt(jnp.mean(x, axis=(1, 2)) + _FLOOR)


def emoji_features(batch_size: int = 64) -> FeatureExtractor:
    """The network's features of images of any size, as tap "128".

    Images are brought to 64 px by Pillow's bicubic with antialiasing (`FLAVOURS["clean"]`): finer detail is not seen.

    Raises:
      InputError: see `load_emoji_cnn`.
    """

    def apply(params: Params, images: jax.Array) -> dict[str, jax.Array]:
        features = EmojiCNN().apply({"params": params}, resized(images))
        assert isinstance(features, jax.Array)
        return {TAP: features}

    ids = {TAP: FeatureId(NAME, "", "", WEIGHTS_SHA256)}
    return FeatureExtractor(apply, load_emoji_cnn(), ids, name=FeatureName(NAME), batch_size=batch_size)


def resized(images: Array) -> jax.Array:
    """uint8 [B,H,W,3] -> float32 [B,64,64,3] in [-1, 1], what `EmojiCNN` takes."""
    return prepare(images, flavour=FLAVOURS["clean"], size=IMAGE_SIZE)


def emoji_mmd(a: np.ndarray, b: np.ndarray) -> float:
    """mmd_emojicnn_v1: 1000 times `gaussian_mmd2` of this network's features [N,128] and [M,128] with sigma = 4."""
    return 1000.0 * gaussian_mmd2(a, b, sigma=MMD_SIGMA)


def load_emoji_cnn(path: Path = WEIGHTS) -> Params:
    """The parameters of `EmojiCNN` in float32; the file has them in float16.

    Raises:
      InputError: the file is missing, damaged, or has other weights than v1's.
    """
    if not path.is_file():
        raise InputError(f'"{path}" is missing; expected the weights that come with the package: install it again')
    data = path.read_bytes()
    if (found := hashlib.sha256(data).hexdigest()) != WEIGHTS_SHA256:
        raise InputError(
            f'"{path}" has the sha256 {found}; expected {WEIGHTS_SHA256}, the weights of {NAME}: install the package '
            "again, or give other weights another name"
        )
    tensors = safetensors.numpy.load(data)
    return unflatten_dict({name: tensor.astype(np.float32) for name, tensor in tensors.items()}, sep=".")
