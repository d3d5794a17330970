"""A cascade of stages, and the folder that it is kept in. The only place that knows there are several.

CASCADE/cascade.json            the order of the stages
CASCADE/text_encoder/           see text.encoder
CASCADE/<stage>/config.json     network, diffusion, sizes, default sampling settings
CASCADE/<stage>/ema.safetensors float32 parameters, named by their path
"""

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import SafetensorError
from safetensors.flax import load_file, save_file

from imagen_jax.errors import InputError
from imagen_jax.files import read_json, write_json
from imagen_jax.models import make_model
from imagen_jax.registry import lookup
from imagen_jax.sampling.images import to_uint8
from imagen_jax.sampling.settings import SamplingSettings
from imagen_jax.sampling.stage import Against, Stage
from imagen_jax.text.encoder import load_encoder
from imagen_jax.types import Params

_FORMAT_VERSION = 1
_INDEX, _CONFIG, _WEIGHTS, _ENCODER = "cascade.json", "config.json", "ema.safetensors", "text_encoder"
# A `StageConfig` in the workdir of a training run.
STAGE_FILE = "stage.json"
_EXPORTED = "a folder written by python -m imagen_jax.export"


@dataclasses.dataclass(frozen=True, kw_only=True)
class StageConfig:
    """What config.json holds for a stage.

    Attributes:
      name: of the stage and of its folder.
      model: name and keyword arguments of the network.
      image_size, low_res_size: pixels; low_res_size is None for the base.
      schedule, prediction: see `diffusion`.
      max_tokens, text_width: L and D of the text it was trained with.
      encoder_name, encoder_fingerprint: of the text encoder; text_encoder: its folder while training.
      source: the data it was trained on.
      sampling: default `SamplingSettings`.
      step: of training; 0 while training goes on.
    """

    name: str
    model: Mapping[str, Any]
    image_size: int
    low_res_size: int | None
    schedule: str
    prediction: str
    max_tokens: int
    text_width: int
    encoder_name: str
    encoder_fingerprint: str
    text_encoder: str
    source: str
    sampling: Mapping[str, Any]
    step: int = 0


