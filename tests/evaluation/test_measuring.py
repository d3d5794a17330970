"""Options of metrics, and sets of images measured in this process."""

import json
from pathlib import Path

import numpy as np
import pytest

from imagen_jax import files
from imagen_jax.errors import InputError, StorageError
from imagen_jax.evaluation.image_sets import ArrayImages
from imagen_jax.evaluation.measuring.images import measure_images
from imagen_jax.evaluation.measuring.options import MetricOptions, check_used, choose_metrics
from imagen_jax.evaluation.measuring.real_images import is_emoji, open_reference
from imagen_jax.evaluation.metrics import Inputs
from imagen_jax.evaluation.reference import Reference
from imagen_jax.sampling.images import save_png
from tests.evaluation.test_output_folders import write_samples, write_sweep

CORNERS = MetricOptions(metrics=["corners"])


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ([], "--metrics= names no metric"),
        ([""], "--metrics= names no metric"),
        (["fid", ""], "--metrics=fid,: a name is empty"),
        (["fid", " fid"], "--metrics=fid,fid: fid is there 2 times"),
        (["fidd"], 'unknown metric "fidd".*Did you mean "fid"'),
    ],
)
def test_names_of_metrics_are_checked(metrics, message):
    with pytest.raises(InputError, match=message):
        MetricOptions(metrics=metrics)
    assert MetricOptions(metrics=[" fid ", "kid"]).metrics == ("fid", "kid")


@pytest.mark.parametrize("bootstrap", [-5, 1, 9, 10**6, 2.5, True])
def test_resamples_are_bounded(bootstrap):
    with pytest.raises(InputError, match="--bootstrap is"):
        MetricOptions(bootstrap=bootstrap)


@pytest.mark.parametrize(
    ("given", "metrics", "message"),
    [
        (
            {"reference": "x.npz"},
            [],
            r"--reference=x.npz has no effect: no metric that can be computed.*is for fid, with",
        ),
        (
            {"reference": "photos"},
            ["corners"],
            r"none of the metrics \(corners\) uses it; fid and kid need --inception",
        ),
        ({"inception_weights": Path("w.pth")}, ["corners"], "--inception_weights=w.pth has no effect"),
        (
            {"resize": "clean"},
            ["fd_emojicnn"],
            "--resize=clean has no effect.*it is for metrics of --inception_weights",
        ),
        ({"clip": Path("c")}, ["fid"], "--clip=c has no effect.*cmmd does, with --reference"),
        ({"clip_formula": "cosine"}, ["cmmd"], "--clip_formula=cosine has no effect"),
        ({"bootstrap": 0}, ["memorisation", "kid"], "--bootstrap=0 has no effect.*it is for fid, cmmd"),
        ({"training": "emoji"}, ["fid"], "--training=emoji has no effect.*names and memorisation do"),
    ],
)
def test_an_option_without_effect_is_an_error_that_says_what_would_use_it(given, metrics, message):
    with pytest.raises(InputError, match=message):
        check_used(MetricOptions(**given), metrics)


def test_options_that_metrics_use_are_fine():
    everything = MetricOptions(
        inception_weights=Path("w"), resize="clean", clip=Path("c"), clip_formula="100max", bootstrap=0, reference="r",
        training="t",
    )  # fmt: skip
    check_used(everything, ["fid", "clip_score", "names"])
    check_used(MetricOptions(), ["corners"])


def test_what_is_left_for_request_is_said_once(caplog):
    caplog.set_level("INFO")
    images = ArrayImages(np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3)).astype(np.uint8))
    inputs = Inputs(num_samples=4, reference=Reference(images), stages=True)
    assert len(choose_metrics(MetricOptions(), inputs)) == 1
    assert caplog.text.count("left out: fd_emojicnn and mmd_emojicnn, since they compare emoji") == 1
    with pytest.raises(InputError, match="there is nothing to measure"):
        choose_metrics(MetricOptions(), Inputs(num_samples=4))


def test_only_a_data_set_of_emoji_is_one():
    assert all(map(is_emoji, ("emoji", "emoji/food:test", "emoji:train")))
    assert not any(map(is_emoji, (None, "", "emojis/food", "folder/emoji", "/data/emoji")))


