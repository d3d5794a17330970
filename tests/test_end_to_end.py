"""A tiny cascade, trained, exported, sampled from and evaluated by the commands of the README."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imagen_jax.errors import InputError
from imagen_jax.evaluation.sweeps.sweep import describe_status
from imagen_jax.sampling import load_cascade
from imagen_jax.sampling.folder import cascade_fingerprint
from imagen_jax.training.metrics import read_metrics
from tests.mains import REPO, prepare, run, run_folder
from tests.sampling.tiny_cascade import renew_digests

PROMPTS = ["red heart, twemoji style", "a purple heart", "blue heart, openmoji style"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """All that the commands wrote."""
    folder = tmp_path_factory.mktemp("cascade")
    prepare(folder)
    measured = {"base": "fd_emojicnn,names"}
    for stage in ("base", "sr1", "sr2"):
        more = [f"--config.evaluation.metrics={measured[stage]}"] if stage in measured else []
        few = ("--config.evaluation.num_samples=8", "--config.evaluation.batch_size=8", "--config.evaluation.every=4")
        workdir = f"--workdir={folder}/{stage}"
        run("train", f"--config=tests/tiny_config.py:{stage}", workdir, *run_folder(folder), *few, *more)
    run("export", f"--workdirs={folder}/base,{folder}/sr1,{folder}/sr2", f"--out={folder}/cascade")
    return folder


@pytest.fixture(scope="module")
def cascade(folder):
    return load_cascade(folder / "cascade")


def test_training_leaves_what_a_stranger_needs(folder):
    config = json.loads((folder / "base" / "config.json").read_text())
    assert config["data"]["image_size"] == 8
    assert (folder / "base" / "revision.txt").read_text().strip()
    lines = [line for line in read_metrics(folder / "base") if "train/loss" in line]
    assert lines[-1]["step"] == 8
    assert {f"train/{name}" for name in ("loss", "grad_norm", "param_norm", "update_norm", "learning_rate")} <= set(
        lines[-1]
    )
    with Image.open(folder / "sr2" / "samples" / "00000008.png") as grid:
        assert grid.width > 2 * 2 * 32


def test_from_python_in_three_lines(cascade):
    images = cascade(PROMPTS, seed=0)
    assert images.shape == (3, 32, 32, 3)
    assert images.dtype == np.uint8
    assert images.std() > 0


def test_sample_writes_pictures_grid_and_record(folder, cascade):
    prompts = folder / "prompts.txt"
    prompts.write_text("\n".join(PROMPTS) + "\n\n", encoding="utf-8")
    out = folder / "samples"
    run(
        "sample", f"--cascade={folder}/cascade", f"--prompts_file={prompts}", f"--out={out}", "--seed=5", "--steps=2",
        "--guidance=3", "--guidance_interval=0.3:0.9", "--negative_prompt=a purple heart", "--sampler=unipc/ddim/ddim",
        "--devices=2", "--image_shards=1/1/2", devices=3,
    )  # fmt: skip
    names = {path.name for path in out.iterdir()}
    pictures = {f"{k:03d}_{size}.png" for k in range(3) for size in (8, 16, 32)}
    assert names == pictures | {"grid.png", "samples.json"}
    record = json.loads((out / "samples.json").read_text())
    assert [image["prompt"] for image in record["images"]] == PROMPTS
    assert record["images"][1]["files"] == ["001_8.png", "001_16.png", "001_32.png"]
    assert record["seed"] == 5
    assert set(record["settings"]) == {"8", "16", "32"}
    assert [record["settings"][size]["sampler"] for size in ("8", "16", "32")] == ["unipc", "ddim", "ddim"]
    assert record["settings"]["8"]["guidance_interval"] == [0.3, 0.9]
    assert record["negative_prompt"] == "a purple heart"
    again = cascade.sample(
        PROMPTS, seed=5, steps=2, guidance=3.0, guidance_interval=(0.3, 0.9), negative_prompts="a purple heart",
        sampler=["unipc", "ddim", "ddim"],
    )  # fmt: skip
    with Image.open(out / "001_32.png") as picture:
        image = np.asarray(picture).astype(int)
    assert np.abs(image - again[32][1]).max() <= 1


def evaluation(folder, out):
    data = ("--data=emoji/32/hearts:train", f"--data_dir={folder}/datasets", "--num_samples=10", "--batch_size=4")
    return (f"--cascade={folder}/cascade", *data, "--guidance=1/,3/1/2", f"--out={out}")


@pytest.fixture(scope="module")
def evaluated(folder):
    out = folder / "evaluation"
    run("evaluate", *evaluation(folder, out), devices=2)
    return out


def test_training_logs_what_its_samples_measure(folder):
    lines = [line for line in read_metrics(folder / "base") if any(key.startswith("eval/") for key in line)]
    assert [line["step"] for line in lines] == [4, 8]
    assert {"eval/fd_emojicnn_v1", "eval/fd_emojicnn_v1_null", "eval/name_accuracy"} <= set(lines[1])
    assert lines[0]["eval/name_margin"] != lines[1]["eval/name_margin"]


def test_evaluate_measures_every_point(evaluated):
    results = json.loads((evaluated / "results.json").read_text())
    assert [result["point"] for result in results] == ["guidance=1_", "guidance=3_1_2"]
    assert [result["guidance"] for result in results] == [[1.0, 2.0, 2.0], [3.0, 1.0, 2.0]]
    for result in results:
        assert 0 <= result["name_accuracy"] <= result["name_accuracy_real"] == 1
        assert {"fd_emojicnn_v1", "fd_emojicnn_v1_null", "mmd_emojicnn_v1", "memorised_share"} <= set(result)
        assert {"consistency_16", "colour_drift_32", "cascade_sha256", "samples_sha256"} <= set(result)
    assert results[0]["samples_sha256"] != results[1]["samples_sha256"]
    rows = list(csv.DictReader((evaluated / "results.csv").read_text().splitlines()))
    assert [(row["8.guidance_weight"], row["32.guidance_weight"]) for row in rows] == [("1.0", "2.0"), ("3.0", "2.0")]
    for name in ("curve.png", "curve.svg", "points/guidance=1_/grid.png", "points/guidance=1_/run.json"):
        assert (evaluated / name).is_file()
    assert len(list((evaluated / "points/guidance=3_1_2/16").iterdir())) == 10


def test_sample_draws_the_images_of_a_sweeps_point_bit_for_bit(folder, evaluated):
    point = evaluated / "points/guidance=3_1_2"
    prompts = [entry["prompt"] for entry in json.loads((point / "run.json").read_text())["prompts"]]
    (folder / "swept.txt").write_text("\n".join(prompts) + "\n", encoding="utf-8")
    out = folder / "best_point"
    run(
        "sample", f"--cascade={folder}/cascade", f"--prompts_file={folder}/swept.txt", "--guidance=3/1/2", "--seed=0",
        "--batch_size=4", f"--out={out}", devices=2,
    )  # fmt: skip
    for size in (8, 16, 32):
        for k in range(10):
            with Image.open(out / f"{k:03d}_{size}.png") as ours, Image.open(point / f"{size}/{k:06d}.png") as swept:
                np.testing.assert_array_equal(np.asarray(ours), np.asarray(swept))


def test_an_evaluation_that_lost_files_ends_with_the_same_table(folder, evaluated):
    table = (evaluated / "results.csv").read_bytes()
    (evaluated / "results.csv").unlink()
    (evaluated / "points/guidance=3_1_2/result.json").unlink()
    (evaluated / "points/guidance=3_1_2/32/000005.png").unlink()
    assert "guidance=3_1_2: 9 of 10 images, not measured" in describe_status(evaluated)
    run("evaluate", *evaluation(folder, evaluated), devices=2)
    assert (evaluated / "results.csv").read_bytes() == table


def test_two_hosts_end_with_the_table_of_one(folder, evaluated):
    out = folder / "evaluation_by_two"
    command = [sys.executable, "-m", "launch.local", "--processes=2", "--devices=2", "--", "evaluate"]
    done = subprocess.run(
        [*command, *evaluation(folder, out)], cwd=REPO, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (out / "results.csv").read_bytes() == (evaluated / "results.csv").read_bytes()


def test_a_changed_weight_is_another_cascade(folder):
    changed = folder / "changed"
    shutil.copytree(folder / "cascade", changed)
    assert cascade_fingerprint(changed) == cascade_fingerprint(folder / "cascade")
    weights = bytearray((changed / "stage_8" / "ema.safetensors").read_bytes())
    weights[-1] ^= 1
    (changed / "stage_8" / "ema.safetensors").write_bytes(bytes(weights))
    with pytest.raises(InputError, match=r"stage_8.*is damaged, or was changed"):
        cascade_fingerprint(changed)
    renew_digests(changed)
    assert cascade_fingerprint(changed) != cascade_fingerprint(folder / "cascade")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "what to draw?"),
        (("--prompt= ",), "a prompt is empty"),
        (("--prompt=a", "--prompts_file=x"), "one of them"),
        (("--prompts_file=absent.txt",), 'no file "absent.txt"'),
        (("--prompts_file={folder}/latin1.txt",), "is not UTF-8"),
        (("--prompts_file={folder}/empty.txt",), "is empty"),
        (("--prompt=a", "--steps=many"), "expected a whole number"),
        (
            ("--prompt=a", "--guidance_interval=low:high"),
            "--guidance_interval=low:high: expected FROM:TO, two times",
        ),
        (("--prompt=a", "--guidance=2", "--guidance_interval=0.8:0.2"), "0 <= FROM < TO <= 1"),
        (("--prompt=a", "--devices=2"), "devices = 2; expected 1 to 1: this process has 1"),
        (("--prompt=a", "--image_shards=two"), "--image_shards=two: expected a whole number"),
    ],
)
def test_sample_says_what_is_wrong_in_one_line(folder, arguments, message):
    (folder / "latin1.txt").write_bytes("café\n".encode("latin-1"))
    (folder / "empty.txt").write_text(" \n\n")
    given = [argument.format(folder=folder) for argument in arguments]
    output = run("sample", f"--cascade={folder}/cascade", f"--out={folder}/bad", *given, expect=2)
    assert message in output
    assert "Traceback" not in output
    assert len(output.strip().splitlines()) == 1


def test_a_damaged_cascade_is_one_clear_error(folder, tmp_path):
    with pytest.raises(InputError, match=r"imagen_jax\.export"):
        load_cascade(tmp_path)
    broken = tmp_path / "cascade"
    shutil.copytree(folder / "cascade", broken)
    weights = broken / "stage_16" / "ema.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"stage_16.*damaged"):
        load_cascade(broken)
    weights.unlink()
    with pytest.raises(InputError, match=r"stage_16.*missing"):
        load_cascade(broken)


def test_stages_that_do_not_chain_are_refused(folder, tmp_path):
    output = run("export", f"--workdirs={folder}/base,{folder}/sr2", f"--out={tmp_path}/cascade", expect=2)
    assert "16 px" in output
    assert "8 px" in output
    assert not (tmp_path / "cascade").exists()
    index = folder / "cascade" / "cascade.json"
    shutil.copytree(folder / "cascade", tmp_path / "reordered")
    value = json.loads(index.read_text())
    value["stages"].reverse()
    (tmp_path / "reordered" / "cascade.json").write_text(json.dumps(value))
    with pytest.raises(InputError, match="its place in the cascade gives"):
        load_cascade(tmp_path / "reordered")


def test_export_refuses_what_is_no_run_and_does_not_overwrite(folder, tmp_path):
    assert "expected the workdir" in run("export", f"--workdirs={tmp_path}", f"--out={tmp_path}/c", expect=2)
    assert "exists" in run("export", f"--workdirs={folder}/base", f"--out={folder}/cascade", expect=2)


def test_another_network_than_the_workdir_holds_is_refused_and_nothing_is_lost(folder):
    before = (folder / "base" / "config.json").read_text()
    arguments = ("--config=tests/tiny_config.py:base", f"--workdir={folder}/base", *run_folder(folder))
    output = run("train", *arguments, "--config.model.channels=16", expect=2)
    assert "config.model.channels: 8 there, 16 here" in output
    assert "Traceback" not in output
    assert (folder / "base" / "config.json").read_text() == before


def test_a_run_that_is_done_does_nothing_more(folder):
    before = read_metrics(folder / "base")
    run("train", "--config=tests/tiny_config.py:base", f"--workdir={folder}/base", *run_folder(folder))
    assert read_metrics(folder / "base") == before
