"""The folder that a cascade is kept in.

CASCADE/cascade.json            the order of the stages, and the sha256 of every other file
CASCADE/text_encoder/           see text.encoder; a large one stays where it was, and config.json names its folder
CASCADE/<stage>/config.json     network, diffusion, sizes, default sampling settings
CASCADE/<stage>/ema.safetensors float32 parameters, named by their path
"""

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict
from safetensors import SafetensorError, safe_open

from imagen_jax.errors import InputError, NotFiniteError
from imagen_jax.files import read_json, user_path
from imagen_jax.models import make_model
from imagen_jax.models.base import size_multiple
from imagen_jax.sampling.cascade import Cascade
from imagen_jax.sampling.digests import Digests, hash_file
from imagen_jax.sampling.stage_config import (
    RESERVED_NAMES,
    StageConfig,
    check_chain,
    make_stage,
    named_modules,
    parameter_shapes,
)
from imagen_jax.text.encoder import TextEncoder, encoder_files, load_encoder
from imagen_jax.text.t5_config import describe_width, read_config
from imagen_jax.types import Params

FORMAT_VERSION = 2
# Format 1 is the same without digests.
_READABLE = (1, FORMAT_VERSION)
INDEX, CONFIG, WEIGHTS, ENCODER = "cascade.json", "config.json", "ema.safetensors", "text_encoder"
# A `StageConfig` in the workdir of a training run.
STAGE_FILE = "stage.json"
_EXPORTED = "a folder written by python -m imagen_jax.export"
_MAX_STAGES = 16
# A config has some kilobytes.
_MAX_CONFIG_BYTES = 2**20
# Files of an encoder up to here are hashed before they are read; weights, only where they turn out to be others.
_SMALL = 64 * 2**20


def load_cascade(
    folder: str | Path, *, keep_encoder: bool = True, allow_modules: Collection[str] = (), **kwargs: Any
) -> Cascade:
    """Loads a cascade folder. A stage's weights are read when it first runs, and copied to the devices that it runs on.

    Args:
      keep_encoder: whether the text encoder is loaded now and stays. If not, it's loaded for prompts alone: the stages'
        weights are read after it has been freed, and freed before it is loaded again, so that both need not fit into
        memory together. Embed all prompts first, to load each once.
      allow_modules: names of Python modules that the folder may have imported, and so run: where a network, sampler or
        condition is of the user's own. Without it a folder runs no code.
      kwargs: see `load_cascade_encoder`.

    Raises:
      InputError: something is missing or damaged; the message says what, and where it comes from. It names a module
        that isn't allowed.
    """
    folder = user_path(folder)
    contents = _read_contents(folder, allow_modules)
    contents.digests.warn_if_absent()
    params = [_stage_params(contents, number, convert=jnp.asarray) for number in range(len(contents.configs))]
    load = partial(load_cascade_encoder, folder, allow_modules=allow_modules, **kwargs)
    return Cascade(contents.configs, params, load() if keep_encoder else load, name=str(folder))


def open_stage(
    folder: Path, name: str, *, allow_modules: Collection[str] = ()
) -> tuple[StageConfig, Callable[[], Params]]:
    """Opens one stage of a cascade.

    Args:
      folder: of the cascade.
      name: of the stage.
      allow_modules: see `load_cascade`.

    Returns:
      What it is, and a function that reads its parameters, as numpy arrays.

    Raises:
      InputError: see `load_cascade`; or there is no such stage.
    """
    contents = _read_contents(folder, allow_modules)
    contents.digests.warn_if_absent()
    names = [config.name for config in contents.configs]
    if name not in names:
        raise InputError(f'"{folder}" has no stage "{name}"; it has: {", ".join(names)}')
    number = names.index(name)
    return contents.configs[number], _stage_params(contents, number, convert=np.asarray)


def cascade_fingerprint(folder: str | Path, *, allow_modules: Collection[str] = ()) -> str:
    """Returns the hex sha256 over the stages' configs and weights: what samples depend on, besides settings.

    Args:
      allow_modules: see `load_cascade`.

    Raises:
      InputError: see `load_cascade`.
    """
    folder = user_path(folder)
    contents = _read_contents(folder, allow_modules)
    digest = hashlib.sha256()
    for path in contents.weights:
        contents.digests.check(path)
        with _open(path):
            pass
        for part in (path.with_name(CONFIG), path):
            digest.update(bytes.fromhex(hash_file(part)))
    return digest.hexdigest()


