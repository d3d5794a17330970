"""Measures samples: of a cascade, over sampling settings, or any folder of images.

python -m imagen_jax.evaluate --cascade=CASCADE --data=emoji/food:train --num_samples=256 --guidance=1/,2/,4/ --out=DIR
python -m imagen_jax.evaluate --images=FOLDER --reference=FOLDER|DATA|FILE.npz [--inception_weights=F] --out=DIR

With --cascade each combination of the settings given (values separated by commas, each as `sample` takes it: 3, one a
stage 3/1/1, or 3/ for the first alone) is a point: the same prompts from the same noise, in DIR/points. The numbers are
in DIR/results.json and results.csv, by metric, and curve.png shows distance against alignment, or what there is of the
two over the settings. Killed and run again, it goes on; --status says how far it is. --metrics defaults to all for
which there is what they need; features of emoji for emoji only, and a large training set isn't searched for copies
unless asked for. --images takes a folder, also what imagen_jax.sample wrote or a point of a sweep: of those the last
stage. On several hosts DIR is one that they share.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from imagen_jax import cli, hosts, shared_flags
from imagen_jax.data.sources import Source, open_source
from imagen_jax.errors import InputError
from imagen_jax.evaluation.bounds import LEAST_RESAMPLES, MOST_RESAMPLES
from imagen_jax.evaluation.clip.score import FORMULAS
from imagen_jax.evaluation.measuring.cascades import measure_cascade
from imagen_jax.evaluation.measuring.images import measure_images
from imagen_jax.evaluation.measuring.options import MetricOptions
from imagen_jax.evaluation.measuring.real_images import MOST_CROP_PX
from imagen_jax.evaluation.metrics import METRICS
from imagen_jax.evaluation.prompts.coco import READINGS
from imagen_jax.evaluation.prompts.prompt_lists import PromptList, draw_captions, read_lines
from imagen_jax.evaluation.prompts.protocols import PROTOCOLS
from imagen_jax.evaluation.sweeps.grid import Point, make_points
from imagen_jax.evaluation.sweeps.sweep import describe_status
from imagen_jax.resize import FLAVOURS
from imagen_jax.sampling import load_cascade
from imagen_jax.sampling.cascade import Cascade
from imagen_jax.sampling.folder import cascade_fingerprint
from imagen_jax.sampling.settings import BY_FLAG
from imagen_jax.sampling_flags import define_point_flags

_OUT = shared_flags.define_path("out", None, "Folder to write.", required=True)
_STATUS = flags.DEFINE_bool("status", False, "Say how far the sweep in --out is, and exit.")
_METRICS = flags.DEFINE_list("metrics", None, f"Of: {', '.join(METRICS)}; default: all that can be computed.")
_IMAGES = flags.DEFINE_string(
    "images", None, "Images to measure: a folder, also of imagen_jax.sample or a sweep, or a data set: emoji/food:test."
)
_REFERENCE = flags.DEFINE_string(
    "reference", None, "Real images: a folder, a data set or an .npz of statistics; default: all of --data."
)
_CROP_TO = flags.DEFINE_integer(
    "crop_to",
    None,
    "Crop and resize a --reference folder's images to so many pixels.",
    lower_bound=1,
    upper_bound=MOST_CROP_PX,
)
_DATA_DIR = shared_flags.define_path(
    "data_dir", "datasets", "Where prepared data sets, and references' features, are kept."
)
# What metrics need.
_INCEPTION = shared_flags.define_path(
    "inception_weights", None, "File of FID's network: pt_inception-2015-12-05-6726825d.pth."
)
_RESIZE = flags.DEFINE_enum("resize", None, list(FLAVOURS), "How images are resized for Inception; default tf_legacy.")
_CLIP = shared_flags.define_path("clip", None, "Folder with a CLIP, as transformers lays it out.")
_CLIP_FORMULA = flags.DEFINE_enum("clip_formula", None, list(FORMULAS), "Of the CLIP score; default cosine.")
_BOOTSTRAP = flags.DEFINE_integer(
    "bootstrap",
    None,
    f"Resamples for intervals, {LEAST_RESAMPLES} at least; 0: none. Default: 100 where it is quick.",
    lower_bound=0,
    upper_bound=MOST_RESAMPLES,
)
_SEED = flags.DEFINE_integer(
    "seed", 0, "Of prompts drawn, noise, subsets and resamples.", lower_bound=0, upper_bound=2**32 - 1
)
# What a cascade samples.
_CASCADE = shared_flags.define_path("cascade", None, "Cascade folder, by imagen_jax.export.")
_DATA = flags.DEFINE_string("data", None, "Captions to sample, for example emoji/food:test.")
_PROTOCOL = flags.DEFINE_enum("protocol", None, list(PROTOCOLS), "A published protocol's prompts and settings.")
_PROMPTS_FILE = shared_flags.define_path(
    "prompts_file", None, "Of drawbench (CSV), parti (TSV); without --protocol one prompt per line."
)
_COCO = shared_flags.define_path("coco_annotations", None, "Of coco30k and coco10k: captions_val2014.json.")
_COCO_READING = flags.DEFINE_enum(
    "coco_reading", None, list(READINGS), "Draws 30k captions (the default), or one of each of 30k images."
)
_TRAINING = flags.DEFINE_string("training", None, "Images to search for copies and names; default: the cascade's own.")
_NUM_SAMPLES = flags.DEFINE_integer(
    "num_samples", 128, "Captions of --data, drawn with the seed.", lower_bound=1, upper_bound=10_000_000
)
_PER_PROMPT = flags.DEFINE_integer(
    "samples_per_prompt", None, "Of each prompt; default 1, or the protocol's.", lower_bound=1, upper_bound=100_000
)
_STOP_AT = flags.DEFINE_integer("stop_at", None, "Stop after the stage of this image size.", lower_bound=1)
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", 16, "Images at a time, all devices together.", lower_bound=1, upper_bound=65_536
)
_ENCODER = shared_flags.define_path("encoder", None, "The text encoder's folder, if it isn't where training had it.")
_encoder_settings = shared_flags.define_encoder_flags()
_device_settings = shared_flags.define_device_flags()
_ALLOW_MODULES = shared_flags.define_allow_modules()
_settings_given = define_point_flags()
_OF_CASCADES: Sequence[str] = (
    *("data", "protocol", "prompts_file", "coco_annotations", "coco_reading", "training", "num_samples"),
    *("samples_per_prompt", "stop_at", "batch_size", "encoder", "encoder_dtype", "encoder_devices", "encoder_shards"),
    *("devices", "image_shards", "allow_modules", *BY_FLAG),
)


def main() -> None:
    """Measures, writes and prints."""
    out: Path = _OUT.value
    if _STATUS.value:
        print(describe_status(out))
        return
    if bool(_CASCADE.value) == bool(_IMAGES.value):
        raise InputError("what to measure? give --cascade=FOLDER or --images=FOLDER, one of them")
    if _BOOTSTRAP.value is not None and 0 < _BOOTSTRAP.value < LEAST_RESAMPLES:
        raise InputError(
            f"--bootstrap={_BOOTSTRAP.value}: expected {LEAST_RESAMPLES} resamples at least, or 0 for none"
        )
    misplaced = [name for name in _OF_CASCADES if flags.FLAGS[name].present]
    if _IMAGES.value and misplaced:
        raise InputError(f"--{misplaced[0]} is for --cascade, and --images has nothing to sample; leave it out")
    options = _metric_options()
    shared: dict[str, Any] = {"crop_to": _CROP_TO.value, "data_dir": _DATA_DIR.value}
    with hosts.noticing_the_lost():
        hosts.connect()
        hosts.check_equal(shared_flags.flag_values())
        if _IMAGES.value:
            measure_images(_IMAGES.value, out, options, **shared)
        else:
            _measure_cascade(_CASCADE.value, out, options, **shared)
        hosts.disconnect()


def _metric_options() -> MetricOptions:
    """What the flags say of metrics."""
    return MetricOptions(
        metrics=_METRICS.value,
        inception_weights=_INCEPTION.value,
        resize=_RESIZE.value,
        clip=_CLIP.value,
        clip_formula=_CLIP_FORMULA.value,
        bootstrap=_BOOTSTRAP.value,
        seed=_SEED.value,
        reference=_REFERENCE.value,
        training=_TRAINING.value,
    )


def _measure_cascade(folder: Path, out: Path, options: MetricOptions, **shared: Any) -> None:
    allowed = _ALLOW_MODULES.value
    cascade = load_cascade(
        folder, keep_encoder=False, encoder_folder=_ENCODER.value, allow_modules=allowed, **_encoder_settings()
    )
    cascade.meshes(**_device_settings())  # an error now rather than after data and text encoder
    prompts, source = _prompts()
    points = _points(cascade)
    per_prompt = PROTOCOLS[_PROTOCOL.value].samples_per_prompt if _PROTOCOL.value else 1
    measure_cascade(
        cascade,
        folder,
        out,
        options,
        prompts=prompts,
        source=source,
        points=points,
        given=list(_settings_given()),
        fingerprint=cascade_fingerprint(folder, allow_modules=allowed),
        allow_modules=allowed,
        samples_per_prompt=_PER_PROMPT.value or per_prompt,
        stop_at=_STOP_AT.value,
        seed=_SEED.value,
        batch_size=_BATCH_SIZE.value,
        encoder_dtype=_encoder_settings()["dtype"],
        devices=_device_settings(),
        **shared,
    )


def _prompts() -> tuple[PromptList, Source | None]:
    """What to sample, and the data set that it is from, if any."""
    of_coco = _PROTOCOL.value and not PROTOCOLS[_PROTOCOL.value].read_table
    for flag in (_COCO, _COCO_READING):
        if flag.value and not of_coco:
            raise InputError(f"--{flag.name} is for --protocol=coco30k or coco10k; leave it out, or add that")
    if _PROTOCOL.value:
        if _DATA.value:
            raise InputError("--protocol has its own prompts, which are no data set's; leave --data out")
        paths = {"prompts_file": _PROMPTS_FILE.value, "coco_annotations": _COCO.value}
        protocol = PROTOCOLS[_PROTOCOL.value]
        if protocol.num_prompts and _NUM_SAMPLES.present:
            protocol = dataclasses.replace(protocol, num_prompts=_NUM_SAMPLES.value)
        elif _NUM_SAMPLES.present:
            raise InputError(f"--num_samples: {protocol.name} is all of its file's prompts; leave it out")
        return protocol.read_prompts(**paths, reading=_COCO_READING.value or READINGS[0], seed=_SEED.value), None
    if bool(_DATA.value) == bool(_PROMPTS_FILE.value):
        raise InputError("what to sample? give --data=DATA, --prompts_file=FILE or --protocol=NAME, one of them")
    if _PROMPTS_FILE.value and _NUM_SAMPLES.present:
        raise InputError("--num_samples is for --data; of --prompts_file all lines are sampled")
    if _PROMPTS_FILE.value:
        return read_lines(_PROMPTS_FILE.value), None
    source = open_source(_DATA.value or "", data_dir=str(_DATA_DIR.value))
    count = _NUM_SAMPLES.value if _NUM_SAMPLES.present else min(_NUM_SAMPLES.value, len(source))
    return draw_captions(source, count=count, seed=_SEED.value), source


def _points(cascade: Cascade) -> list[Point]:
    num_stages = sum(size <= (_STOP_AT.value or size) for size in cascade.stages)
    given = _settings_given()
    if _PROTOCOL.value and "guidance" not in given:
        weights = PROTOCOLS[_PROTOCOL.value].guidance
        own = [stage.settings.guidance_weight for stage in cascade.stages.values()]
        each = ["/".join(map(str, [*point[:num_stages], *own[len(point[:num_stages]) :]])) for point in weights]
        given |= {"guidance": list(dict.fromkeys(each))} if each else {}
    return make_points(given, [stage.settings for stage in cascade.stages.values()])


if __name__ == "__main__":
    cli.run(main)
