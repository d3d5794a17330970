"""Trains the feature network of imagen_jax/evaluation/emoji_cnn.py on emoji.

python -m benchmarks.emoji_cnn --out=FILE.safetensors      5 minutes on one core

It learns the Unicode subgroup and the style of undamaged emoji, and of others how much they were blurred or noised:
a classifier alone becomes blind to that. Mirror images and other colours are not taught to be the same. The file is
another one on another machine, by rounding: v1 is the one that is committed, and a new one is another version.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import safetensors.numpy
from absl import flags
from flax.traverse_util import flatten_dict

from benchmarks.damage import blur
from benchmarks.emoji_images import read_emoji
from imagen_jax import cli
from imagen_jax.evaluation.emoji_cnn import EmojiCNN, resized
from imagen_jax.files import write_bytes
from imagen_jax.types import Array, Params

_OUT = flags.DEFINE_string("out", None, "The file of weights to write.", required=True)
_DATA_DIR = flags.DEFINE_string("data_dir", "datasets", "Where data sets are built and looked for.")
_STEPS = flags.DEFINE_integer("steps", 2000, "Steps of training.", lower_bound=1)

SEED = 0
BATCH_SIZE = 64
PEAK_LEARNING_RATE = 2e-3
WARMUP_SHARE = 0.05
WEIGHT_DECAY = 0.02
# Of an image in training: 64 px, 0..255.
MAX_SHIFT_PX = 4
MIN_BLUR_PX, MAX_BLUR_PX = 0.3, 3.0
MAX_NOISE = 64.0
WHITE = 255.0
# Of its squared error, which is hundreds of times smaller than the loss of 200 classes.
DAMAGE_WEIGHT = 20.0


class Classifier(nn.Module):
    """Images [B,64,64,3] in [-1, 1] -> logits [B,num_classes], and the two strengths of damage [B,2]."""

    num_classes: int

    @nn.compact
    def __call__(self, images: Array) -> tuple[jax.Array, jax.Array]:
        features = EmojiCNN(name="features")(images)
        return nn.Dense(self.num_classes, name="logits")(features), nn.Dense(2, name="damage")(features)


def main() -> None:
    """Trains, writes the weights, and prints how well held-out emoji are known."""
    images, records = read_emoji("train", data_dir=_DATA_DIR.value)
    classes = sorted({_class(record) for record in records})
    labels = np.array([classes.index(_class(record)) for record in records])
    params = _train(images, labels, len(classes))
    _write(Path(_OUT.value), _scaled(params["features"], images))
    groups = {record["subgroup"]: record["group"] for record in records}
    images, records = read_emoji("test", data_dir=_DATA_DIR.value)
    logits: Any = Classifier(len(classes)).apply({"params": params}, resized(images))
    found = [classes[index] for index in np.argmax(logits[0], axis=1)]
    pairs = [(_class(record), guess) for record, guess in zip(records, found, strict=True)]
    print(f"held-out group:    {np.mean([groups[a[0]] == groups[b[0]] for a, b in pairs]):.3f}")
    print(f"held-out subgroup: {np.mean([a[0] == b[0] for a, b in pairs]):.3f}")
    print(f"held-out style:    {np.mean([a[1] == b[1] for a, b in pairs]):.3f}")


def _class(record: dict[str, str]) -> tuple[str, str]:
    return record["subgroup"], record["style"]


def _train(images: np.ndarray, labels: np.ndarray, num_classes: int) -> Params:
    network = Classifier(num_classes)
    warmup_steps = round(WARMUP_SHARE * _STEPS.value)
    schedule = optax.warmup_cosine_decay_schedule(0.0, PEAK_LEARNING_RATE, warmup_steps, _STEPS.value)
    optimizer = optax.adamw(schedule, weight_decay=WEIGHT_DECAY)

    def loss(params: Params, key: jax.Array, x: jax.Array, y: jax.Array) -> tuple[jax.Array, Any]:
        x, strengths = augment(key, x)
        outputs: Any = network.apply({"params": params}, resized(x))
        logits, found = outputs
        undamaged = jnp.all(strengths == 0.0, axis=1)
        classification = optax.softmax_cross_entropy_with_integer_labels(logits, y)
        classification = jnp.sum(classification * undamaged) / jnp.sum(undamaged)
        damage = jnp.mean((found - strengths) ** 2)
        return classification + DAMAGE_WEIGHT * damage, (classification, damage)

    @jax.jit
    def step(params: Any, state: Any, key: jax.Array, x: jax.Array, y: jax.Array) -> tuple[Any, Any, Any]:
        grads, losses = jax.grad(loss, has_aux=True)(params, key, x, y)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, losses

    key = jax.random.key(SEED)
    params = network.init(key, resized(images[:1]))["params"]
    state = optimizer.init(params)
    for number, chosen in zip(range(_STEPS.value), _batches(len(images)), strict=False):
        params, state, losses = step(params, state, jax.random.fold_in(key, number), images[chosen], labels[chosen])
        if (number + 1) % 100 == 0:
            print(f"step {number + 1}: class loss {losses[0]:.3f}, damage loss {losses[1]:.4f}", flush=True)
    return params


def _batches(count: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(SEED)
    while True:
        order = rng.permutation(count)
        yield from (order[start : start + BATCH_SIZE] for start in range(0, count - BATCH_SIZE + 1, BATCH_SIZE))


def augment(key: jax.Array, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Shifts all images, blurs a quarter of them and adds noise to another.

    Args:
      images: uint8 [B,64,64,3].

    Returns:
      float32 [B,64,64,3], whole numbers in 0..255, and the strengths of blur and noise [B,2], each in [0, 1].
    """
    keys = jax.random.split(key, 4)
    padding = ((0, 0), (MAX_SHIFT_PX, MAX_SHIFT_PX), (MAX_SHIFT_PX, MAX_SHIFT_PX), (0, 0))
    padded = jnp.pad(jnp.asarray(images, jnp.float32), padding, constant_values=WHITE)
    starts = jax.random.randint(keys[0], (len(images), 2), 0, 2 * MAX_SHIFT_PX + 1)
    x = jax.vmap(lambda image, at: jax.lax.dynamic_slice(image, (*at, 0), images.shape[1:]))(padded, starts)
    strength = jax.random.uniform(keys[1], (len(x),))
    # 0 blur, 1 noise, 2 and 3 neither.
    kind = jax.random.randint(keys[2], (len(x), 1, 1, 1), 0, 4)
    soft = blur(x, MIN_BLUR_PX + (MAX_BLUR_PX - MIN_BLUR_PX) * strength)
    noisy = x + MAX_NOISE * strength[:, None, None, None] * jax.random.normal(keys[3], x.shape)
    x = jnp.where(kind == 0, soft, jnp.where(kind == 1, noisy, x))
    strengths = jnp.where(kind[:, :, 0, 0] == jnp.arange(2)[None], strength[:, None], 0.0)
    return jnp.round(jnp.clip(x, 0.0, WHITE)), strengths


def _scaled(params: Params, images: np.ndarray) -> Params:
    """The same features by one factor, so that their variances over the images have a mean of 1."""
    found: Any = jax.jit(EmojiCNN().apply)({"params": params}, resized(images))
    # Features are roots of what is linear in the last kernel and its bias.
    factor = 1.0 / jnp.mean(jnp.var(found, axis=0))
    last = max(params)
    return {**params, last: jax.tree.map(lambda tensor: tensor * factor, params[last])}


def _write(path: Path, params: Params) -> None:
    tensors = {name: np.asarray(tensor, np.float16) for name, tensor in flatten_dict(params, sep=".").items()}
    write_bytes(path, safetensors.numpy.save(tensors))
    print(f"{path}: sha256 {hashlib.sha256(path.read_bytes()).hexdigest()}")


if __name__ == "__main__":
    cli.run(main)
