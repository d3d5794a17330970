"""What a user's own project may hold: a network, a condition, a data set, a sampler, a metric, and its config."""

from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from imagen_jax.conditions.keys import training_keys
from imagen_jax.data.sources.base import fingerprint
from imagen_jax.diffusion import gaussian
from imagen_jax.diffusion.samplers import Sampler, denoiser_at
from imagen_jax.evaluation.base import Measure, Samples
from imagen_jax.evaluation.metrics import Inputs
from imagen_jax.models.base import Takes

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "white": (255, 255, 255)}


class Transformer(nn.Module):
    """Patches attend to each other, to the caption and to the mean colour. It has no levels."""

    width: int = 16
    depth: int = 2
    patch: int = 4

    TAKES: ClassVar = Takes(needs=("text_emb", "text_mask", "mean_colour"))

    @property
    def downsampling(self) -> int:
        return self.patch

    @nn.compact
    def __call__(self, z, logsnr, conditions):
        b, height, width, channels = z.shape
        rows, columns = height // self.patch, width // self.patch
        patches = z.reshape(b, rows, self.patch, columns, self.patch, channels).swapaxes(2, 3)
        h = nn.Dense(self.width, name="embed")(patches.reshape(b, rows * columns, -1))
        h = h + self.param("place", nn.initializers.normal(0.02), (1, rows * columns, self.width))
        levels = jnp.stack([jnp.tanh(logsnr / 4), jnp.tanh(logsnr)], axis=-1)
        colour = nn.Dense(self.width, name="colour")(conditions["mean_colour"])
        told = nn.Dense(self.width, name="level")(levels) + colour
        text = nn.Dense(self.width, name="text")(conditions["text_emb"].astype(jnp.float32))
        seen = jnp.concatenate([text, told[:, None]], axis=1)
        mask = jnp.concatenate([conditions["text_mask"], jnp.ones((b, 1), bool)], axis=1)[:, None, None, :]
        for block in range(self.depth):
            h = h + nn.MultiHeadDotProductAttention(2, name=f"to_patches{block}")(nn.LayerNorm()(h))
            h = h + nn.MultiHeadDotProductAttention(2, name=f"to_told{block}")(nn.LayerNorm()(h), seen, mask=mask)
            h = h + nn.Dense(self.width)(nn.swish(nn.Dense(2 * self.width)(nn.LayerNorm()(h))))
        h = nn.Dense(self.patch**2 * channels, kernel_init=nn.initializers.zeros, name="out")(nn.LayerNorm()(h))
        h = h.reshape(b, rows, columns, self.patch, self.patch, channels).swapaxes(2, 3)
        return h.reshape(z.shape)


class MeanColour:
    """mean_colour [B,3] in [-1, 1], of the picture; grey for a tenth of the examples, and where none is given."""

    def given(self, shape):
        return {"mean_colour": jax.ShapeDtypeStruct((3,), jnp.float32)}

    def seen(self, shape):
        return self.given(shape)

    def from_record(self, record):
        return {"mean_colour": (record["image"].mean(axis=(0, 1)) / 127.5 - 1).astype(np.float32)}

    def default(self, count, *, shape):
        return {"mean_colour": np.zeros((count, 3), np.float32)}

    def for_training(self, given, keys, *, shape):
        drop = jax.vmap(lambda key: jax.random.bernoulli(key, 0.1))(training_keys(keys, "mean_colour"))
        return {"mean_colour": jnp.where(drop[:, None], 0.0, given["mean_colour"])}

    def for_sampling(self, given, keys, *, shape, settings):
        return {"mean_colour": jnp.asarray(given["mean_colour"])}

    def null(self, seen):
        return {"mean_colour": jnp.zeros_like(seen["mean_colour"])}


class Squares:
    """A square of each colour on black, in two sizes."""

    def __init__(self, spec: str):
        self.spec = spec
        self._records = [(name, side) for name in COLOURS for side in (6, 10)]
        self.fingerprint = fingerprint(self.captions(), [str(record) for record in self._records])

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        name, side = self._records[index]
        image = np.zeros((16, 16, 3), np.uint8)
        image[8 - side // 2 : 8 + side // 2, 8 - side // 2 : 8 + side // 2] = COLOURS[name]
        return {"image": image, "caption": self.captions()[index], "name": name}

    def captions(self) -> list[str]:
        return [f"a {'small' if side == 6 else 'large'} {name} square" for name, side in self._records]


def open_squares(spec: str, data_dir: str) -> Squares:
    return Squares(spec)


def _straight(denoise_fn, keys, z_init, *, logsnrs, blur=0.0):
    z = x = z_init
    for here, after in zip(logsnrs, [*logsnrs[1:], logsnrs[-1] + 1.0], strict=True):
        level = jnp.full(len(z), here)
        x = denoiser_at(denoise_fn, float(here))(z, level).x
        z = gaussian.diffuse(x=x, eps=gaussian.eps_from_x(z=z, x=x, logsnr=level), logsnr=jnp.full(len(z), after))
    return x


straight = Sampler(_straight)


class Brightness:
    alignment = False
    made_of: Mapping[str, Any] = {}

    def __call__(self, samples: Samples) -> dict[str, Measure]:
        images = samples.final
        pixels = np.stack(list(images.read(range(len(images)))))
        return {"brightness": Measure(float(pixels.mean()))}


def brightness(inputs: Inputs) -> Brightness:
    return Brightness()


def get_config():
    from imagen_jax.config import base_config

    config = base_config()
    config.prompts, config.conditions = ("a small red square",), ("tests.own_project:MeanColour",)
    config.data.update(source="tests.own_project:open_squares", image_size=16, batch_size=8, max_tokens=8)
    config.model.update(name="tests.own_project:Transformer", depth=1, dtype="float32")
    config.diffusion.update(prediction="v", weighting="v")
    config.optimizer.update(learning_rate=1e-3, warmup_steps=2, decay_steps=60)
    config.train.update(num_steps=5, log_every=1, checkpoint_every=5, sample_every=5)
    config.evaluation.update(metrics=("tests.own_project:brightness",), every=5, num_samples=8, batch_size=8)
    config.sampling.update(sampler="tests.own_project:straight", num_steps=3, guidance_weight=2.0, threshold="static")
    return config