class TextEncoder(Protocol):
    """Of `text.encoder.load_encoder`."""

    def encode(self, captions: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Captions -> text_emb [B,L,D], text_mask [B,L]."""
        ...


class Cascade:
    """Text to images, stage by stage.

    Attributes:
      stages: `Stage`s by image size, ascending.
      configs: their `StageConfig`s.
    """

    def __init__(
        self, configs: Sequence[StageConfig], params: Sequence[Params], encoder: TextEncoder, *, name: str = "cascade"
    ):
        """Raises InputError where the stages' sizes don't chain."""
        _check_chain(configs, name)
        self.configs = tuple(configs)
        self.stages = {config.image_size: make_stage(config) for config in configs}
        self._params = dict(zip(self.stages, params, strict=True))
        self._encoder = encoder

    def __call__(self, prompts: Sequence[str], *, seed: int = 0, **kwargs: Any) -> np.ndarray:
        """Prompts -> uint8 [N,H,W,3] of the last stage run; keyword arguments as in `sample`."""
        return list(self.sample(prompts, seed=seed, **kwargs).values())[-1]

    def sample(
        self,
        prompts: Sequence[str],
        *,
        seed: int = 0,
        stop_at: int | None = None,
        negative_prompts: str | Sequence[str] | None = None,
        weak: "Cascade | None" = None,
        batch_size: int = 8,
        **overrides: Any,
    ) -> dict[int, np.ndarray]:
        """Samples one image a prompt. Image k depends on seed, k and its prompt, and not on the batch or its size.

        Args:
          prompts: N captions.
          seed: of all noise.
          stop_at: the image size to stop at; default the last stage's.
          negative_prompts: what guidance leads away from, in place of the null text: one for all, or one a prompt.
          weak: autoguidance: a cascade with the same networks and weaker parameters (an earlier checkpoint), which
            guidance leads away from.
          batch_size: images at a time.
          overrides: see `settings`.

        Returns:
          uint8 [N,H,W,3] by image size, ascending.

        Raises:
          InputError: no prompts, a stage that isn't there, a setting out of range, a `weak` cascade of other networks.
        """
        if isinstance(prompts, str):
            raise InputError(f'prompts must be a list of captions, such as ["{prompts}"] (got one string)')
        if not 0 <= seed < 2**32:
            raise InputError(f"seed must be in [0, 2^32) (got {seed})")
        if batch_size < 1:
            raise InputError(f"batch size must be at least 1 (got {batch_size})")
        if stop_at is not None and stop_at not in self.stages:
            raise InputError(f"stop_at must be the size of a stage: {', '.join(map(str, self.stages))} (got {stop_at})")
        settings = self.settings(**overrides)
        self._check_against(negative_prompts, weak, settings)
        text = self._encoder.encode(list(prompts))
        negative = None
        if negative_prompts is not None:
            each = [negative_prompts] * len(prompts) if isinstance(negative_prompts, str) else list(negative_prompts)
            if len(each) != len(prompts):
                raise InputError(f"negative prompts: one for all, or one for each of {len(prompts)} (got {len(each)})")
            negative = self._encoder.encode(each)
        base_key = jax.random.key(seed)
        indices = np.arange(len(prompts))
        result: dict[int, np.ndarray] = {}
        low_res: np.ndarray | None = None
        for number, (size, stage) in enumerate(self.stages.items()):
            stage_key = jax.random.fold_in(base_key, number)
            low_res = _in_batches(
                stage,
                self._params[size],
                text,
                keys=jax.vmap(lambda index, key=stage_key: jax.random.fold_in(key, index))(indices),
                low_res=low_res,
                settings=settings[number],
                negative=negative,
                weak_params=weak._params[size] if weak else None,
                batch_size=batch_size,
            )
            result[size] = to_uint8(low_res)
            if size == stop_at:
                break
        return result

    def settings(self, **overrides: Any) -> list[SamplingSettings]:
        """What each stage samples with.

        Args:
          overrides: fields of `SamplingSettings` in place of the stages' own (and `guidance`, `steps` for
            guidance_weight, num_steps): one value for all stages, or a list with one a stage. None: no override.

        Raises:
          InputError: no such setting, or a value out of range.
        """
        known = dict.fromkeys(field.name for field in dataclasses.fields(SamplingSettings))
        given = {}
        for alias, value in overrides.items():
            if value is not None:
                name = _ALIASES.get(alias, alias)
                lookup(known, name, what="sampling setting")
                given[name] = _one_each(name, value, len(self.configs))
        if given.keys() & {"num_steps", "spacing"}:
            given.setdefault("times", [()] * len(self.configs))
        return [
            dataclasses.replace(stage.settings, **{name: values[number] for name, values in given.items()})
            for number, stage in enumerate(self.stages.values())
        ]

    def _check_against(self, negative: Any, weak: "Cascade | None", settings: Sequence[SamplingSettings]) -> None:
        if negative is not None and weak is not None:
            raise InputError("guidance leads away from negative prompts or from a weak cascade; give one of them")
        if (negative is not None or weak is not None) and not any(each.guided for each in settings):
            raise InputError(
                "a negative prompt or a weak cascade does nothing without guidance; every stage's weight is 1: set one "
                "above it (--guidance=3)"
            )
        if weak is None:
            return
        for config in self.configs:
            other = next((other for other in weak.configs if other.image_size == config.image_size), None)
            if other is None or any(getattr(config, name) != getattr(other, name) for name in _SAME_NETWORK):
                raise InputError(
                    f"the weak cascade's stage of {config.image_size} px is {'absent' if other is None else 'another'} "
                    f"network; autoguidance needs the same {', '.join(_SAME_NETWORK)}"
                )


# What two sets of parameters must share to be one network's.
_SAME_NETWORK = ("model", "schedule", "prediction", "max_tokens", "encoder_fingerprint")
_ALIASES = {"guidance": "guidance_weight", "steps": "num_steps"}
# Settings whose one value is itself a sequence.
_SEQUENCES = ("times", "guidance_interval")


def _one_each(name: str, value: Any, count: int) -> list[Any]:
    is_list = isinstance(value, Sequence) and not isinstance(value, str)
    if is_list and name in _SEQUENCES:
        is_list = any(isinstance(item, Sequence) for item in value)
    values = list(value) if is_list else [value] * count
    if len(values) != count:
        raise InputError(f"{name}: one value for all stages, or one for each of the {count} (got {len(values)})")
    return values


def make_stage(config: StageConfig) -> Stage:
    """The `Stage` that a config describes."""
    return Stage(
        make_model(**config.model),
        image_size=config.image_size,
        low_res_size=config.low_res_size,
        schedule=config.schedule,
        prediction=config.prediction,
        settings=SamplingSettings(**config.sampling),
    )


def write_cascade(out: Path, configs: Sequence[StageConfig], params: Sequence[Params], *, encoder_folder: Path) -> None:
    """Writes a cascade folder, whole or not at all.

    Raises:
      InputError: see `check_can_write`.
    """
    check_can_write(out, configs)
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    shutil.copytree(encoder_folder, partial / _ENCODER)
    for config, tree in zip(configs, params, strict=True):
        folder = partial / config.name
        folder.mkdir()
        write_json(folder / _CONFIG, dataclasses.asdict(config))
        flat = flatten_dict(dict(tree), sep="/")
        save_file({name: jnp.asarray(array) for name, array in flat.items()}, str(folder / _WEIGHTS))
    index = {"format_version": _FORMAT_VERSION, "stages": [config.name for config in configs]}
    write_json(partial / _INDEX, index)
    partial.rename(out)


def check_can_write(out: Path, configs: Sequence[StageConfig]) -> None:
    """What can be checked before any weights are read.

    Raises:
      InputError: `out` exists, or the stages don't fit each other.
    """
    _check_chain(configs, str(out))
    if out.exists():
        raise InputError(f'"{out}" exists; choose another --out, or delete it')


def load_cascade(folder: str | Path) -> Cascade:
    """Loads a cascade folder onto this process's default device.

    Raises:
      InputError: something is missing or damaged; the message says what, and where it comes from.
    """
    folder = Path(folder)
    index = read_json(folder / _INDEX, expected=_EXPORTED)
    if index.get("format_version") != _FORMAT_VERSION:
        raise InputError(
            f'"{folder}" is a cascade of format {index.get("format_version")}; this version reads {_FORMAT_VERSION}'
        )
    names = index.get("stages")
    if not isinstance(names, list) or not names:
        raise InputError(f'"{folder / _INDEX}" lists no stages; expected {_EXPORTED}')
    configs = [read_stage_config(folder / name / _CONFIG) for name in names]
    _check_chain(configs, str(folder))
    encoder = load_encoder(folder / _ENCODER, max_length=configs[0].max_tokens)
    if encoder.fingerprint != configs[0].encoder_fingerprint:
        raise InputError(
            f'the encoder in "{folder / _ENCODER}" is {encoder.name}, but the stages were trained with '
            f"{configs[0].encoder_name}; export the cascade again"
        )
    params = [_load_params(folder / name / _WEIGHTS) for name in names]
    return Cascade(configs, params, encoder, name=str(folder))


def read_stage_config(path: Path) -> StageConfig:
    """A `StageConfig` from its JSON file.

    Raises:
      InputError: it is missing, damaged, or describes what this version can't build.
    """
    values = read_json(path, expected=_EXPORTED if path.name == _CONFIG else "the workdir of a training run")
    try:
        config = StageConfig(**values)
        make_stage(config)
    except (TypeError, ValueError) as error:
        raise InputError(f'"{path}" is no config of a stage: {error}') from error
    return config


def _load_params(path: Path) -> Params:
    if not path.is_file():
        raise InputError(f'"{path}" is missing; write the cascade again with python -m imagen_jax.export')
    try:
        flat = load_file(str(path))
    except SafetensorError as error:
        raise InputError(f'"{path}" is damaged ({error}); write the cascade again') from error
    return unflatten_dict(flat, sep="/")


def _check_chain(configs: Sequence[StageConfig], name: str) -> None:
    if not configs:
        raise InputError(f"{name}: a cascade needs at least one stage")
    before: int | None = None
    for config in configs:
        if config.low_res_size != before:
            wanted = "no low-resolution input (a base stage)" if before is None else f"a {before} px input"
            got = "none" if config.low_res_size is None else f"{config.low_res_size} px"
            raise InputError(
                f'{name}: stage "{config.name}" ({config.image_size} px) takes {got}, but its place in the cascade '
                f"gives {wanted}; order the stages so that each takes the size of the one before"
            )
        if (config.max_tokens, config.encoder_fingerprint) != (configs[0].max_tokens, configs[0].encoder_fingerprint):
            raise InputError(
                f'{name}: stage "{config.name}" was trained with texts of {config.max_tokens} tokens by '
                f"{config.encoder_name} ({config.encoder_fingerprint[:12]}), the first with {configs[0].max_tokens} by "
                f"{configs[0].encoder_name} ({configs[0].encoder_fingerprint[:12]}); train them with one encoder"
            )
        before = config.image_size


def _in_batches(
    stage: Stage,
    params: Params,
    text: tuple[np.ndarray, np.ndarray],
    *,
    keys: jax.Array,
    low_res: np.ndarray | None,
    settings: SamplingSettings,
    negative: tuple[np.ndarray, np.ndarray] | None,
    weak_params: Params | None,
    batch_size: int,
) -> np.ndarray:
    """All N images, in batches of one size (the last is filled up by repetition), so that one program is compiled."""
    count = len(keys)
    batch_size = min(batch_size, count)
    parts = []
    for first in range(0, count, batch_size):
        rows = np.minimum(np.arange(first, first + batch_size), count - 1)
        text_emb, text_mask = (jnp.asarray(array[rows]) for array in text)
        negative_emb, negative_mask = (None, None) if negative is None else (jnp.asarray(a[rows]) for a in negative)
        samples = stage.sample(
            params,
            text_emb,
            text_mask,
            keys=keys[rows],
            low_res=None if low_res is None else jnp.asarray(low_res[rows]),
            settings=settings,
            against=Against(negative_emb, negative_mask, weak_params),
        )
        parts.append(np.asarray(samples)[: count - first])
    return np.concatenate(parts)
