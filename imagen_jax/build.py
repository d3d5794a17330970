"""From a config's values to the parts that they describe; what the mains share.

The only place, besides the mains, that knows both the config's layout and the parts.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from imagen_jax.conditions import Condition, inputs, make_conditions
from imagen_jax.data.text_store import TextStore
from imagen_jax.diffusion.objective import PLAIN, TARGETS, WEIGHTINGS
from imagen_jax.diffusion.schedules import Schedule, make_schedule
from imagen_jax.errors import InputError
from imagen_jax.fields import nearest_multiples
from imagen_jax.models import make_model
from imagen_jax.models.base import check_conditions, compute_dtype, size_multiple
from imagen_jax.planning.work import Work, count_work
from imagen_jax.registry import lookup
from imagen_jax.resolve import resolve
from imagen_jax.sampling.cascade import StageConfig
from imagen_jax.sampling.settings import SamplingSettings
from imagen_jax.sampling.stage import Stage
from imagen_jax.training.optimizer import learning_rate_schedule, make_optimizer
from imagen_jax.training.parallel import STRATEGIES
from imagen_jax.training.state import TrainState, create_state
from imagen_jax.training.step import StepSettings, train_step
from imagen_jax.training.tasks import Diffusion, Task
from imagen_jax.types import Params

# Of one example beside another: chosen by us, far above what any useful weighting reaches.
_MAX_WEIGHT = 1e3
_IMAGE_CHANNELS = 3
# Of T5-XXL.
_PAPER_TEXT_WIDTH = 4096


def check(config: Any) -> None:
    """Looks the names of `config` up, so that a wrong one is an error before anything is read or compiled.

    Those of metrics: `evaluators.check`.

    Raises:
      InputError: an unknown model, attribute, schedule, prediction type, weighting, optimizer, sampler or threshold; or
        a network that doesn't fit the images.
    """
    _check_model(config)
    with named("config.conditions"):
        shapes = inputs.network_shapes(conditions(config), _trained_shape(config))
        check_conditions(model(config), shapes["conditions"])
    with named("config.optimizer"):
        optimizer(config)
    with named("config.diffusion.schedule"):
        schedule(config)
    with named("config.diffusion.prediction"):
        lookup(TARGETS, config.diffusion.prediction, what="prediction type")
    with named("config.diffusion.weighting"):
        lookup(WEIGHTINGS, config.diffusion.weighting, what="loss weighting")
    with named("config.train.strategy"):
        lookup(STRATEGIES, config.train.strategy, what="strategy")
    _check_sampling(config)
    _check_weights(prediction=config.diffusion.prediction, weighting=config.diffusion.weighting)


@contextlib.contextmanager
def named(path: str) -> Iterator[None]:
    """Says of an InputError inside which field it is about."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _check_model(config: Any) -> None:
    with named("config.model"):
        network: Any = model(config)
    multiple = size_multiple(network)
    for name in ("image_size", "crop_size"):
        size = config.data[name]
        if size % multiple:
            raise InputError(
                f"config.data.{name} = {size} can't be halved as often as the network's levels ask; it takes multiples "
                f"of {multiple}, such as {nearest_multiples(size, multiple)}"
            )
    out_channels = getattr(network, "out_channels", _IMAGE_CHANNELS)
    if out_channels != _IMAGE_CHANNELS:
        raise InputError(
            f"config.model.out_channels = {out_channels} is for other programs; images have {_IMAGE_CHANNELS}"
        )
    if config.model.get("low_res_residual") and not (config.diffusion.prediction == "x" and config.data.low_res_size):
        raise InputError(
            f"config.model.low_res_residual is for super-resolution stages that predict x "
            f"(config.diffusion.prediction = {config.diffusion.prediction!r}, "
            f"config.data.low_res_size = {config.data.low_res_size}); set it to False"
        )


def _check_sampling(config: Any) -> None:
    with named("config.sampling"):
        stage = Stage(
            model(config),
            conditions=conditions(config),
            shape=(config.data.image_size, config.data.image_size, _IMAGE_CHANNELS),
            schedule=config.diffusion.schedule,
            prediction=config.diffusion.prediction,
            settings=SamplingSettings(**config.sampling.to_dict()),
        )
        stage.noise_levels()


def _check_weights(*, prediction: str, weighting: str) -> None:
    """Plain squared error in one space may be unbounded in another: one example at an end would be all that counts."""
    if weighting not in PLAIN:
        return
    ends = jnp.array([-20.0, 20.0])
    largest = float(jnp.exp(PLAIN[weighting](ends) - PLAIN[prediction](ends)).max())
    if largest > _MAX_WEIGHT:
        raise InputError(
            f"config.diffusion.weighting = {weighting!r} gives examples weights of up to {largest:.0e} with "
            f"config.diffusion.prediction = {prediction!r}; weighting = 'plain' is its plain squared error"
        )


def open_text_store(config: Any) -> TextStore:
    """The text store of `config.data`.

    Raises:
      InputError: there is none, or its texts were cut at another length than `config.data.max_tokens`, so that a long
        prompt would be cut in another way when sampling.
    """
    if not config.data.text_store:
        raise InputError(
            "config.data.text_store is empty; expected the folder that was written by: python -m "
            f"imagen_jax.precompute_text --encoder=DIR --data={config.data.source or 'SPEC'} --out=STORE"
        )
    store = TextStore(config.data.text_store)
    if store.max_length != config.data.max_tokens:
        raise InputError(
            f'"{config.data.text_store}" holds texts of up to {store.max_length} tokens, and config.data.max_tokens = '
            f"{config.data.max_tokens}; set that to {store.max_length}, or compute the store with "
            f"--max_length={config.data.max_tokens}"
        )
    return store


