"""The folder that a cascade is kept in.

CASCADE/cascade.json            the order of the stages
CASCADE/text_encoder/           see text.encoder
CASCADE/<stage>/config.json     network, diffusion, sizes, default sampling settings
CASCADE/<stage>/ema.safetensors float32 parameters, named by their path
"""

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path

import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import SafetensorError
from safetensors.flax import load_file, save_file

from imagen_jax.errors import InputError
from imagen_jax.files import read_json, write_json
from imagen_jax.sampling.cascade import Cascade, StageConfig, TextEncoder, check_chain, make_stage
from imagen_jax.text.encoder import load_encoder
from imagen_jax.types import Params

_FORMAT_VERSION = 1
_INDEX, _CONFIG, _WEIGHTS, _ENCODER = "cascade.json", "config.json", "ema.safetensors", "text_encoder"
# A `StageConfig` in the workdir of a training run.
STAGE_FILE = "stage.json"
_EXPORTED = "a folder written by python -m imagen_jax.export"


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
    check_chain(configs, str(out))
    if out.exists():
        raise InputError(f'"{out}" exists; choose another --out, or delete it')


def load_cascade(folder: str | Path, *, encoder: TextEncoder | None = None) -> Cascade:
    """Loads a cascade folder onto this process's default device.

    Args:
      encoder: that of another cascade, in place of the folder's own, which may be large.

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
    check_chain(configs, str(folder))
    if encoder is None:
        own = load_encoder(folder / _ENCODER, max_length=configs[0].max_tokens)
        if own.fingerprint != configs[0].encoder_fingerprint:
            raise InputError(
                f'the encoder in "{folder / _ENCODER}" is {own.name}, but the stages were trained with '
                f"{configs[0].encoder_name}; export the cascade again"
            )
        encoder = own
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
