"""From a config's values to the parts that they describe; what the mains share.

The only place, besides the mains, that knows both the config's layout and the parts.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import numpy as np
import optax

from imagen_jax.data.pipeline import pad_text
from imagen_jax.data.preprocess import full_image, stage_input
from imagen_jax.data.sources import Source
from imagen_jax.data.text_store import TextStore
from imagen_jax.diffusion.schedules import SCHEDULES
from imagen_jax.errors import InputError
from imagen_jax.evaluation.sample_grid import SampleGrid
from imagen_jax.models import make_model
from imagen_jax.registry import lookup
from imagen_jax.sampling.cascade import StageConfig, make_stage
from imagen_jax.text.encoder import load_encoder
from imagen_jax.training.optimizer import make_optimizer
from imagen_jax.training.state import create_state, model_inputs
from imagen_jax.training.step import LossFn, make_loss_fn, train_step


def model(config: Any) -> nn.Module:
    """The network of `config.model`."""
    return make_model(**config.model.to_dict())


def optimizer(config: Any) -> optax.GradientTransformation:
    """The optimizer of `config.optimizer`."""
    return make_optimizer(**config.optimizer.to_dict())


def loss_fn(config: Any) -> LossFn:
    """The loss of `config.diffusion` for the network of `config.model`."""
    values = config.diffusion.to_dict()
    return make_loss_fn(model(config), **values | {"schedule": lookup(SCHEDULES, values["schedule"], what="schedule")})


def step(config: Any) -> Any:
    """`train_step(state, batch, key, axis_name=...)` of a config, for `training.parallel`."""
    return partial(train_step, loss_fn=loss_fn(config), optimizer=optimizer(config), ema_decay=config.ema_decay)


def create(config: Any, *, text_width: int) -> Any:
    """`create(key)` -> a fresh TrainState; for `jax.jit`, or for `jax.eval_shape`, which needs no memory."""
    inputs = model_inputs(
        batch_size=1,
        image_size=config.data.crop_size or config.data.image_size,
        text_width=text_width,
        max_tokens=config.data.max_tokens,
        has_low_res=bool(config.data.low_res_size),
    )
    return lambda key: create_state(model(config), optimizer(config), key, inputs)


def stage_config(config: Any, *, text_store: TextStore) -> StageConfig:
    """What a cascade must know of the stage that `config` trains."""
    return StageConfig(
        name=f"stage_{config.data.image_size}",
        model=config.model.to_dict(),
        image_size=config.data.image_size,
        low_res_size=config.data.low_res_size or None,
        schedule=config.diffusion.schedule,
        prediction=config.diffusion.prediction,
        max_tokens=config.data.max_tokens,
        text_width=text_store.width,
        sampling=config.sampling.to_dict(),
        provenance={
            "source": config.data.source,
            "text_encoder": config.data.text_encoder,
            "encoder_name": text_store.encoder_name,
            "encoder_fingerprint": text_store.encoder_fingerprint,
        },
    )


def sample_grid(config: Any, *, stage: StageConfig, source: Source, text_store: TextStore) -> SampleGrid:
    """The grid of `config.prompts`.

    Prompts that are captions of the data set use its stored embeddings and, for super-resolution, its images; only
    others need the text encoder, which runs once, here.

    Raises:
      InputError: a super-resolution prompt that isn't a caption of the data set.
    """
    index_of = {caption: index for index, caption in reversed(list(enumerate(source.captions())))}
    unknown = [prompt for prompt in config.prompts if prompt not in index_of]
    if unknown and stage.low_res_size:
        raise InputError(
            f'config.prompts: "{unknown[0]}" is no caption of {config.data.source}; a super-resolution stage samples '
            "from the data set's own images, so its prompts must be captions there"
        )
    embeddings = {prompt: text_store[index_of[prompt]] for prompt in config.prompts if prompt in index_of}
    if unknown:
        encoder = load_encoder(config.data.text_encoder, max_length=text_store.max_length)
        embeddings |= dict(zip(unknown, encoder.encode_ragged(unknown), strict=True))
    padded = [pad_text(embeddings[prompt], stage.max_tokens) for prompt in config.prompts]
    text_emb, text_mask = (np.stack(column) for column in zip(*padded, strict=True))
    low_res = None
    if stage.low_res_size:
        images = source_images(source, [index_of[prompt] for prompt in config.prompts], image_size=stage.image_size)
        rng = np.random.default_rng(0)  # whole images: nothing is drawn
        inputs = [stage_input(image, low_res_size=stage.low_res_size, crop_size=None, rng=rng) for image in images]
        low_res = np.stack([item["low_res"] for item in inputs])
    return SampleGrid(
        make_stage(stage), text_emb=text_emb, text_mask=text_mask, captions=config.prompts, low_res=low_res
    )


def source_images(source: Source, indices: Sequence[int], *, image_size: int) -> np.ndarray:
    """Images of a source as training sees them: [N,image_size,image_size,3] float32 in [-1, 1]."""
    return np.stack([full_image(source[index]["image"], image_size=image_size) for index in indices])
