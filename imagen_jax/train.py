"""Trains one stage of a cascade.

python -m imagen_jax.train --config=configs/X.py[:VARIANT] --workdir=DIR [--config.key=value] [--dry_run]
    [--init_from=CASCADE/STAGE]

--init_from begins with the parameters of a cascade's stage, or of another run's workdir, instead of random ones;
--config.train.trainable says which of them are trained.

The same command goes on where an earlier one stopped, and ends with the same parameters, bit for bit. Exit codes: 0
done; 42 stopped by SIGTERM after a checkpoint, 130 by Ctrl-C, likewise (a second Ctrl-C leaves at once); 2 a mistake in
the command or the config; 3 all checkpoints are damaged; 4 the loss or its gradient was not finite, 20 steps in a row;
5 the disk is full, read-only or gone.
"""

from pathlib import Path
from typing import Any, Literal

import jax
from absl import flags, logging
from flax.traverse_util import flatten_dict
from ml_collections import config_flags

from imagen_jax import build, cli, hosts, trained
from imagen_jax import config as config_lib
from imagen_jax import evaluators as evaluators_lib
from imagen_jax import workdir as workdir_lib
from imagen_jax.data.pipeline import make_dataset, prefetch_to_devices
from imagen_jax.data.sources import open_source
from imagen_jax.errors import (
    EXIT_INTERRUPTED,
    EXIT_NO_CHECKPOINT,
    EXIT_NOT_FINITE,
    EXIT_PREEMPTED,
    InputError,
    NotFiniteError,
)
from imagen_jax.evaluation.base import Evaluator
from imagen_jax.planning.topology import running_on
from imagen_jax.resolve import resolve
from imagen_jax.sampling.cascade import StageConfig
from imagen_jax.shared_flags import define_allow_modules, define_path
from imagen_jax.training import loop, parallel
from imagen_jax.training.checkpoint import NoCheckpointError, has_checkpoint
from imagen_jax.training.claim import Claim
from imagen_jax.training.state import Frozen, TrainState, count_parameters, parameter_table
from imagen_jax.types import Params

_CONFIG = config_flags.DEFINE_config_file("config", None, "The run: configs/X.py[:VARIANT].", lock_config=True)
_WORKDIR = define_path("workdir", None, "Folder of checkpoints, metrics and samples.")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print the resolved config and the parameter table, and exit.")
_PROFILE_STEPS = flags.DEFINE_string(
    "profile_steps", None, "FROM:TO, as in 100:110: trace the steps after the 100th up to the 110th (WORKDIR/profile)."
)
_INIT_FROM = define_path("init_from", None, "Begin with its parameters: a cascade's stage, or a run's workdir.")
_ALLOW_MODULES = define_allow_modules()
flags.mark_flag_as_required("config")


def main() -> int:
    """Trains, and returns the exit code."""
    config: Any = _CONFIG.value
    if _INIT_FROM.value:
        if config.train.init_from not in ("", str(_INIT_FROM.value)):
            raise InputError(
                f"--init_from={_INIT_FROM.value} and config.train.init_from = {config.train.init_from!r} are one "
                "setting; give one of them"
            )
        config.train.init_from = str(_INIT_FROM.value)
    if not _DRY_RUN.value:
        with hosts.noticing_the_lost():
            hosts.connect()
            hosts.check_equal(_what_must_be_equal(config))
    config_lib.validate(config, num_devices=jax.device_count())
    build.check(config)
    evaluators_lib.check(config)
    if config.train.init_from:
        # As the config is written down, so that it means the same wherever a later start is made.
        config.train.init_from = str(Path(config.train.init_from).resolve())
    if _DRY_RUN.value:
        print(_describe(resolve(config)))
        return 0
    if not _WORKDIR.value:
        raise InputError("--workdir is required: the folder for checkpoints, metrics and samples")
    profile_steps = _profile_steps()
    with hosts.noticing_the_lost():
        code = _train(config, _WORKDIR.value, profile_steps)
        hosts.disconnect()
    return code