def load_cascade_encoder(
    folder: str | Path,
    *,
    encoder_folder: str | Path | None = None,
    allow_modules: Collection[str] = (),
    **kwargs: Any,
) -> TextEncoder:
    """Loads the text encoder of a cascade, and nothing else of it.

    Args:
      allow_modules: see `load_cascade`.
      encoder_folder: where it is; None: in the cascade's folder, or where it was while the cascade was trained.
      kwargs: dtype, devices and the like, as in `load_encoder`.

    Raises:
      InputError: it isn't there, or is another encoder than the one that the cascade was trained with.
    """
    folder = user_path(folder)
    contents = _read_contents(folder, allow_modules)
    config = contents.configs[0]
    needed = f"{config.encoder_name}, {describe_width(config.text_width)}"
    places = [encoder_folder] if encoder_folder else [folder / ENCODER, config.text_encoder]
    found = next((path for path in (user_path(place) for place in places if place) if _is_folder(path)), None)
    if found is None:
        absent = " or ".join(str(place) for place in places if place)
        raise InputError(
            f'"{folder}" was trained with {needed}; there is no folder {absent}: name the encoder\'s with --encoder'
        )
    own = found == folder / ENCODER
    if own:
        _check_encoder_files(found, contents.digests, small=True)
    width = read_config(found).get("d_model")
    if isinstance(width, int) and width != config.text_width:
        # Before gigabytes of weights are read.
        raise InputError(
            f'"{found}" is an encoder of {describe_width(width)}, but "{folder}" was trained with {needed}'
        )
    try:
        encoder = load_encoder(found, max_length=config.max_tokens, **kwargs)
    except (InputError, NotFiniteError):
        if own:  # damage explains it better
            _check_encoder_files(found, contents.digests, small=False)
        raise
    if encoder.fingerprint != config.encoder_fingerprint:
        if own:
            _check_encoder_files(found, contents.digests, small=False)
        raise InputError(
            f'"{found}" is {encoder.name} ({encoder.fingerprint[:12]}), but "{folder}" was trained with '
            f"{needed} ({config.encoder_fingerprint[:12]}): other weights, or another tokenizer"
        )
    encoder.name = config.encoder_name  # a folder's name may change
    return encoder


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name that is too long, or may not be looked at
        return False


class _Contents(NamedTuple):
    """What is in a cascade's folder; the configs fit each other."""

    configs: Sequence[StageConfig]
    weights: Sequence[Path]
    digests: Digests


def _read_contents(folder: Path, allow_modules: Collection[str]) -> _Contents:
    index = read_json(folder / INDEX, expected=_EXPORTED, max_bytes=_MAX_CONFIG_BYTES)
    version = index.get("format_version")
    if isinstance(version, bool) or version not in _READABLE:
        raise InputError(
            f'"{folder}" is a cascade of format {version!r:.40}; this version reads {" and ".join(map(str, _READABLE))}'
        )
    names = index.get("stages")
    if not isinstance(names, list) or not 1 <= len(names) <= _MAX_STAGES:
        raise InputError(f'"{folder / INDEX}" lists no stages, or more than {_MAX_STAGES}; expected {_EXPORTED}')
    for name in names:
        wrong = not isinstance(name, str) or name in (*RESERVED_NAMES, "", ".", "..") or len(name) > 100
        if wrong or set(name) & set('/\\\0:"'):
            raise InputError(
                f'"{folder / INDEX}": a stage is called {name!r:.80}; expected the name of a folder beside it'
            )
    if len(set(names)) < len(names):
        raise InputError(f'"{folder / INDEX}" lists a stage twice; expected {_EXPORTED}')
    digests = Digests.read(folder, index)
    configs = []
    for name in names:
        path = folder / name / CONFIG
        if not path.exists():
            raise InputError(f'"{path}" is missing; write the cascade again with python -m imagen_jax.export')
        digests.check(path)
        configs.append(read_stage_config(path, allow_modules=allow_modules))
    check_chain(configs, str(folder))
    return _Contents(configs, [folder / name / WEIGHTS for name in names], digests)


