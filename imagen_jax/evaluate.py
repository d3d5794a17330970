"""Measures samples: of a cascade, over sampling settings, or any folder of images.

python -m imagen_jax.evaluate --cascade=CASCADE --data=emoji/food:train --num_samples=256 --guidance=1,2,4 --out=DIR
python -m imagen_jax.evaluate --images=FOLDER --reference=FOLDER|DATA|FILE.npz [--inception_weights=F] --out=DIR

With --cascade each combination of the settings given (values separated by commas; one value a stage: 3/1/1) is a point:
the same prompts from the same noise, in DIR/points. The numbers are in DIR/results.json and results.csv, by metric, and
curve.png shows distance against alignment. Killed and run again, it goes on; --status says how far it is. --metrics
defaults to all for which there is what they need. On several hosts DIR is one that they share.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags, logging

from imagen_jax import cli, shared_flags
from imagen_jax.data.sources import Source, open_source
from imagen_jax.errors import InputError
from imagen_jax.evaluation.base import Metric, Samples, measure
from imagen_jax.evaluation.clip.score import FORMULAS
from imagen_jax.evaluation.data_images import Searchable, SourceImages, names_of, open_images
from imagen_jax.evaluation.image_folder import ImageFolder
from imagen_jax.evaluation.metrics import METRICS, Inputs, make_metrics, possible
from imagen_jax.evaluation.prompts.prompt_lists import PromptList, draw_captions, read_lines
from imagen_jax.evaluation.prompts.protocols import PROTOCOLS
from imagen_jax.evaluation.reference import REFERENCE_CACHE, Reference
from imagen_jax.evaluation.resize import FLAVOURS
from imagen_jax.evaluation.sweeps import report
from imagen_jax.evaluation.sweeps.cascade_samples import CascadeSamples
from imagen_jax.evaluation.sweeps.grid import Point, make_points
from imagen_jax.evaluation.sweeps.sweep import Sweep, describe_status
from imagen_jax.files import write_json
from imagen_jax.sampling import load_cascade
from imagen_jax.sampling.cascade import Cascade
from imagen_jax.sampling.folder import cascade_fingerprint
from imagen_jax.sampling_flags import SETTINGS
from imagen_jax.training import hosts

_OUT = flags.DEFINE_string("out", None, "Folder to write.", required=True)
_STATUS = flags.DEFINE_bool("status", False, "Say how far the sweep in --out is, and exit.")
_METRICS = flags.DEFINE_list("metrics", None, f"Of: {', '.join(METRICS)}; default: all that can be computed.")
_IMAGES = flags.DEFINE_string("images", None, "Images to measure: a folder, or a data set such as emoji/food:test.")
_REFERENCE = flags.DEFINE_string(
    "reference", None, "Real images: a folder, a data set or an .npz of statistics; default: all of --data."
)
_CROP_TO = flags.DEFINE_integer("crop_to", None, "Crop and resize a --reference folder's images to so many pixels.")
_DATA_DIR = flags.DEFINE_string("data_dir", "datasets", "Where prepared data sets, and references' features, are kept.")
# What metrics need.
_INCEPTION = flags.DEFINE_string("inception_weights", None, "FID's network: pt_inception-2015-12-05-6726825d.pth.")
_RESIZE = flags.DEFINE_enum("resize", None, list(FLAVOURS), "For Inception; default tf_legacy.")
_CLIP = flags.DEFINE_string("clip", None, "Folder with a CLIP, as transformers lays it out.")
_CLIP_FORMULA = flags.DEFINE_enum("clip_formula", "cosine", list(FORMULAS), "Of the CLIP score.")
_BOOTSTRAP = flags.DEFINE_integer(
    "bootstrap", None, "Resamples for intervals; 0: none. Default: 100 where it is quick."
)
_SEED = flags.DEFINE_integer("seed", 0, "Of prompts drawn, noise, subsets and resamples.", lower_bound=0)
# What a cascade samples.
_CASCADE = flags.DEFINE_string("cascade", None, "Cascade folder, by imagen_jax.export.")
_DATA = flags.DEFINE_string("data", None, "Captions to sample, for example emoji/food:test.")
_PROTOCOL = flags.DEFINE_enum("protocol", None, list(PROTOCOLS), "A published protocol's prompts and settings.")
_PROMPTS_FILE = flags.DEFINE_string(
    "prompts_file", None, "Of drawbench (CSV), parti (TSV); without --protocol a prompt a line."
)
_COCO = flags.DEFINE_string("coco_annotations", None, "Of coco30k: captions_val2014.json.")
_COCO_READING = flags.DEFINE_enum(
    "coco_reading", "captions", ["captions", "images"], "30k captions, or one of 30k images."
)
_TRAINING = flags.DEFINE_string("training", None, "Images to search for copies and names; default: the cascade's own.")
_NUM_SAMPLES = flags.DEFINE_integer("num_samples", 128, "Captions of --data, drawn with the seed.", lower_bound=1)
_PER_PROMPT = flags.DEFINE_integer(
    "samples_per_prompt", None, "Of each prompt; default 1, or the protocol's.", lower_bound=1
)
_STOP_AT = flags.DEFINE_integer("stop_at", None, "Stop after the stage of this image size.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 16, "Images at a time, all devices together.", lower_bound=1)
_ENCODER = flags.DEFINE_string("encoder", None, "The text encoder's folder, if it isn't where training had it.")
_encoder_settings = shared_flags.define_encoder_flags()
_device_settings = shared_flags.define_device_flags()
_ONE_VALUE = {"guidance": "; one value is the base's", "aug_level": "; one value is for all super-resolution"}
_SETTING_FLAGS = {
    name: flags.DEFINE_list(name, None, f"{text} Commas separate points, slashes stages{_ONE_VALUE.get(name, '')}.")
    for name, (_, text) in SETTINGS.items()
}
_OF_CASCADES: Sequence[flags.FlagHolder] = (
    _DATA, _PROTOCOL, _PROMPTS_FILE, _COCO, _TRAINING, _NUM_SAMPLES, _PER_PROMPT, _STOP_AT, *_SETTING_FLAGS.values()
)  # fmt: skip


def main() -> None:
    """Measures, writes and prints."""
    out = Path(_OUT.value)
    if _STATUS.value:
        print(describe_status(out))
        return
    if bool(_CASCADE.value) == bool(_IMAGES.value):
        raise InputError("what to measure? give --cascade=FOLDER or --images=FOLDER, one of them")
    hosts.connect()
    hosts.check_equal(shared_flags.flag_values())
    if _IMAGES.value:
        _measure_images(_IMAGES.value, out)
    if _CASCADE.value:
        _measure_cascade(_CASCADE.value, out)
    hosts.disconnect()


def _measure_images(spec: str, out: Path) -> None:
    misplaced = [flag.name for flag in _OF_CASCADES if flag.present]
    if misplaced:
        raise InputError(f"--{misplaced[0]} is for --cascade, and --images has nothing to sample; leave it out")
    images = open_images(spec, data_dir=_DATA_DIR.value)
    hosts.check_equal({"--images": images.fingerprint})
    shape = next(iter(images.read(range(1)))).shape
    size = shape[0]
    reference = _reference(_REFERENCE.value, image_size=size, shape=shape)
    metrics = _metrics(Inputs(reference=reference, num_samples=len(images), **_given()))
    if not metrics:
        raise InputError("there is nothing to measure: give --reference, or --inception_weights, or --metrics")
    found = measure(metrics, Samples({size: images}))
    about: dict[str, Any] = {"num_samples": len(images), "samples_sha256": images.fingerprint}
    if isinstance(images, ImageFolder):
        about["num_unreadable"] = len(images.bad)
    if hosts.is_first():
        write_json(out / "results.json", report.entry(found, about | _about(metrics, reference)))
        print(f"{report.describe(found)}\nresults: {out / 'results.json'}")


def _measure_cascade(folder: str, out: Path) -> None:
    cascade = load_cascade(folder, keep_encoder=False, encoder_folder=_ENCODER.value, **_encoder_settings())
    cascade.meshes(**_device_settings())  # an error now rather than after data and text encoder
    prompts, source = _prompts()
    points = _points(cascade)
    per_prompt = PROTOCOLS[_PROTOCOL.value].samples_per_prompt if _PROTOCOL.value else 1
    samples = CascadeSamples(
        cascade,
        prompts,
        name=Path(folder).resolve().name,
        fingerprint=cascade_fingerprint(folder),
        samples_per_prompt=_PER_PROMPT.value or per_prompt,
        stop_at=_STOP_AT.value,
        seed=_SEED.value,
        encoder_dtype=_encoder_settings()["dtype"],
        batch_size=_BATCH_SIZE.value,
        **_device_settings(),
    )
    settings = {point.name: samples.settings(point) for point in points}
    real = _real(source, samples) if source else None
    size = samples.sizes[-1]
    of_data = source.spec if source else None  # a folder of captioned pictures is a data set, as in training
    reference = _reference(_REFERENCE.value or of_data, image_size=size, shape=(size, size, 3))
    search = _searched(cascade)
    metrics = _metrics(
        Inputs(
            reference=reference,
            prompts=True,
            names=bool(real and real.names and search and search.has_names),
            stages=len(samples.sizes) > 1,
            num_samples=len(samples.rows),
            search=search,
            **_given(),
        )
    )
    sweep = Sweep(out, points, samples.sizes, len(samples.rows), _BATCH_SIZE.value)
    sweep.begin(samples.identity)
    of_real = measure([metric for metric in metrics if metric.alignment], real) if real else {}
    asked = Samples({}, prompts=samples.prompts, names=real.names if real else ())
    about = {**samples.identity, **_about(metrics, reference)}
    title = f"{Path(folder).resolve().name}, {len(samples.rows)} samples of {prompts.name}"
    table = report.Table(out, title=title, varied=", ".join(points[0].values))
    for point in sweep.sample(samples.sample, samples.run):
        measures, fingerprint = sweep.score(point, metrics, asked, of_real)
        if hosts.is_first():
            print(f"{point.name}\n{report.describe(measures)}", flush=True)
            entry = {
                "point": point.name,
                **point.values,
                **report.entry(measures, about | {"samples_sha256": fingerprint}),
            }
            table.add(entry, measures, settings=settings[point.name], label=point.label)
            report.show(sweep.folder(point), samples.run(point))
    if hosts.is_first():
        print(f"results: {out / 'results.csv'} and what lies beside it; images: {out / 'points'}")
    hosts.gather("written")  # at the end they wait for each other for seconds only


def _about(metrics: Sequence[Metric], reference: Reference | None) -> dict[str, Any]:
    """What numbers depend on besides the samples."""
    about = {key: value for metric in metrics for key, value in metric.made_of.items()}
    return about | ({"reference": reference.fingerprint} if reference else {})


def _prompts() -> tuple[PromptList, Source | None]:
    """What to sample, and the data set that it is from, if any."""
    if _PROTOCOL.value:
        if _DATA.value:
            raise InputError("--protocol has its own prompts, which are no data set's; leave --data out")
        files = {"prompts_file": _PROMPTS_FILE.value, "coco_annotations": _COCO.value}
        paths = {name: Path(path) if path else None for name, path in files.items()}
        protocol = PROTOCOLS[_PROTOCOL.value]
        if protocol.num_prompts and _NUM_SAMPLES.present:
            protocol = dataclasses.replace(protocol, num_prompts=_NUM_SAMPLES.value)
        elif _NUM_SAMPLES.present:
            raise InputError(f"--num_samples: {protocol.name} is all of its file's prompts; leave it out")
        return protocol.read_prompts(**paths, reading=_COCO_READING.value, seed=_SEED.value), None
    if bool(_DATA.value) == bool(_PROMPTS_FILE.value):
        raise InputError("what to sample? give --data=DATA, --prompts_file=FILE or --protocol=NAME, one of them")
    if _PROMPTS_FILE.value and _NUM_SAMPLES.present:
        raise InputError("--num_samples is for --data; of --prompts_file all lines are sampled")
    if _PROMPTS_FILE.value:
        return read_lines(Path(_PROMPTS_FILE.value)), None
    source = open_source(_DATA.value or "", data_dir=_DATA_DIR.value)
    count = _NUM_SAMPLES.value if _NUM_SAMPLES.present else min(_NUM_SAMPLES.value, len(source))
    return draw_captions(source, count=count, seed=_SEED.value), source


def _points(cascade: Cascade) -> list[Point]:
    num_stages = sum(size <= (_STOP_AT.value or size) for size in cascade.stages)
    given = {name: flag.value for name, flag in _SETTING_FLAGS.items() if flag.value is not None}
    if _PROTOCOL.value and "guidance" not in given:
        weights = PROTOCOLS[_PROTOCOL.value].guidance
        own = [stage.settings.guidance_weight for stage in cascade.stages.values()]
        each = ["/".join(map(str, [*point[:num_stages], *own[len(point[:num_stages]) :]])) for point in weights]
        given |= {"guidance": list(dict.fromkeys(each))} if each else {}
    parse = {name: parse for name, (parse, _) in SETTINGS.items()}
    return make_points(given, parse, [stage.settings for stage in cascade.stages.values()])


def _real(source: Source, samples: CascadeSamples) -> Samples:
    """The data set's own images of the prompts."""
    indices = [int(key) for key in samples.ids]
    images = {size: SourceImages(source, image_size=size, indices=indices) for size in samples.sizes}
    return Samples(images, prompts=samples.prompts, names=names_of(source, indices))


