"""For configs/ and the mains: variants, the checks of a whole config before anything expensive, and its written form.

Below the mains nothing sees a config. Each field's type and bounds are in config_fields.py. What is checked here
besides are relations between fields, which no single function sees. A name (sampler, schedule, source, ...) is checked
where it is looked up, by its own table.
"""

import dataclasses
import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any, TypeVar

from absl import logging
from ml_collections import ConfigDict

from imagen_jax.config_fields import FIELDS, model_fields
from imagen_jax.errors import InputError
from imagen_jax.fields import check_fields, nearest_multiples, show
from imagen_jax.files import user_path
from imagen_jax.registry import did_you_mean
from imagen_jax.resolve import AUTO_PROMPTS, FOLLOW, resolve
from imagen_jax.sampling.settings import SamplingSettings

T = TypeVar("T")

_ALL = ("*",)  # of train.trainable: every parameter

# A run that goes on must keep these, and its network.
_FIXED_FOR_A_RUN = {
    "diffusion.schedule",
    "diffusion.prediction",
    "data.image_size",
    "data.low_res_size",
    "data.max_tokens",
    "data.held_out",
    "conditions",
    "optimizer.name",
    "train.trainable",
}


def base_config() -> Any:
    """Every field of a run; configs/ change what differs. The values are the paper's (Imagen, appendix F).

    Except ema_decay, max_tokens and grad_clip_norm, which it does not give: those are ours.
    """
    # Any: to a type checker a ConfigDict's field could be of every type.
    config: Any = ConfigDict()
    config.seed = 0  # of initialisation, data order and noise
    config.ema_decay = 0.9999  # of the parameters that are sampled and exported; warmed up
    # Of the sample grids. ("auto",): 8 captions of the data set, drawn with the seed; (): no grids.
    config.prompts = AUTO_PROMPTS
    config.conditions = ()  # import paths of conditions of your own, besides the caption and the low-resolution input
    config.data = ConfigDict(
        {
            "source": "",  # see data.sources.open_source: "emoji/food:train", "folder/PATH", "tfds/NAME:SPLIT"
            "data_dir": "datasets",  # where prepared data sets are kept
            "text_store": "",  # embeddings of the source's captions, by precompute_text
            "text_encoder": "",  # the encoder's folder: for other prompts, and for export
            "image_size": 64,  # pixels of a side of the stage's images
            "low_res_size": 0,  # of the stage before; 0: a base stage
            "crop_size": 0,  # train on random crops of this size; 0: on whole images
            "batch_size": 2048,  # images a step, over all devices
            "max_tokens": 128,  # text tokens an example; longer captions are cut
            "held_out": 0,  # examples, drawn with the seed, that are not trained on; their loss is measured instead
        }
    )
    config.model = ConfigDict(
        {
            # name: key of models.MODELS or import path; and the network's own attributes, which its docstring explains.
            "dtype": "bfloat16",  # of the computation; parameters are float32
            "remat": False,  # recompute activations in the backward pass: less memory, a third more compute
        }
    )
    config.diffusion = ConfigDict(
        {
            "schedule": "cosine",  # key of diffusion.schedules.SCHEDULES
            "prediction": "eps",  # eps, v or x
            "weighting": "eps",  # key of diffusion.objective.WEIGHTINGS; plain: squared error of the prediction
            "stratified_times": False,  # spread the times evenly over a batch; False: each t ~ U(0, 1) by itself
            "caption_drop_rate": 0.1,  # share of examples that train the unconditional model
            "max_aug_level": 1.0,  # aug_level ~ U(0, this) for the low-resolution input
        }
    )
    config.optimizer = ConfigDict(
        {
            "name": "adam",  # key of training.optimizer.OPTIMIZERS
            "learning_rate": 1e-4,  # at the end of the warm-up
            "warmup_steps": 10_000,
            # Length of the cosine decay to 0, from step 0. -1: that of the run, however long (resolve.py); 0: none.
            "decay_steps": FOLLOW,
            "grad_clip_norm": 1.0,  # of the global norm; 0: no clipping
            "b1": 0.9,  # Adam's
            "b2": 0.999,  # Adam's
            "weight_decay": 0.0,  # adamw's: a step takes learning_rate times this of every kernel away
        }
    )
    config.train = ConfigDict(
        {
            # Parameters to begin with: of a cascade's stage, CASCADE/STAGE, or a run's workdir; "": random ones.
            "init_from": "",
            # Which parameters are trained, by their paths, in which * stands for any text; the others stay frozen.
            "trainable": _ALL,
            "strategy": "pmap",  # key of training.parallel.STRATEGIES: what of the state is divided among devices
            "num_steps": 2_500_000,
            "num_epochs": 0.0,  # passes over the data set, in place of num_steps; 0: num_steps counts
            "accumulate_steps": 1,  # parts in which a device computes its share of a batch: less memory, except on CPUs
            "log_every": 100,  # steps
            "checkpoint_every": 5_000,  # steps
            "sample_every": 10_000,  # steps between grids of config.prompts
            "keep_checkpoints": 3,  # the newest
            "stall_minutes": 30.0,  # ends the process if no step or evaluation is done for so long; 0: never
        }
    )
    config.evaluation = ConfigDict(
        {
            "metrics": (),  # keys of evaluation.metrics.METRICS or import paths, of samples in training; (): none
            "every": 10_000,  # steps
            "num_samples": 256,  # captions of the data set, drawn with the seed
            "num_reference": 10_000,  # images of the data set to compare with, at most, drawn with the seed
            "batch_size": 64,  # images sampled at a time, over a host's devices
            "inception_weights": "",  # FID's network, for the metrics that need it
            "clip": "",  # a folder with a CLIP, likewise
        }
    )
    config.sampling = ConfigDict(dataclasses.asdict(SamplingSettings()))
    return config


