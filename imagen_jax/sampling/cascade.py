"""A cascade of stages, and the folder that it is kept in. The only place that knows there are several.

CASCADE/cascade.json            the order of the stages
CASCADE/text_encoder/           see text.encoder
CASCADE/<stage>/config.json     network, diffusion, sizes, default sampling settings
CASCADE/<stage>/ema.safetensors float32 parameters, named by their path
"""

import dataclasses
import json
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
from imagen_jax.models import make_model
from imagen_jax.sampling.images import to_uint8
from imagen_jax.sampling.stage import SamplingSettings, Stage
from imagen_jax.text.encoder import load_encoder
from imagen_jax.types import Params

_FORMAT_VERSION = 1
_INDEX, _CONFIG, _WEIGHTS, _ENCODER = "cascade.json", "config.json", "ema.safetensors", "text_encoder"


@dataclasses.dataclass(frozen=True, kw_only=True)
class StageConfig:
    """What config.json holds for a stage.

    Attributes:
      name: of the stage and of its folder.
      model: name and keyword arguments of the network.
      image_size, low_res_size: pixels; low_res_size is None for the base.
      schedule, prediction: see `diffusion`.
      max_tokens, text_width: L and D of the text it was trained with.
      sampling: default `SamplingSettings`.
      provenance: what it was trained on, and for how long; for people.
    """

    name: str
    model: Mapping[str, Any]
    image_size: int
    low_res_size: int | None
    schedule: str
    prediction: str
    max_tokens: int
    text_width: int
    sampling: Mapping[str, Any]
    provenance: Mapping[str, Any]


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
        guidance: float | Sequence[float] | None = None,
        steps: int | Sequence[int] | None = None,
        aug_level: float | Sequence[float] | None = None,
        sampler: str | Sequence[str] | None = None,
        batch_size: int = 8,
        first_index: int = 0,
    ) -> dict[int, np.ndarray]:
        """Samples one image a prompt. Image k depends on seed, k and its prompt, and not on the batch or its size.

        Args:
          prompts: N captions.
          seed: of all noise.
          stop_at: the image size to stop at; default the last stage's.
          guidance, steps, aug_level, sampler: in place of the stages' own settings: one value for all, or one a stage.
          batch_size: images at a time.
          first_index: k of the first prompt, to sample a long list in parts.

        Returns:
          uint8 [N,H,W,3] by image size, ascending.

        Raises:
          InputError: no prompts, a stage that isn't there, a setting out of range.
        """
        if batch_size < 1:
            raise InputError(f"batch size must be at least 1 (got {batch_size})")
        if stop_at is not None and stop_at not in self.stages:
            raise InputError(f"stop_at must be the size of a stage: {', '.join(map(str, self.stages))} (got {stop_at})")
        settings = self._settings(guidance_weight=guidance, num_steps=steps, aug_level=aug_level, sampler=sampler)
        text_emb, text_mask = self._encoder.encode(list(prompts))
        base_key = jax.random.key(seed)
        indices = first_index + np.arange(len(prompts))
        result: dict[int, np.ndarray] = {}
        low_res: np.ndarray | None = None
        for number, (size, stage) in enumerate(self.stages.items()):
            stage_key = jax.random.fold_in(base_key, number)
            tokens = self.configs[number].max_tokens
            low_res = _in_batches(
                stage,
                self._params[size],
                text_emb[:, :tokens],
                text_mask[:, :tokens],
                keys=jax.vmap(lambda index, key=stage_key: jax.random.fold_in(key, index))(indices),
                low_res=low_res,
                settings=settings[number],
                batch_size=batch_size,
            )
            result[size] = to_uint8(low_res)
            if size == stop_at:
                break
        return result

    def upsample(
        self, prompts: Sequence[str], low_res: np.ndarray, *, size: int, seed: int = 0, batch_size: int = 8
    ) -> np.ndarray:
        """One super-resolution stage alone: low_res uint8 [N,h,h,3] -> uint8 [N,size,size,3]."""
        number = list(self.stages).index(size)
        tokens = self.configs[number].max_tokens
        text_emb, text_mask = self._encoder.encode(list(prompts))
        stage_key = jax.random.fold_in(jax.random.key(seed), number)
        samples = _in_batches(
            self.stages[size],
            self._params[size],
            text_emb[:, :tokens],
            text_mask[:, :tokens],
            keys=jax.vmap(lambda index: jax.random.fold_in(stage_key, index))(np.arange(len(prompts))),
            low_res=low_res.astype(np.float32) / 127.5 - 1.0,
            settings=self.stages[size].settings,
            batch_size=batch_size,
        )
        return to_uint8(samples)

    def _settings(self, **overrides: Any) -> list[SamplingSettings]:
        count = len(self.configs)
        columns: dict[str, list[Any]] = {}
        for name, value in overrides.items():
            if value is None:
                continue
            values = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value] * count
            if len(values) != count:
                raise InputError(f"{name}: one value for all stages or one for each of the {count} (got {len(values)})")
            columns[name] = values
        return [
            dataclasses.replace(stage.settings, **{name: values[number] for name, values in columns.items()})
            for number, stage in enumerate(self.stages.values())
        ]


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
      InputError: `out` exists, sizes don't chain, there is no encoder folder.
    """
    _check_chain(configs, str(out))
    if out.exists():
        raise InputError(f'"{out}" exists; choose another --out, or delete it')
    if not encoder_folder.is_dir():
        raise InputError(f'no text encoder in "{encoder_folder}"; expected the folder that the texts were encoded with')
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    shutil.copytree(encoder_folder, partial / _ENCODER)
    for config, tree in zip(configs, params, strict=True):
        folder = partial / config.name
        folder.mkdir()
        _write_json(folder / _CONFIG, dataclasses.asdict(config))
        flat = flatten_dict(dict(tree), sep="/")
        save_file({name: jnp.asarray(array) for name, array in flat.items()}, str(folder / _WEIGHTS))
    index = {"format_version": _FORMAT_VERSION, "stages": [config.name for config in configs]}
    _write_json(partial / _INDEX, index)
    partial.rename(out)


def load_cascade(folder: str | Path) -> Cascade:
    """Loads a cascade folder onto this process's default device.

    Raises:
      InputError: something is missing or damaged; the message says what, and where it comes from.
    """
    folder = Path(folder)
    index = _read_json(folder / _INDEX)
    if index.get("format_version") != _FORMAT_VERSION:
        raise InputError(
            f'"{folder}" is a cascade of format {index.get("format_version")}; this version reads {_FORMAT_VERSION}'
        )
    configs, params = [], []
    for name in index["stages"]:
        try:
            config = StageConfig(**_read_json(folder / name / _CONFIG))
        except TypeError as error:
            raise InputError(f'"{folder / name / _CONFIG}" is not a stage\'s config: {error}') from error
        configs.append(config)
        params.append(_load_params(folder / name / _WEIGHTS))
    max_length = max(config.max_tokens for config in configs)
    encoder = load_encoder(folder / _ENCODER, max_length=max_length)
    if encoder.width != configs[0].text_width:
        raise InputError(
            f'the encoder in "{folder / _ENCODER}" has width {encoder.width}, but the stages were trained with '
            f"{configs[0].text_width}"
        )
    return Cascade(configs, params, encoder, name=str(folder))


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
        before = config.image_size


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f'"{path}" is missing; expected a folder written by python -m imagen_jax.export')
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f'"{path}" is damaged ({error}); write the cascade again') from error


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _in_batches(
    stage: Stage,
    params: Params,
    text_emb: np.ndarray,
    text_mask: np.ndarray,
    *,
    keys: jax.Array,
    low_res: np.ndarray | None,
    settings: SamplingSettings,
    batch_size: int,
) -> np.ndarray:
    """All N images, in batches of one size (the last is filled up by repetition), so that one program is compiled."""
    count = len(text_emb)
    batch_size = min(batch_size, count)
    parts = []
    for first in range(0, count, batch_size):
        rows = np.minimum(np.arange(first, first + batch_size), count - 1)
        samples = stage.sample(
            params,
            jnp.asarray(text_emb[rows]),
            jnp.asarray(text_mask[rows]),
            keys=keys[rows],
            low_res=None if low_res is None else jnp.asarray(low_res[rows]),
            settings=settings,
        )
        parts.append(np.asarray(samples)[: count - first])
    return np.concatenate(parts)