def _searched(cascade: Cascade) -> Searchable | None:
    """The training images at the base's size, where they are at hand."""
    spec = _TRAINING.value or cascade.configs[0].source
    try:
        source = open_source(spec, data_dir=_DATA_DIR.value)
        return Searchable(source, image_size=cascade.configs[0].image_size)
    except InputError as error:
        if _TRAINING.value:
            raise
        logging.warning("no search for copies and names: %s", error)
        return None


def _reference(spec: str | None, *, image_size: int, shape: tuple[int, ...]) -> Reference | None:
    """Real images for samples of `shape`; those of a data set are brought to `image_size`."""
    if not spec:
        return None
    if spec.endswith(".npz"):
        if _CROP_TO.value:
            raise InputError("--crop_to is for folders of images, and statistics have none; leave it out")
        return Reference(Path(spec))
    images = open_images(spec, data_dir=_DATA_DIR.value, image_size=image_size, crop_to=_CROP_TO.value)
    hosts.check_equal({"the reference": images.fingerprint})
    real = next(iter(images.read(range(1)))).shape
    if real != shape:
        logging.warning(
            "the samples are %s and the reference's images %s: the way to one size changes every distance (--crop_to)",
            *("{} x {}".format(*each[:2]) for each in (shape, real)),
        )
    return Reference(images, cache=Path(_DATA_DIR.value) / REFERENCE_CACHE)


def _given() -> dict[str, Any]:
    """What the flags say of metrics."""
    return {
        "inception_weights": Path(_INCEPTION.value) if _INCEPTION.value else None,
        "resize": _RESIZE.value,
        "clip": Path(_CLIP.value) if _CLIP.value else None,
        "clip_formula": _CLIP_FORMULA.value,
        "num_resamples": _BOOTSTRAP.value,
        "seed": _SEED.value,
    }


def _metrics(inputs: Inputs) -> list[Metric]:
    names = possible(inputs) if _METRICS.value is None else _METRICS.value
    hosts.check_equal({"metrics": names})
    metrics = make_metrics(names, inputs)
    hosts.check_equal({"what metrics are made of": [dict(metric.made_of) for metric in metrics]})
    return metrics


if __name__ == "__main__":
    cli.run(main)