def write_folder(folder, count=3, size=8, seed=0):
    rng = np.random.default_rng(seed)
    for number in range(count):
        save_png(rng.integers(0, 256, (size, size, 3)).astype(np.uint8), folder / f"{number}.png")
    return folder


def results(out):
    return json.loads((out / "results.json").read_text())


def test_a_folder_is_measured_again_into_the_same_results_and_no_other_s(tmp_path, capsys):
    out = tmp_path / "out"
    images = write_folder(tmp_path / "images")
    for _ in range(2):
        measure_images(str(images), out, CORNERS, data_dir=tmp_path)
        assert results(out)["num_samples"] == 3 and "corner_deviation_8" in results(out)
    before = (out / "results.json").read_bytes()
    with pytest.raises(InputError, match="has the results of other images; choose another --out"):
        measure_images(str(write_folder(tmp_path / "others", seed=1)), out, CORNERS, data_dir=tmp_path)
    assert (out / "results.json").read_bytes() == before
    (out / "results.json").write_bytes(b"{")  # damaged: made again
    measure_images(str(images), out, CORNERS, data_dir=tmp_path)
    assert (out / "results.json").read_bytes() == before
    assert "corner_deviation_8" in capsys.readouterr().out


@pytest.mark.parametrize("what", ["sweep", "thesis", "file"])
def test_a_folder_of_another_run_is_left_alone(tmp_path, what):
    out = tmp_path / "out"
    images = write_folder(tmp_path / "images")
    if what == "sweep":
        write_sweep(out, "default")
        (out / "results.json").write_text("[]")
        message = "is a sweep, whose results would be overwritten; choose another --out"
    elif what == "thesis":
        out.mkdir()
        (out / "thesis.txt").write_text("mine")
        message = r"holds thesis\.txt, which is something else than results"
    else:
        out.write_text("mine")
        message = "is a file; expected a folder"
    before = sorted(path.stat().st_mtime_ns for path in [out, *tmp_path.glob("out/**/*")])
    with pytest.raises(InputError, match=message):
        measure_images(str(images), out, CORNERS, data_dir=tmp_path)
    assert before == sorted(path.stat().st_mtime_ns for path in [out, *tmp_path.glob("out/**/*")])


def test_outputs_of_sample_and_of_a_sweep_are_measured_at_their_last_stage(tmp_path, capsys):
    write_samples(tmp_path / "samples")
    write_sweep(tmp_path / "sweep", "default")
    for name, count in (("samples", 3), ("sweep", 12)):
        measure_images(str(tmp_path / name), tmp_path / f"{name}_out", CORNERS, data_dir=tmp_path)
        assert results(tmp_path / f"{name}_out")["num_samples"] == count
        assert f"px: {count}; left out:" in capsys.readouterr().out


def test_the_home_folder_is_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_folder(tmp_path / "images")
    measure_images("~/images", tmp_path / "out", CORNERS, data_dir=tmp_path)
    assert results(tmp_path / "out")["num_samples"] == 3


def test_numbers_are_printed_though_they_can_t_be_written(tmp_path, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    images = write_folder(tmp_path / "images")
    monkeypatch.setattr(files.os, "replace", full)
    with pytest.raises(StorageError, match="No space left on device"):
        measure_images(str(images), tmp_path / "out", CORNERS, data_dir=tmp_path)
    assert "corner_deviation_8" in capsys.readouterr().out


@pytest.mark.parametrize("crop_to", [-4, 0, 10**6, 4.5, True])
def test_a_crop_is_of_some_pixels(tmp_path, crop_to):
    with pytest.raises(InputError, match="--crop_to is"):
        open_reference(str(tmp_path), image_size=8, shape=(8, 8, 3), crop_to=crop_to, data_dir=tmp_path)


def test_a_crop_needs_a_folder(tmp_path):
    for spec, message in ((None, "none is given"), ("x.npz", "statistics have none")):
        with pytest.raises(InputError, match=message):
            open_reference(spec, image_size=8, shape=(8, 8, 3), crop_to=4, data_dir=tmp_path)