def model(config: Any) -> nn.Module:
    """Makes the network of `config.model`."""
    return make_model(**config.model.to_dict())


def optimizer(config: Any) -> optax.GradientTransformation:
    """Makes the optimizer of `config.optimizer`."""
    return make_optimizer(**resolve(config).optimizer.to_dict())


def learning_rate(config: Any) -> optax.Schedule:
    """The learning rate of `config.optimizer` by the number of updates."""
    settings = resolve(config).optimizer
    return learning_rate_schedule(
        settings.learning_rate, warmup_steps=settings.warmup_steps, decay_steps=settings.decay_steps
    )


def schedule(config: Any) -> Schedule:
    """The noise schedule of `config.diffusion`, for images of the stage's size."""
    return make_schedule(config.diffusion.schedule, image_size=config.data.image_size)


def task(config: Any, *, text_width: int = 0, drop: bool = True) -> Task:
    """Makes what a config has learned: its network denoises, with the loss of `config.diffusion`.

    Args:
      text_width, drop: as of `conditions`.
    """
    diffusion = config.diffusion
    return Diffusion(
        model(config),
        conditions=conditions(config, text_width=text_width, drop=drop),
        shape=_trained_shape(config),
        schedule=schedule(config),
        prediction=diffusion.prediction,
        weighting=diffusion.weighting,
        trainable=config.train.trainable,
    )


def conditions(config: Any, *, text_width: int = 0, drop: bool = True) -> tuple[Condition, ...]:
    """Makes the conditions of a config, which say what its network is told.

    Args:
      text_width: D of the texts, which only shapes depend on.
      drop: whether captions are dropped, as in training.
    """
    data, diffusion = config.data, config.diffusion
    return make_conditions(
        max_tokens=data.max_tokens,
        text_width=text_width,
        image_size=data.image_size,
        low_res_size=data.low_res_size,
        drop_rate=diffusion.caption_drop_rate if drop else 0.0,
        max_aug_level=diffusion.max_aug_level,
        own=config.conditions,
    )


def from_record(config: Any) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """Returns what makes the arrays of a config's conditions of a source's record, for the data pipeline."""
    return partial(inputs.from_record, conditions(config))


def _trained_shape(config: Any) -> tuple[int, ...]:
    """(H, W, C) of the images, or crops of them, that a config trains on."""
    size = config.data.crop_size or config.data.image_size
    return size, size, _IMAGE_CHANNELS


def step(config: Any, *, platform: str | None = None) -> Any:
    """Makes `train_step(state, frozen, batch, key, placement=...)` of a config, for `training.parallel`.

    Args:
      platform: of the devices that it is for, "cpu", "gpu" or "tpu"; None: of jax's default ones.
    """
    return partial(
        train_step,
        task=task(config),
        optimizer=optimizer(config),
        settings=StepSettings(
            ema_decay=config.ema_decay,
            learning_rate=learning_rate(config),
            stratified_times=config.diffusion.stratified_times,
            accumulate_steps=config.train.accumulate_steps,
            unroll=(platform or jax.default_backend()) == "cpu",
            compute_dtype=compute_dtype(model(config)),
        ),
    )


def batch_shapes(config: Any, *, text_width: int) -> dict[str, jax.ShapeDtypeStruct]:
    """A batch's arrays [B,...] as the data pipeline makes them, B of all devices together."""
    told = conditions(config, text_width=text_width)
    return inputs.batch_shapes(told, _trained_shape(config), batch_size=config.data.batch_size)


def text_width(config: Any) -> tuple[int, str]:
    """D of the texts, and whose it is: the store's of `config.data`, or T5-XXL's, the paper's, before there is one."""
    folder = config.data.text_store
    if folder and Path(folder).is_dir():
        return TextStore(folder).width, folder
    return _PAPER_TEXT_WIDTH, "T5-XXL's, as there is no text store yet"


def work(config: Any, *, text_width: int) -> Work:
    """Counts from shapes what a step of a config has to do."""
    state, frozen = shapes(config, text_width=text_width)
    return count_work(task(config), state.params, frozen, batch_shapes(config, text_width=text_width))


def create(config: Any, *, text_width: int) -> Callable[..., tuple[TrainState, Params]]:
    """Makes `create(key, start=None)` -> a fresh state and the frozen parameters: see `training.state.create_state`.

    For `jax.jit`; `shapes` is for what they look like.
    """
    return partial(create_state, task(config, text_width=text_width), optimizer(config))


def shapes(config: Any, *, text_width: int) -> tuple[TrainState, Params]:
    """Returns shapes and types of a fresh state and of the frozen parameters, which needs no memory.

    Raises:
      InputError: `config.train.trainable` fits no parameter.
    """
    return jax.eval_shape(create(config, text_width=text_width), jax.random.key(0))


def stage_config(config: Any, *, text_store: TextStore) -> StageConfig:
    """Makes what a cascade must know of the stage that `config` trains."""
    return StageConfig(
        name=f"stage_{config.data.image_size}",
        model=config.model.to_dict(),
        image_size=config.data.image_size,
        low_res_size=config.data.low_res_size or None,
        schedule=config.diffusion.schedule,
        prediction=config.diffusion.prediction,
        max_aug_level=config.diffusion.max_aug_level,
        max_tokens=config.data.max_tokens,
        text_width=text_store.width,
        sampling=config.sampling.to_dict(),
        encoder_name=text_store.encoder_name,
        encoder_fingerprint=text_store.encoder_fingerprint,
        text_encoder=str(Path(config.data.text_encoder).resolve()) if config.data.text_encoder else "",
        source=config.data.source,
        source_fingerprint=text_store.source_fingerprint,
        conditions=tuple(config.conditions),
    )
