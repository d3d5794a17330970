"""A sweep from prompts to its table, with a stand-in for the cascade, whose images are of one grey each."""

import json
from typing import Any

import numpy as np
import pytest

from imagen_jax.errors import InputError
from imagen_jax.evaluation.measuring.cascades import measure_cascade
from imagen_jax.evaluation.measuring.options import MetricOptions
from imagen_jax.evaluation.prompts.prompt_lists import PromptList
from imagen_jax.evaluation.sweeps.grid import make_points
from imagen_jax.sampling.settings import SamplingSettings

PROMPTS = PromptList("lines", ("a", "b", "c"), ("", "", ""), ("1", "2", "3"))


class Config:
    source = "emoji/nothing:here"
    image_size = 4


class Text(list):
    def take(self, rows):
        return Text(self[row] for row in rows)


class GreyCascade:
    """Two stages; the grey is that of the guidance weight."""

    stages = dict.fromkeys((4, 8))
    configs = (Config, Config)

    def settings(self, guidance=(1.0, 1.0), guidance_rescale=(0.0, 0.0)):
        pairs = zip(guidance, guidance_rescale, strict=True)
        return [SamplingSettings(guidance_weight=weight, guidance_rescale=rescale) for weight, rescale in pairs]

    def embed(self, prompts):
        return Text(prompts)

    def sample(self, text, *, guidance=(1.0, 1.0), **_):
        grey = np.uint8(10 * guidance[0])
        return {size: np.full((len(text), size, size, 3), grey + (size == 8), np.uint8) for size in (4, 8)}


@pytest.fixture
def run(tmp_path, monkeypatch):
    cascade: Any = GreyCascade()

    def measure(given, *, options=None, out=tmp_path / "out", samples_per_prompt=1):
        own = [SamplingSettings(), SamplingSettings()]
        measure_cascade(
            cascade,
            tmp_path / "cascade",
            out,
            options or MetricOptions(),
            prompts=PROMPTS,
            source=None,
            points=make_points(given, own),
            given=list(given),
            fingerprint="ab" * 32,
            samples_per_prompt=samples_per_prompt,
            stop_at=None,
            seed=0,
            batch_size=2,
            encoder_dtype="float32",
            devices={},
            crop_to=None,
            data_dir=tmp_path / "datasets",
        )
        return out

    return measure


def test_what_there_is_is_measured_of_every_point(run, capsys, caplog):
    out = run({"guidance": ["1", "3"]}, samples_per_prompt=2)
    results = json.loads((out / "results.json").read_text())
    assert [(each["point"], each["guidance"], each["num_samples"]) for each in results] == [
        ("guidance=1", 1.0, 6),
        ("guidance=3", 3.0, 6),
    ]
    assert [each["consistency_8"] for each in results] == [pytest.approx(1 / 255)] * 2
    assert caplog.text.count("no search for copies and names") == 1
    page = (out / "points" / "guidance=3" / "index.html").read_text()
    assert "guidance_weight 3.0" in page and "ab" * 6 in page and "ab" * 7 not in page
    assert "guidance=3\n  consistency_8" in capsys.readouterr().out


def test_the_same_command_again_writes_the_same_bytes(run):
    out = run({"guidance": ["1", "3"]})
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    run({"guidance": ["1", "3"]})
    assert before == {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        ({"guidance_rescale": ["0.5"]}, {}, "--guidance_rescale has no effect without guidance"),
        ({}, {"reference": "x.npz"}, r'no file "x\.npz"'),
        ({}, {"training": "emoji/nothing:here"}, "emoji"),
        ({}, {"metrics": ["memorisation"]}, "memorisation needs the training images"),
        ({}, {"metrics": ["consistency"], "bootstrap": 100}, "--bootstrap=100 has no effect"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_sampled(run, tmp_path, given, options, message):
    with pytest.raises(InputError, match=message):
        run(given, options=MetricOptions(**options))
    assert not (tmp_path / "out").exists()


def test_a_folder_of_results_of_images_is_left_alone(run, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "results.json").write_text("{}")
    with pytest.raises(InputError, match=r"holds results\.json, which is something else than a sweep"):
        run({})
    assert (tmp_path / "out" / "results.json").read_text() == "{}"
