"""Trained parameters, of a cascade's stage or of a run: what an export writes, and what a training may begin with."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging
from flax.traverse_util import flatten_dict

from imagen_jax import build
from imagen_jax.errors import InputError
from imagen_jax.files import user_path
from imagen_jax.models import make_model
from imagen_jax.registry import is_import_path
from imagen_jax.sampling.export_folder import check_finite_params
from imagen_jax.sampling.folder import CONFIG, INDEX, STAGE_FILE, WEIGHTS, open_stage, read_stage_config
from imagen_jax.sampling.stage_config import StageConfig, parameter_shapes
from imagen_jax.training.checkpoint import Averaged, has_checkpoint, load_ema_params
from imagen_jax.types import Params
from imagen_jax.workdir import read_run_config

_SHOWN = 10
# How a network computes, which may change; all else is what it is.
_HOW = ("parent", "name", "dtype", "remat")
# What a training may deliberately change, and so is only said: of `StageConfig`.
_SAID = (
    *("image_size", "low_res_size", "schedule", "prediction", "max_tokens", "max_aug_level", "encoder_fingerprint"),
    "conditions",
)


class Trained(NamedTuple):
    """A trained network.

    Attributes:
      folder: it was read from.
      stage: what it is.
      load: reads its averaged parameters, as a nested dict of numpy arrays, and the step that they are of.
    """

    folder: Path
    stage: StageConfig
    load: Callable[[], tuple[Params, int]]


def open_trained(folder: str | Path, *, allow_modules: Collection[str] = ()) -> Trained:
    """Opens a stage of a cascade, CASCADE/STAGE, or a training run's workdir. Nothing large is read yet.

    Args:
      folder: of the stage or the run.
      allow_modules: see `sampling.folder.load_cascade`.

    Raises:
      InputError: it is neither, or damaged, or a run that has saved nothing yet.
    """
    return _open(folder, allow_modules, outer=())


def _open(folder: str | Path, allow_modules: Collection[str], *, outer: Sequence[Path]) -> Trained:
    """`open_trained`, for runs whose frozen parameters are looked for in it: each in the next of them."""
    folder = user_path(folder).resolve()
    if (folder / STAGE_FILE).is_file():
        stage = read_stage_config(folder / STAGE_FILE, allow_modules=allow_modules)
        if not has_checkpoint(folder):
            raise InputError(f'"{folder}" is a run that has no checkpoint yet; train it longer')
        return Trained(folder, stage, lambda: _load_run(folder, stage, (), allow_modules, outer))
    if (folder / CONFIG).is_file() and (folder.parent / INDEX).is_file():
        stage, load = open_stage(folder.parent, folder.name, allow_modules=allow_modules)
        return Trained(folder, stage, lambda: (load(), stage.step))
    expected = "expected a stage of a cascade, CASCADE/STAGE, or the workdir of a training"
    if (folder / INDEX).is_file():
        names = sorted(path.parent.name for path in folder.glob(f"*/{WEIGHTS}"))
        raise InputError(f'"{folder}" is a whole cascade; name one of its stages: {", ".join(names)}')
    raise InputError(f'"{folder}" {"holds no network" if folder.is_dir() else "is no folder"}; {expected}')


def load_run_params(
    workdir: Path,
    stage: StageConfig,
    *,
    frozen_from: Sequence[str | Path] = (),
    allow_modules: Collection[str] = (),
) -> tuple[Params, int]:
    """Loads the averaged parameters of a run's newest checkpoint, with the frozen ones that go with them; and its step.

    Args:
      workdir: of the run.
      stage: what the run has written about its stage.
      frozen_from: where the frozen parameters may be besides where they were: as of `open_trained`.
      allow_modules: see `sampling.folder.load_cascade`.

    Raises:
      InputError: there is no checkpoint, or another network's, or the frozen parameters aren't where they were.
      NotFiniteError: a parameter is infinite or not a number.
    """
    return _load_run(workdir.resolve(), stage, frozen_from, allow_modules, outer=())


def _load_run(
    workdir: Path,
    stage: StageConfig,
    frozen_from: Sequence[str | Path],
    allow_modules: Collection[str],
    outer: Sequence[Path],
) -> tuple[Params, int]:
    averaged = load_ema_params(workdir)
    params = averaged.params
    if averaged.frozen is not None:
        params = _merge_frozen(workdir, stage, averaged, frozen_from, allow_modules, [*outer, workdir])
    check_finite_params(params, f'"{workdir}", step {averaged.step}, stage of {stage.image_size} px')
    if _shapes(params) != _network_shapes(stage):
        raise InputError(
            f'"{workdir}": {STAGE_FILE} describes another network than the checkpoint holds; put back a copy'
        )
    return params, averaged.step


def _merge_frozen(
    workdir: Path,
    stage: StageConfig,
    averaged: Averaged,
    frozen_from: Sequence[str | Path],
    allow_modules: Collection[str],
    outer: Sequence[Path],
) -> Params:
    reference = averaged.frozen
    assert reference is not None
    config = read_run_config(workdir)
    # The stage's modules are allowed; another file's may not be.
    described = json.loads(json.dumps([config.model.to_dict(), config.conditions]))
    if described != json.loads(json.dumps([dict(stage.model), stage.conditions])):
        raise InputError(f'"{workdir}": config.json and {STAGE_FILE} describe different networks; put back copies')
    task, refused = build.task(config), []
    for place in [reference.origin, *frozen_from]:
        try:
            if user_path(place).resolve() in outer:
                raise InputError(f'"{place}" begins with itself')
            params, _ = _open(place, allow_modules, outer=outer).load()
            _, frozen = task.init(jax.random.key(0), params)
            reference.check(frozen)
            return task.merge(averaged.params, frozen)
        except InputError as error:
            refused.append(str(error))
    raise InputError(
        f'"{workdir}" was trained with frozen parameters, which are needed now: {"; ".join(refused)}; put them '
        "back, or name a folder that holds them (of export, --frozen_from)"
    )


def open_start(
    config: Any,
    shapes: Params,
    *,
    some_frozen: bool,
    text_width: int,
    workdir: Path | None = None,
    allow_modules: Collection[str] = (),
) -> Trained | None:
    """Opens what `config.train.init_from` names; None where parameters are drawn at random.

    Args:
      config: of the run that begins with it.
      shapes: of the parameters of the run's network.
      some_frozen: whether some of them are frozen.
      text_width: D of the run's texts.
      workdir: of the run, which can't begin with itself; None: it has none.
      allow_modules: see `sampling.folder.load_cascade`; the modules that `config` names itself are allowed.

    Raises:
      InputError: there is no such folder, it holds another network, or parameters would be frozen at random.
    """
    if not config.train.init_from:
        if some_frozen:
            raise InputError(
                f"config.train.trainable = {tuple(config.train.trainable)} freezes parameters that are random; give "
                "--config.train.init_from=CASCADE/STAGE, whose parameters are worth keeping, or train all"
            )
        return None
    own = [name for name in (config.model.name, config.sampling.sampler, *config.conditions) if is_import_path(name)]
    allowed = {*allow_modules, *(name.partition(":")[0] for name in own)}
    with build.named("config.train.init_from"):
        if workdir and user_path(config.train.init_from).resolve() == workdir.resolve():
            raise InputError(f'"{workdir}" is this run\'s own --workdir; name another run, or a stage of a cascade')
        found = open_trained(config.train.init_from, allow_modules=allowed)
        _check_same_network(found, config, shapes, text_width)
    return found


def _check_same_network(found: Trained, config: Any, shapes: Params, text_width: int) -> None:
    theirs, ours = make_model(**found.stage.model), build.model(config)
    rows = _differing({"name": found.stage.model["name"]}, {"name": config.model.name}, prefix="config.model.")
    if not rows:
        rows = _differing(_attributes(theirs), _attributes(ours), prefix="config.model.")
    arrays = _differing(_network_shapes(found.stage), _shapes(shapes))
    if not (rows or arrays):
        return
    if arrays:  # which these may be why
        given = {"data.low_res_size": found.stage.low_res_size or 0, "conditions": found.stage.conditions}
        wanted = {"data.low_res_size": config.data.low_res_size, "conditions": tuple(config.conditions)}
        rows += _differing(given, wanted, prefix="config.")
        rows += _differing({"the text's width": found.stage.text_width}, {"the text's width": text_width})
    more = [f"... and {len(arrays) - _SHOWN} more arrays"] if len(arrays) > _SHOWN else []
    raise InputError(
        f'"{found.folder}" holds another network; use its values, or begin with another:\n  '
        + "\n  ".join([*rows, *arrays[:_SHOWN], *more])
    )


def say_what_differs(found: Trained, stage: StageConfig) -> None:
    """Warns of what a run does otherwise than what it begins with did, though the network is the same.

    Args:
      found: what the run begins with.
      stage: of the run.
    """
    there, here = ({name: getattr(each, name) for name in _SAID} for each in (found.stage, stage))
    for row in _differing(there, here):
        logging.warning("not as in %s, which this run begins with: %s", found.folder, row)


def _shapes(params: Params) -> dict[str, tuple[int, ...]]:
    flat: dict[str, Any] = flatten_dict(dict(params), sep="/")
    return {path: tuple(leaf.shape) for path, leaf in flat.items()}


def _network_shapes(stage: StageConfig) -> dict[str, tuple[int, ...]]:
    return {path: tuple(leaf.shape) for path, leaf in parameter_shapes(stage).items()}


def _attributes(network: Any) -> dict[str, Any]:
    return {field.name: getattr(network, field.name) for field in dataclasses.fields(network) if field.name not in _HOW}


def _differing(there: Mapping[str, Any], here: Mapping[str, Any], *, prefix: str = "") -> list[str]:
    return [
        f"{prefix}{name}: {there.get(name, 'absent')!r} there, {here.get(name, 'absent')!r} here"
        for name in [*here, *(name for name in there if name not in here)]
        if there.get(name, "absent") != here.get(name, "absent")
    ]


def start_fingerprint(params: Params) -> str:
    """Returns a hash of parameters that this host has read, by which several hosts see that theirs are the same."""
    digest = hashlib.sha256()
    for path, array in sorted(flatten_dict(dict(params), sep="/").items()):
        digest.update(path.encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