def _train(config: Any, workdir: Path, profile_steps: range) -> int:
    if not config.data.source:
        raise InputError(
            "config.data.source is empty; give the data set: --config.data.source=FOLDER for a folder of captioned "
            "pictures (docs/own_data.md), or a name such as emoji/food:train"
        )
    text_store = build.open_text_store(config)
    source = open_source(config.data.source, data_dir=config.data.data_dir)
    trained_on, held_out = evaluators_lib.split(config, source)
    captions = source.captions()
    config = resolve(config, captions=captions if trained_on is None else [captions[row] for row in trained_on])
    config_lib.validate(config, num_devices=jax.device_count())  # once more, as its length is known now
    dataset = make_dataset(
        source,
        text_store,
        image_size=config.data.image_size,
        low_res_size=config.data.low_res_size or None,
        crop_size=config.data.crop_size or None,
        batch_size=config.data.batch_size,
        max_tokens=config.data.max_tokens,
        seed=config.seed,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        rows=trained_on,
        from_record=build.from_record(config),
    )
    stage = build.stage_config(config, text_store=text_store)
    # What can't be built fails here, before anything is written or compiled.
    shapes, frozen_shapes = build.shapes(config, text_width=text_store.width)
    # What one host sees of a bucket another may see later; what follows they do together.
    resumes = "True" in hosts.gather(str(has_checkpoint(workdir)))
    if resumes:
        workdir_lib.check_resumes(workdir, config, stage)
    # A checkpoint holds all but what is frozen.
    start = None if resumes and not frozen_shapes else _open_start(config, shapes, frozen_shapes, text_store.width)
    params = _read_start(start, stage, resumes=resumes, some_frozen=bool(frozen_shapes)) if start else None
    hosts.check_equal({"the data": source.fingerprint, "the text store": stage.encoder_fingerprint})
    evaluators: list[tuple[int, Evaluator]] = []
    if config.prompts:
        grid = evaluators_lib.sample_grid(config, stage=stage, source=source, text_store=text_store)
        evaluators.append((config.train.sample_every, grid))
    if config.evaluation.metrics:
        metrics = evaluators_lib.sample_metrics(config, stage=stage, source=source, text_store=text_store)
        evaluators.append((config.evaluation.every, metrics))
    if held_out:
        loss = evaluators_lib.held_out_loss(config, source=source, text_store=text_store, rows=held_out)
        evaluators.append((config.train.sample_every, loss))
    claim = Claim(workdir) if hosts.is_first() else None
    if claim:
        workdir_lib.describe(workdir, config, stage)

    devices = parallel.all_devices()
    init_key, train_key = jax.random.split(jax.random.key(config.seed))
    run = parallel.parallelise(config.train.strategy, build.step(config), devices, shapes, frozen_shapes)
    create = jax.jit(
        build.create(config, text_width=text_store.width), out_shardings=(run.state_sharding, run.frozen_sharding)
    )
    state, frozen = create(init_key, parallel.put_start(params, devices) if params else None)
    del params
    _say_what_starts(workdir, config, stage)
    logging.info("%.1fM parameters%s, %s on %d %s device(s)",
        (count_parameters(state.params) + count_parameters(frozen)) / 1e6,
        f" ({count_parameters(frozen) / 1e6:.1f}M of them frozen)" if frozen else "",
        config.train.strategy, len(devices), devices[0].platform,
    )  # fmt: skip
    logging.info("%d images of %s%s, text by %s",
        len(source) - len(held_out), config.data.source,
        f" ({len(held_out)} more are held out)" if held_out else "", text_store.encoder_name,
    )  # fmt: skip
    slice_ = running_on(devices)
    seconds_at_peak = build.work(config, text_width=text_store.width).seconds_at_peak(slice_) if slice_ else None
    try:
        _, ending = loop.train(
            build.task(config),
            state,
            Frozen(frozen, str(start.folder) if start else ""),
            run,
            prefetch_to_devices(iter(dataset), sharding=run.batch_sharding, device_axis=run.device_axis),
            train_key,
            workdir=workdir,
            settings=loop.LoopSettings(
                num_steps=config.train.num_steps,
                batch_size=config.data.batch_size,
                log_every=config.train.log_every,
                checkpoint_every=config.train.checkpoint_every,
                keep_checkpoints=config.train.keep_checkpoints,
                stall_s=60 * config.train.stall_minutes,
                seconds_at_peak=seconds_at_peak,
                profile_steps=profile_steps,
                description=config_lib.to_json(config),
            ),
            evaluators=[(every, evaluator.run) for every, evaluator in evaluators],
            check_claim=claim.check if claim else lambda: None,
        )
    except NoCheckpointError as error:
        logging.error("%s", error)
        return EXIT_NO_CHECKPOINT
    except NotFiniteError as error:
        logging.error("%s", error)
        return EXIT_NOT_FINITE
    if ending == "done":
        _say_what_comes_next(workdir, config)
    return _CODES[ending]


