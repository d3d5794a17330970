"""The folder that a cascade is kept in.

CASCADE/cascade.json            the order of the stages
CASCADE/text_encoder/           see text.encoder; a large one stays where it was, and config.json names its folder
CASCADE/<stage>/config.json     network, diffusion, sizes, default sampling settings
CASCADE/<stage>/ema.safetensors float32 parameters, named by their path
"""

import dataclasses
import hashlib
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import SafetensorError, safe_open
from safetensors.flax import save_file

from imagen_jax.errors import InputError
from imagen_jax.files import read_json, write_json
from imagen_jax.sampling.cascade import Cascade, StageConfig, check_chain, make_stage
from imagen_jax.text.encoder import TextEncoder, encoder_files, load_encoder
from imagen_jax.text.t5_config import describe_width, read_config
from imagen_jax.types import Params

_FORMAT_VERSION = 1
_INDEX, _CONFIG, _WEIGHTS, _ENCODER = "cascade.json", "config.json", "ema.safetensors", "text_encoder"
# A `StageConfig` in the workdir of a training run.
STAGE_FILE = "stage.json"
_EXPORTED = "a folder written by python -m imagen_jax.export"


def write_cascade(
    out: Path, configs: Sequence[StageConfig], params: Sequence[Params], *, encoder_folder: Path | None
) -> None:
    """Writes a cascade folder, whole or not at all.

    Args:
      encoder_folder: the encoder to copy into it; None: none.

    Raises:
      InputError: see `check_can_write`.
    """
    check_can_write(out, configs)
    unfinished = out.with_name(out.name + ".partial")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    if encoder_folder is not None:
        (unfinished / _ENCODER).mkdir()
        for path in encoder_files(encoder_folder):
            shutil.copy(path, unfinished / _ENCODER)
    for config, tree in zip(configs, params, strict=True):
        folder = unfinished / config.name
        folder.mkdir()
        write_json(folder / _CONFIG, dataclasses.asdict(config))
        flat = flatten_dict(dict(tree), sep="/")
        save_file({name: jnp.asarray(array) for name, array in flat.items()}, str(folder / _WEIGHTS))
    index = {"format_version": _FORMAT_VERSION, "stages": [config.name for config in configs]}
    write_json(unfinished / _INDEX, index)
    unfinished.rename(out)


def check_can_write(out: Path, configs: Sequence[StageConfig]) -> None:
    """What can be checked before any weights are read.

    Raises:
      InputError: `out` exists, or the stages don't fit each other.
    """
    check_chain(configs, str(out))
    if out.exists():
        raise InputError(f'"{out}" exists; choose another --out, or delete it')


def load_cascade(folder: str | Path, *, keep_encoder: bool = True, **kwargs: Any) -> Cascade:
    """Loads a cascade folder. A stage's weights are read when it first runs, and copied to the devices that it runs on.

    Args:
      keep_encoder: whether the text encoder is loaded now and stays. If not, it's loaded for prompts alone: the stages'
        weights are read after it has been freed, and freed before it is loaded again, so that both need not fit into
        memory together. Embed all prompts first, to load each once.
      kwargs: see `load_cascade_encoder`.

    Raises:
      InputError: something is missing or damaged; the message says what, and where it comes from.
    """
    folder = Path(folder)
    names, configs = _read_configs(folder)
    weights = [folder / name / _WEIGHTS for name in names]
    for path in weights:
        with _open(path):
            pass
    load = partial(load_cascade_encoder, folder, **kwargs)
    return Cascade(
        configs, [partial(_load_params, path) for path in weights], load() if keep_encoder else load, name=str(folder)
    )


def cascade_fingerprint(folder: str | Path) -> str:
    """Hex of a sha256 over the stages' configs and weights: all that a cascade's samples depend on, but for settings.

    Raises:
      InputError: see `load_cascade`.
    """
    folder = Path(folder)
    digest = hashlib.sha256()
    for name in _read_configs(folder)[0]:
        with _open(folder / name / _WEIGHTS):
            pass
        for path in (folder / name / _CONFIG, folder / name / _WEIGHTS):
            with open(path, "rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def load_cascade_encoder(folder: str | Path, *, encoder_folder: str | Path | None = None, **kwargs: Any) -> TextEncoder:
    """Loads the text encoder of a cascade, and nothing else of it.

    Args:
      encoder_folder: where it is; None: in the cascade's folder, or where it was while the cascade was trained.
      kwargs: dtype, devices and the like, as in `load_encoder`.

    Raises:
      InputError: it isn't there, or is another encoder than the one that the cascade was trained with.
    """
    folder = Path(folder)
    config = _read_configs(folder)[1][0]
    needed = f"{config.encoder_name}, {describe_width(config.text_width)}"
    places = [encoder_folder] if encoder_folder else [folder / _ENCODER, config.text_encoder]
    found = next((Path(place) for place in places if place and Path(place).is_dir()), None)
    if found is None:
        absent = " or ".join(str(place) for place in places if place)
        raise InputError(
            f'"{folder}" was trained with {needed}; there is no folder {absent}: name the encoder\'s with --encoder'
        )
    width = read_config(found).get("d_model")
    if isinstance(width, int) and width != config.text_width:
        # Before gigabytes of weights are read.
        raise InputError(
            f'"{found}" is an encoder of {describe_width(width)}, but "{folder}" was trained with {needed}'
        )
    encoder = load_encoder(found, max_length=config.max_tokens, **kwargs)
    if encoder.fingerprint != config.encoder_fingerprint:
        raise InputError(
            f'"{found}" is {encoder.name} ({encoder.fingerprint[:12]}), but "{folder}" was trained with '
            f"{needed} ({config.encoder_fingerprint[:12]}): other weights, or another tokenizer"
        )
    encoder.name = config.encoder_name  # a folder's name may change
    return encoder


def _read_configs(folder: Path) -> tuple[list[str], list[StageConfig]]:
    """Names and configs of the stages, which fit each other."""
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
    return names, configs


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
    with _open(path) as file:
        return unflatten_dict({name: file.get_tensor(name) for name in file.keys()}, sep="/")  # noqa: SIM118 (no dict)


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    """Finds a truncated file without reading what it holds."""
    if not path.is_file():
        raise InputError(f'"{path}" is missing; write the cascade again with python -m imagen_jax.export')
    try:
        with safe_open(path, framework="flax") as file:
            yield file
    except SafetensorError as error:
        raise InputError(f'"{path}" is damaged ({error}); write the cascade again') from error
