"""From a config's values to what measures a run while it trains: grids, metrics and the loss of held-out examples."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from imagen_jax import build
from imagen_jax.data.pipeline import make_dataset, stack_text
from imagen_jax.data.preprocess import full_image, stage_input
from imagen_jax.data.sources import Source
from imagen_jax.data.text_store import TextStore
from imagen_jax.errors import InputError
from imagen_jax.evaluation.data_images import Searchable, SourceImages, names_of
from imagen_jax.evaluation.metrics import Inputs, make_metrics, needs_of
from imagen_jax.evaluation.reference import REFERENCE_CACHE, Reference
from imagen_jax.evaluation.sample_grid import SampleGrid
from imagen_jax.evaluation.sample_metrics import SampleMetrics
from imagen_jax.sampling.cascade import StageConfig, make_stage
from imagen_jax.text.embeddings import Embeddings
from imagen_jax.text.encoder import load_encoder
from imagen_jax.training.held_out import HeldOutLoss


def check(config: Any) -> None:
    """Looks every name of `config.evaluation` up, so that a wrong one is an error before anything is read or compiled.

    Raises:
      InputError: an unknown metric.
    """
    for name in _metric_names(config):
        with build.named("config.evaluation.metrics"):
            needs_of(name)


def split(config: Any, source: Source) -> tuple[list[int] | None, list[int]]:
    """Divides the records of `source` into those that are trained on (None: all) and `config.data.held_out` others.

    Raises:
      InputError: nothing is left to train on.
    """
    count = config.data.held_out
    if not count:
        return None, []
    if count >= len(source):
        raise InputError(
            f"config.data.held_out = {count} leaves nothing to train on of the {len(source)} examples of "
            f"{config.data.source}; use less than {len(source)}"
        )
    # The end of the order whose beginning `sample_metrics` takes its captions from.
    order = np.random.default_rng(config.seed).permutation(len(source))
    return sorted(map(int, order[:-count])), sorted(map(int, order[-count:]))


def held_out_loss(config: Any, *, source: Source, text_store: TextStore, rows: Sequence[int]) -> HeldOutLoss:
    """The loss of these records of `source`, whole images with their captions."""
    data = config.data
    return HeldOutLoss(
        build.task(config, drop=False),
        make_dataset(
            source,
            text_store,
            image_size=data.image_size,
            low_res_size=data.low_res_size or None,
            batch_size=min(len(rows), config.evaluation.batch_size),
            max_tokens=data.max_tokens,
            seed=config.seed,
            shuffle=False,
            rows=rows,
            from_record=build.from_record(config),
        ),
        num_examples=len(rows),
        seed=config.seed,
    )


def sample_grid(config: Any, *, stage: StageConfig, source: Source, text_store: TextStore) -> SampleGrid:
    """The grid of `config.prompts`, of a resolved config.

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
            "from the data set's own images, so its prompts must be captions there; --config.prompts=auto takes some"
        )
    embeddings = {prompt: text_store[index_of[prompt]] for prompt in config.prompts if prompt in index_of}
    if unknown:
        if not config.data.text_encoder:
            raise InputError(
                f'config.prompts: "{unknown[0]}" is no caption of {config.data.source}, and '
                "config.data.text_encoder, which would encode it, is empty; --config.prompts=auto takes captions"
            )
        encoder = load_encoder(config.data.text_encoder, max_length=text_store.max_length)
        if encoder.fingerprint != text_store.encoder_fingerprint:
            raise InputError(
                f'config.data.text_encoder = "{config.data.text_encoder}" is {encoder.name}, but the text store is by '
                f"{text_store.encoder_name}; name that encoder's folder"
            )
        embeddings |= dict(zip(unknown, encoder.encode_ragged(unknown), strict=True))
    given: dict[str, np.ndarray] = stack_text([embeddings[prompt] for prompt in config.prompts], stage.max_tokens)
    if not unknown:
        given |= _given(config, stage, source, [index_of[prompt] for prompt in config.prompts])
    elif config.conditions:
        logging.info(
            'config.prompts: "%s" is no caption of %s, so that in grids conditions of your own take their defaults',
            unknown[0], config.data.source,
        )  # fmt: skip
    return SampleGrid(make_stage(stage), given=given, captions=config.prompts)


def sample_metrics(config: Any, *, stage: StageConfig, source: Source, text_store: TextStore) -> SampleMetrics:
    """The metrics of `config.evaluation`, of samples of the data set's captions, against its images.

    Raises:
      InputError: an unknown metric, or one that lacks what it needs.
    """
    chosen = np.random.default_rng(config.seed).permutation(len(source))
    rows = [int(row) for row in np.sort(chosen[: config.evaluation.num_samples])]
    compared = SourceImages(
        source, image_size=stage.image_size, indices=sorted(map(int, chosen[: config.evaluation.num_reference]))
    )
    search = None
    if not stage.low_res_size and {"names", "memorisation"} & set(_metric_names(config)):
        search = Searchable(source, image_size=stage.image_size)
    metrics = make_metrics(
        _metric_names(config),
        Inputs(
            reference=Reference(compared, cache=Path(config.data.data_dir) / REFERENCE_CACHE),
            prompts=True,
            names=search is not None and search.has_names,
            stages=bool(stage.low_res_size),
            num_samples=len(rows),
            search=search,
            inception_weights=Path(config.evaluation.inception_weights)
            if config.evaluation.inception_weights
            else None,
            clip=Path(config.evaluation.clip) if config.evaluation.clip else None,
            seed=config.seed,
        ),
    )
    captions = source.captions()
    text = Embeddings(
        captions=tuple(captions[row] for row in rows),
        tokens=tuple(text_store[row] for row in rows),
        max_length=stage.max_tokens,
        encoder_name=stage.encoder_name,
        encoder_fingerprint=stage.encoder_fingerprint,
    )
    return SampleMetrics(
        make_stage(stage),
        metrics,
        text=text,
        names=names_of(source, rows),
        given=_given(config, stage, source, rows),
        batch_size=config.evaluation.batch_size,
        seed=config.seed,
    )


def _given(config: Any, stage: StageConfig, source: Source, rows: Sequence[int]) -> dict[str, np.ndarray]:
    """What conditions besides the text are made of, of records of a source: arrays [N,...]."""
    given = {}
    if stage.low_res_size:
        given["low_res"] = low_res_images(source, rows, image_size=stage.image_size, low_res_size=stage.low_res_size)
    if config.conditions:
        make = build.from_record(config)
        made = [make(source[row]) for row in rows]
        given |= {name: np.stack([arrays[name] for arrays in made]) for name in made[0]}
    return given


def low_res_images(source: Source, rows: Sequence[int], *, image_size: int, low_res_size: int) -> np.ndarray:
    """What a super-resolution stage is given of a source's images: [N,low_res_size,low_res_size,3] float32."""
    rng = np.random.default_rng(0)  # whole images: nothing is drawn
    images = source_images(source, rows, image_size=image_size)
    inputs = [stage_input(image, low_res_size=low_res_size, crop_size=None, rng=rng) for image in images]
    return np.stack([item["low_res"] for item in inputs])


def source_images(source: Source, indices: Sequence[int], *, image_size: int) -> np.ndarray:
    """Images of a source as training sees them: [N,image_size,image_size,3] float32 in [-1, 1]."""
    return np.stack([full_image(source[index]["image"], image_size=image_size) for index in indices])


def _metric_names(config: Any) -> list[str]:
    # A command line's "fid,names" comes as one text.
    return [name.strip() for text in config.evaluation.metrics for name in text.split(",")]