def read_stage_config(path: Path, *, allow_modules: Collection[str] = ()) -> StageConfig:
    """Returns the `StageConfig` of a JSON file.

    Args:
      allow_modules: see `load_cascade`.

    Raises:
      InputError: it is missing, damaged, or describes what this version can't build.
    """
    expected = _EXPORTED if path.name == CONFIG else "the workdir of a training run"
    values = read_json(path, expected=expected, max_bytes=_MAX_CONFIG_BYTES)
    try:
        config = StageConfig(**values)
        if not_allowed := named_modules(config).keys() - _as_names(allow_modules):
            return _refuse(path, named_modules(config), min(not_allowed))
        make_stage(config)
        multiple = size_multiple(make_model(**config.model))
        if config.image_size % multiple:
            raise InputError(
                f"image_size = {config.image_size} can't be halved as often as the network does; expected a multiple "
                f"of {multiple}"
            )
    except _NotAllowedError:
        raise
    except Exception as error:  # a network's own checks may raise any
        reason = " ".join(str(error).split())[:500]
        raise InputError(f'"{path}" is no config of a stage: {reason}') from error
    return config


class _NotAllowedError(InputError):
    """A folder would have a module imported that the caller hasn't allowed."""


def _refuse(path: Path, names: Mapping[str, str], module: str) -> NoReturn:
    raise _NotAllowedError(
        f'"{path}" names "{names[module]}": to use it, the module {module} is imported, which runs it; if you trust '
        f"it, allow that: --allow_modules={module} (load_cascade: allow_modules)"
    )


def _as_names(allow_modules: Collection[str]) -> set[str]:
    # One name alone is a text, in which parts of it are to be found.
    return {allow_modules} if isinstance(allow_modules, str) else set(allow_modules)


def _check_encoder_files(folder: Path, digests: Digests, *, small: bool) -> None:
    for path in encoder_files(folder):
        if (path.stat().st_size <= _SMALL) == small:
            digests.check(path)


def _stage_params(contents: _Contents, number: int, *, convert: Callable[[Any], Any]) -> Callable[[], Params]:
    """Checks a stage's file of weights without reading them, and returns what reads them."""
    path, config = contents.weights[number], contents.configs[number]
    contents.digests.check(path)
    shapes = _check_same_arrays(path, config)
    return partial(_load_params, path, shapes, contents.digests, config.image_size, convert)


def _check_same_arrays(path: Path, config: StageConfig) -> dict[str, jax.ShapeDtypeStruct]:
    """Compares names, shapes and types in a file of weights with the network's; only the file's header is read."""
    try:
        wanted = parameter_shapes(config)
    except Exception as error:  # flax's and jax's, of every class
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f'"{path.with_name(CONFIG)}" describes a network that can\'t be built: {reason}; write the cascade again '
            "with python -m imagen_jax.export"
        ) from error
    with _open(path) as file:
        there = {}
        for name in file.keys():  # noqa: SIM118 (no dict)
            tensor = file.get_slice(name)
            there[name] = (tuple(tensor.get_shape()), tensor.get_dtype())
    needed = {name: (leaf.shape, "F32") for name, leaf in wanted.items()}
    differing = [name for name in sorted(there.keys() | needed.keys()) if there.get(name) != needed.get(name)]
    if differing:
        rows = [
            f"{name}: {_describe(there.get(name))} in the file, {_describe(needed.get(name))} by config.json"
            for name in differing[:3]
        ]
        more = f"; and {len(differing) - 3} more" if len(differing) > 3 else ""
        raise InputError(
            f'"{path}" holds another network\'s parameters: {len(differing)} of {len(needed)} arrays differ '
            f"({'; '.join(rows)}{more}); write the cascade again with python -m imagen_jax.export"
        )
    return wanted


def _describe(array: tuple[tuple[int, ...], str] | None) -> str:
    return f"{array[1]} {list(array[0])}" if array else "absent"


def _load_params(
    path: Path, names: Iterable[str], digests: Digests, image_size: int, convert: Callable[[Any], Any]
) -> Params:
    digests.check(path)  # it may have been replaced since
    flat = {}
    with _open(path) as file:
        for name in names:
            array = file.get_tensor(name)
            if not np.isfinite(array).all():
                raise NotFiniteError(
                    f'stage of {image_size} px: parameter {name} in "{path}" holds infinities or NaN, so there is no '
                    "picture; export the cascade from another checkpoint (python -m imagen_jax.export)"
                )
            flat[name] = convert(array)
    return unflatten_dict(flat, sep="/")


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    """Finds a truncated file without reading what it holds."""
    if not path.is_file():
        raise InputError(f'"{path}" is missing; write the cascade again with python -m imagen_jax.export')
    try:
        with safe_open(path, framework="numpy") as file:
            yield file
    except SafetensorError as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f'"{path}" is damaged ({reason}); write the cascade again') from error