def choose_variant(arg: str, variants: Mapping[str, T]) -> T:
    """Returns `variants[arg]`, for `get_config(arg)` and `--config=FILE:arg`.

    Raises:
      InputError: no such variant; the message lists them.
    """
    if arg not in variants:
        choices = ", ".join(f":{name}" for name in variants)
        raise InputError(f'no variant "{arg}" of this config; choose from: {choices}.{did_you_mean(arg, variants)}')
    return variants[arg]


def to_json(config: ConfigDict) -> str:
    """The resolved config as JSON with sorted keys, the same text for the same values; tuples become lists."""
    return json.dumps(config.to_dict(), indent=2, sort_keys=True, allow_nan=False) + "\n"


def from_json(values: Mapping[str, Any]) -> Any:
    """Makes a config of what `to_json` has written, read as JSON; what were tuples are lists in it."""
    return ConfigDict(dict(values))


def check_resumes(config: ConfigDict, saved: Mapping[str, Any], *, where: str) -> None:
    """Checks that the run in `where`, whose resolved config is `saved`, can go on with `config`; logs what has changed.

    Raises:
      InputError: the network, the sizes or the diffusion process differ: what was learnt would be lost or wrong.
    """
    old, new = _leaves(saved), _leaves(json.loads(to_json(config)))
    changed = [path for path in sorted(old.keys() | new.keys()) if old.get(path) != new.get(path)]
    rows = [f"config.{path}: {old.get(path)!r} there, {new.get(path)!r} here" for path in changed]
    # Where nothing is frozen, what the run began with is in its checkpoints, and another start would come to nothing.
    all_are_trained = new["train.trainable"] == list(_ALL)
    fixed = _FIXED_FOR_A_RUN | ({"train.init_from"} if all_are_trained else set())
    fatal = [row for path, row in zip(changed, rows, strict=True) if _is_fixed(path, fixed)]
    if fatal:
        raise InputError(
            f'"{where}" holds a run with another config; use another --workdir, or these values:\n  '
            + "\n  ".join(fatal)
        )
    for row in rows:
        logging.warning("changed since this run was started: %s", row)