_CODES: dict[Literal["done", "terminated", "interrupted"], int] = {
    "done": 0,
    "terminated": EXIT_PREEMPTED,
    "interrupted": EXIT_INTERRUPTED,
}


def _open_start(config: Any, state: TrainState, frozen: Params, text_width: int) -> trained.Trained | None:
    """What the run begins with, of the shapes of its state; None: random parameters."""
    network = build.task(config).merge(state.params, frozen)
    return trained.open_start(
        config,
        network,
        some_frozen=bool(frozen),
        text_width=text_width,
        workdir=_WORKDIR.value,
        allow_modules=_ALLOW_MODULES.value,
    )


def _read_start(start: trained.Trained, stage: StageConfig, *, resumes: bool, some_frozen: bool) -> Params:
    """What the run begins with, as numpy arrays."""
    trained.say_what_differs(start, stage)
    params, step = start.load()
    if jax.process_count() > 1:
        hosts.check_equal({f"the parameters in {start.folder}": trained.start_fingerprint(params)})
    what = "Frozen parameters are those" if resumes else "Begins with the parameters"
    logging.info("%s of %s, step %d", what, start.folder, step)
    if some_frozen and has_checkpoint(start.folder):
        logging.warning(
            "%s is a run, whose newest checkpoint is read again whenever this one goes on or is exported; if that "
            "run is trained further, the frozen parameters are lost: begin with a cascade exported from it instead",
            start.folder,
        )
    return params


def _say_what_starts(workdir: Path, config: Any, stage: StageConfig) -> None:
    size, low_res = stage.image_size, stage.low_res_size
    logging.info("%s", workdir)
    if low_res:
        logging.info("A super-resolution stage: from %d px and text to %d px", low_res, size)
    else:
        logging.info("A base stage: from text to %d px", size)
    logging.info("%d steps of %d images", config.train.num_steps, config.data.batch_size)


def _say_what_comes_next(workdir: Path, config: Any) -> None:
    before = "" if not config.data.low_res_size else "BASE,...,"  # its own workdir is the last of the list
    logging.info(
        "Done. To sample from it: python -m imagen_jax.export --workdirs=%s%s --out=CASCADE; for larger images, before "
        "that: train a stage with config.data.low_res_size=%d",
        before, workdir, config.data.image_size,
    )  # fmt: skip


def _what_must_be_equal(config: Any) -> dict[str, Any]:
    settings = flatten_dict(config.to_dict(), sep=".", keep_empty_nodes=True)
    return {
        **{f"config.{name}": str(value) for name, value in settings.items()},
        "--workdir": str(_WORKDIR.value),
        "the code's revision": workdir_lib.revision(),
        "jax's version": jax.__version__,
    }


def _profile_steps() -> range:
    if not _PROFILE_STEPS.value:
        return range(0)
    first, colon, last = _PROFILE_STEPS.value.partition(":")
    if not (colon and first.isdecimal() and last.isdecimal() and int(first) < int(last)):
        raise InputError(f"--profile_steps={_PROFILE_STEPS.value}: expected FROM:TO, such as 100:110")
    return range(int(first), int(last))


def _describe(config: Any) -> str:
    width, whose = build.text_width(config)
    if config.train.init_from and whose != config.data.text_store:
        found = trained.open_trained(config.train.init_from, allow_modules=_ALLOW_MODULES.value)
        width, whose = found.stage.text_width, str(found.folder)
    state, frozen = build.shapes(config, text_width=width)
    _open_start(config, state, frozen, width)  # raises where it doesn't fit
    table = parameter_table(state.params, frozen)
    return f"{config_lib.to_json(config)}\n{table}\n(for text of width {width}: {whose})"


if __name__ == "__main__":
    cli.run(main)
