"""Measuring samples of a cascade over sampling settings: a sweep, from its prompts to its table."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import logging

from imagen_jax import hosts
from imagen_jax.data.sources import Source, open_source, own_opener
from imagen_jax.errors import InputError
from imagen_jax.evaluation.base import Samples, measure
from imagen_jax.evaluation.data_images import Searchable, SourceImages, names_of
from imagen_jax.evaluation.measuring.options import MetricOptions, choose_metrics
from imagen_jax.evaluation.measuring.real_images import is_emoji, open_reference
from imagen_jax.evaluation.metrics import Inputs
from imagen_jax.evaluation.prompts.prompt_lists import PromptList
from imagen_jax.evaluation.sweeps import report
from imagen_jax.evaluation.sweeps.cascade_samples import CascadeSamples
from imagen_jax.evaluation.sweeps.grid import Point
from imagen_jax.evaluation.sweeps.sweep import Sweep
from imagen_jax.sampling.cascade import Cascade
from imagen_jax.sampling.settings import without_effect
from imagen_jax.terminal import say


def measure_cascade(
    cascade: Cascade,
    folder: Path,
    out: Path,
    options: MetricOptions,
    *,
    prompts: PromptList,
    source: Source | None,
    points: Sequence[Point],
    given: Sequence[str],
    fingerprint: str,
    allow_modules: Collection[str] = (),
    samples_per_prompt: int,
    stop_at: int | None,
    seed: int,
    batch_size: int,
    encoder_dtype: str,
    devices: Mapping[str, Any],
    crop_to: int | None,
    data_dir: Path,
) -> None:
    """Samples what OUT lacks of a sweep, measures each point, prints and writes the numbers. All hosts call it.

    Args:
      cascade: that was loaded from `folder`.
      out: a new folder, or one with a sweep of the same samples.
      options: the metrics, and what they compare with; without a reference there, with all of `source`.
      prompts: what is sampled, and the data set that they are from, `source`, if any.
      points: the settings.
      given: names of the settings that the user has given, which must have an effect.
      fingerprint: of the cascade: see `cascade_fingerprint`.
      allow_modules: see `load_cascade`; here of the module that has the data set it was trained on.
      samples_per_prompt, stop_at, seed, encoder_dtype: see `CascadeSamples`.
      batch_size, devices: see `Cascade.sample`; nothing of this changes an image.
      crop_to: of the reference folder's images, see `open_reference`.
      data_dir: where prepared data sets are, and references' features are kept.

    Raises:
      InputError: something is missing or can't be used, or OUT holds something else.
      NotFiniteError: samples or features that are not finite.
      StorageError: the disk is full, read-only or gone; the same command goes on later.
    """
    name = folder.resolve().name
    samples = CascadeSamples(
        cascade,
        prompts,
        name=name,
        fingerprint=fingerprint,
        samples_per_prompt=samples_per_prompt,
        stop_at=stop_at,
        seed=seed,
        encoder_dtype=encoder_dtype,
        batch_size=batch_size,
        **devices,
    )
    settings = {point.name: samples.settings(point) for point in points}
    if idle := without_effect(given, list(settings.values())):
        raise InputError(f"--{idle[0]}")
    real = _real(source, samples) if source else None
    size = samples.sizes[-1]
    data = source.spec if source else None
    reference = open_reference(
        options.reference or data, image_size=size, shape=(size, size, 3), crop_to=crop_to, data_dir=data_dir
    )
    search = _searched(options.training, cascade, data_dir=data_dir, allow_modules=allow_modules)
    inputs = Inputs(
        reference=reference,
        prompts=True,
        names=bool(real and real.names and search and search.has_names),
        stages=len(samples.sizes) > 1,
        num_samples=len(samples.rows),
        search=search,
        emoji=any(map(is_emoji, (options.reference, data, cascade.configs[0].source))),
        **options.inputs(),
    )
    metrics = choose_metrics(options, inputs)
    sweep = Sweep(out, points, samples.sizes, len(samples.rows), batch_size)
    sweep.begin(samples.identity)
    of_real = measure([metric for metric in metrics if metric.alignment], real) if real else {}
    asked = Samples({}, prompts=samples.prompts, names=real.names if real else ())
    about = {**samples.identity, **report.about(metrics, reference)}
    title = f"{name}, {len(samples.rows)} samples of {prompts.name}"
    table = report.Table(out, title=title, varied=_varied(points))
    for point in sweep.sample(samples.sample, samples.run):
        measures, fingerprint = sweep.score(point, metrics, asked, of_real)
        if hosts.is_first():
            say(f"{point.name}\n{report.describe(measures)}")
            entry = {
                "point": point.name,
                **point.values,
                **report.entry(measures, about | {"samples_sha256": fingerprint}),
            }
            table.add(entry, measures, settings=settings[point.name], label=point.label)
            report.show(sweep.folder(point), samples.run(point))
    if hosts.is_first():
        say(f"results: {out / 'results.csv'} and what lies beside it; images: {out / 'points'}")
    hosts.gather("written")  # at the end they wait for each other for seconds only


def _varied(points: Sequence[Point]) -> str:
    """The names of the settings that have several values; of all where none has."""
    values = points[0].values
    varied = [name for name in values if any(point.values[name] != values[name] for point in points)]
    return ", ".join(varied or values)


def _real(source: Source, samples: CascadeSamples) -> Samples:
    """The data set's own images of the prompts."""
    indices = [int(key) for key in samples.ids]
    images = {size: SourceImages(source, image_size=size, indices=indices) for size in samples.sizes}
    return Samples(images, prompts=samples.prompts, names=names_of(source, indices))


def _searched(
    training: str | None, cascade: Cascade, *, data_dir: Path, allow_modules: Collection[str]
) -> Searchable | None:
    """The training images at the base's size, where they are at hand."""
    spec = training or cascade.configs[0].source
    module = own_opener(spec).partition(":")[0]
    if module and not training and module not in allow_modules:
        logging.warning(
            "no search for copies and names: the cascade's data set is opened by the module %s, which runs it; "
            "allow that with --allow_modules=%s",
            module, module,
        )  # fmt: skip
        return None
    try:
        source = open_source(spec, data_dir=str(data_dir))
        return Searchable(source, image_size=cascade.configs[0].image_size)
    except InputError as error:
        if training:
            raise
        logging.warning("no search for copies and names: %s", error)
        return None