def _is_fixed(path: str, fixed: Collection[str]) -> bool:
    # How a network is computed may change; what it is may not.
    return path in fixed or (path.startswith("model.") and path not in ("model.dtype", "model.remat"))


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a.b": value} of nested dicts."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _leaves(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def validate(config: ConfigDict, *, num_devices: int) -> None:
    """Checks a whole config, resolved or not, after "~" in its paths has become the home folder.

    Args:
      config: of a run, as `base_config` lays it out.
      num_devices: over all hosts, as `data.batch_size` is.

    Raises:
      InputError: a field is missing, unknown, of another type or out of its bounds, or doesn't fit another or the
        devices; the message names the values and the remedy.
    """
    _check_layout(config)
    # Any: to a type checker a ConfigDict's field could be of every type.
    layout: Any = config
    flat = {path: _at(layout, path) for path in FIELDS}
    check_fields(FIELDS, flat, prefix="config.")
    _expand_paths(layout, flat)
    network = {f"model.{key}": layout.model[key] for key in layout.model}
    check_fields(model_fields(layout.model.name), network, prefix="config.")
    tree: Any = resolve(config)
    _check_batch(tree.data.batch_size, num_devices, tree.train.accumulate_steps)
    _check_sizes(tree.data)
    _check_low_res(tree)
    _check_schedule(tree.optimizer)


def _check_layout(config: Any) -> None:
    """Every field is there, and no other but the network's attributes, which `models.make_model` knows."""
    if not isinstance(config, ConfigDict):  # whatever a user's get_config returns
        raise InputError(f"get_config must return what base_config() made, a ConfigDict (got {show(config)})")
    for path in FIELDS:
        node: Any = config
        for part in path.split("."):
            if not isinstance(node, ConfigDict) or part not in node:
                raise InputError(f"config.{path} is missing; base_config() in imagen_jax/config.py has every field")
            node = node[part]
    for path in _paths(config):
        if path not in FIELDS and not path.startswith("model."):
            guess = did_you_mean(path, FIELDS)
            raise InputError(f"config.{path} is no field.{guess} docs/config.md lists the fields")


def _paths(config: Any, prefix: str = "") -> Iterator[str]:
    for key in config:
        value = config[key]
        inside = isinstance(value, ConfigDict) and any(path.startswith(f"{prefix}{key}.") for path in FIELDS)
        if inside:
            yield from _paths(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _at(config: Any, path: str) -> Any:
    for part in path.split("."):
        config = config[part]
    return config


def _expand_paths(config: Any, flat: Mapping[str, Any]) -> None:
    for path, field in FIELDS.items():
        text = flat[path]
        if field.is_path and "~" in text:
            group, name = path.split(".")
            # A data set in a folder is folder/PATH.
            kind = "folder/" if text.startswith("folder/~") else ""
            if text.removeprefix(kind).startswith("~"):
                config[group][name] = f"{kind}{user_path(text.removeprefix(kind))}"


def _check_batch(batch_size: int, num_devices: int, accumulate_steps: int) -> None:
    if batch_size % (num_devices * accumulate_steps):
        parts = f" in config.train.accumulate_steps = {accumulate_steps} parts each" if accumulate_steps > 1 else ""
        raise InputError(
            f"config.data.batch_size = {batch_size} can't be divided among {num_devices} devices{parts}; "
            f"use {nearest_multiples(batch_size, num_devices * accumulate_steps)}"
        )


def _check_sizes(data: Any) -> None:
    if data.crop_size > data.image_size:
        raise InputError(
            f"config.data.crop_size = {data.crop_size} is larger than config.data.image_size = {data.image_size}; "
            "0 takes the whole image"
        )


def _check_low_res(config: Any) -> None:
    """The low-resolution input of a super-resolution stage, or, of a base stage, that nothing asks for one."""
    data, max_aug, aug = config.data, config.diffusion.max_aug_level, config.sampling.aug_level
    if not data.low_res_size:
        if data.crop_size:
            raise InputError(
                f"config.data.crop_size = {data.crop_size} is for super-resolution, but config.data.low_res_size = 0 "
                "is a base stage, which draws whole images; set one of them"
            )
        return
    if data.image_size % data.low_res_size or data.image_size == data.low_res_size:
        sizes = [size for size in range(1, data.image_size) if data.image_size % size == 0]
        nearest = sorted(sorted(sizes, key=lambda size: abs(size - data.low_res_size))[:2])
        raise InputError(
            f"config.data.image_size = {data.image_size} is not 2, 3, ... times config.data.low_res_size = "
            f"{data.low_res_size}; low_res_size could be {' or '.join(map(str, nearest))}"
        )
    factor = data.image_size // data.low_res_size
    if data.crop_size % factor:
        raise InputError(
            f"config.data.crop_size = {data.crop_size} doesn't cover whole pixels of the {factor} times smaller input "
            f"(image_size = {data.image_size}, low_res_size = {data.low_res_size}); "
            f"use {nearest_multiples(data.crop_size, factor)}"
        )
    if aug > max_aug:
        raise InputError(
            f"config.sampling.aug_level = {aug} is above config.diffusion.max_aug_level = {max_aug}: training never "
            "shows the network such an input; lower the first or raise the second"
        )


def _check_schedule(optimizer: Any) -> None:
    if optimizer.decay_steps and optimizer.warmup_steps >= optimizer.decay_steps:
        raise InputError(
            f"config.optimizer.warmup_steps = {optimizer.warmup_steps} leaves nothing of "
            f"config.optimizer.decay_steps = {optimizer.decay_steps}, which counts from step 0"
        )
