"""Measuring a set of images that is there already."""

from pathlib import Path
from typing import Any

from imagen_jax import hosts
from imagen_jax.errors import InputError
from imagen_jax.evaluation.base import Samples, measure
from imagen_jax.evaluation.image_folder import ImageFolder
from imagen_jax.evaluation.measuring.options import MetricOptions, choose_metrics
from imagen_jax.evaluation.measuring.real_images import is_emoji, open_reference, open_set
from imagen_jax.evaluation.metrics import Inputs
from imagen_jax.evaluation.output_folders import POINTS, SWEEP_FILE
from imagen_jax.evaluation.sweeps import report
from imagen_jax.evaluation.sweeps.sweep import what_else
from imagen_jax.files import read_json, write_json
from imagen_jax.terminal import say

RESULTS_FILE = "results.json"


def measure_images(spec: str, out: Path, options: MetricOptions, *, crop_to: int | None = None, data_dir: Path) -> None:
    """Measures images, prints the numbers, and writes them to OUT/results.json. On several hosts all call it.

    Args:
      spec: see `open_set`.
      out: a new folder, or one with results of the same images.
      options: the metrics, and what they compare with.
      crop_to: of the reference folder's images, see `open_reference`.
      data_dir: where prepared data sets are, and references' features are kept.

    Raises:
      InputError: something is missing or can't be used, or OUT holds something else.
      StorageError: the results can't be written.
    """
    check_out(out)
    images, said = open_set(spec, data_dir=data_dir)
    if said and hosts.is_first():
        say(said)
    hosts.check_equal({"--images": images.fingerprint})
    check_out(out, fingerprint=images.fingerprint)
    shape = next(iter(images.read(range(1)))).shape
    size = shape[0]
    reference = open_reference(options.reference, image_size=size, shape=shape, crop_to=crop_to, data_dir=data_dir)
    emoji = is_emoji(options.reference) or is_emoji(spec)
    inputs = Inputs(reference=reference, num_samples=len(images), emoji=emoji, **options.inputs())
    metrics = choose_metrics(options, inputs)
    found = measure(metrics, Samples({size: images}))
    about: dict[str, Any] = {"num_samples": len(images), "samples_sha256": images.fingerprint}
    if isinstance(images, ImageFolder):
        about["num_unreadable"] = len(images.bad)
    if hosts.is_first():
        # First of all: a disk that is full costs the file, and not the numbers.
        say(report.describe(found))
        write_json(out / RESULTS_FILE, report.entry(found, about | report.about(metrics, reference)))
        say(f"results: {out / RESULTS_FILE}")


def check_out(out: Path, *, fingerprint: str | None = None) -> None:
    """Checks that OUT can take the results of images, without another run's being lost or mixed with them.

    Args:
      out: the folder.
      fingerprint: of the images, if they are known already.

    Raises:
      InputError: OUT is a sweep, holds something else, or results of images with another fingerprint.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f'"{out}" is a file; expected a folder to write results to: choose another --out')
    if (out / SWEEP_FILE).exists() or (out / POINTS).exists():
        raise InputError(f'"{out}" is a sweep, whose results would be overwritten; choose another --out')
    if others := what_else(out, own=RESULTS_FILE):
        raise InputError(f'"{out}" holds {others}, which is something else than results; choose another --out')
    if fingerprint is None or not (out / RESULTS_FILE).is_file():
        return
    try:
        before = read_json(out / RESULTS_FILE, expected="results").get("samples_sha256")
    except InputError:
        return  # damaged, so nothing is lost
    if before != fingerprint:
        raise InputError(f'"{out}" has the results of other images; choose another --out, or delete that folder')
