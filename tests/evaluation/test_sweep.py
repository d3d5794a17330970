import json

import numpy as np
import pytest

from imagen_jax.errors import InputError
from imagen_jax.evaluation.base import Measure, Samples
from imagen_jax.evaluation.pages.run_folder import Run, read_run
from imagen_jax.evaluation.prompts.prompt_lists import PromptList
from imagen_jax.evaluation.sweeps.grid import Point
from imagen_jax.evaluation.sweeps.sweep import Sweep, describe_status

POINTS = [Point(f"guidance={w}", str(w), {"guidance": w}, {"guidance": [w, 1]}) for w in (1, 3)]
COUNT = 7
PROMPTS = PromptList("test", tuple(f"prompt {k}" for k in range(COUNT)), ("",) * COUNT, tuple(map(str, range(COUNT))))
IDENTITY = {"cascade_sha256": "ab", "seed": 0}


def all_images(images):
    return np.stack(list(images.read(range(len(images)))))


class Sampler:
    """Images that say which they are, and a record of what was asked for."""

    def __init__(self, *, fail_at: int | None = None):
        self.asked, self._fail_at = [], fail_at

    def __call__(self, point, first, count):
        if first == self._fail_at:
            raise KeyboardInterrupt
        self.asked.append((point.name, first, count))
        weight = point.values["guidance"]
        grey = np.arange(first, first + count, dtype=np.uint8) * 10 + weight
        return {size: np.broadcast_to(grey[:, None, None, None], (count, size, size, 3)) for size in (2, 4)}


class Grey:
    """The mean grey, and how often it was asked for."""

    alignment = True

    def __init__(self, *, version=1):
        self.made_of, self.calls = {"version": version}, 0

    def __call__(self, samples):
        self.calls += 1
        return {"grey": Measure(float(all_images(samples.final).mean()), kind="alignment", caveats=("grey",))}


def make(out, points=POINTS):
    return Sweep(out, points, sizes=[2, 4], count=COUNT, batch_size=3)


def sample(sweep, sampler):
    assert list(sweep.sample(sampler, lambda point: Run(point.name, PROMPTS, 1, 4, {}))) == list(sweep.points)


def score(sweep, metric, of_real=None):
    return [sweep.score(point, [metric], Samples({}), of_real or {})[0]["grey"] for point in sweep.points]


def test_every_image_of_every_point_is_sampled_once(tmp_path):
    sweep, sampler = make(tmp_path), Sampler()
    sweep.begin(IDENTITY)
    sample(sweep, sampler)
    assert sampler.asked == [
        (point.name, first, count) for point in POINTS for first, count in ((0, 3), (3, 3), (6, 1))
    ]
    for point, weight in zip(POINTS, (1, 3), strict=True):
        for size, images in sweep.images(point).items():
            assert images.size == (size, size)
            np.testing.assert_array_equal(all_images(images)[:, 0, 0, 0], np.arange(COUNT) * 10 + weight)
        assert read_run(sweep.folder(point)).prompts == PROMPTS


def test_an_interrupted_sweep_samples_only_what_is_missing(tmp_path):
    make(tmp_path).begin(IDENTITY)
    with pytest.raises(KeyboardInterrupt):
        sample(make(tmp_path), Sampler(fail_at=6))
    (tmp_path / "points" / POINTS[0].name / "4" / "000001.png").unlink()
    (tmp_path / "points" / POINTS[0].name / "4" / "000005.png.partial-1").write_bytes(b"half")
    again = Sampler()
    make(tmp_path).begin(IDENTITY)
    sample(make(tmp_path), again)
    first, second = (point.name for point in POINTS)
    assert again.asked == [(first, 0, 3), (first, 6, 1), (second, 0, 3), (second, 3, 3), (second, 6, 1)]


def test_points_can_be_added_and_are_sampled_alone(tmp_path):
    make(tmp_path, POINTS[:1]).begin(IDENTITY)
    sample(make(tmp_path, POINTS[:1]), Sampler())
    more = Sampler()
    make(tmp_path).begin(IDENTITY)
    sample(make(tmp_path), more)
    assert {name for name, *_ in more.asked} == {POINTS[1].name}


def test_another_cascades_samples_are_refused_by_name(tmp_path):
    make(tmp_path).begin(IDENTITY)
    with pytest.raises(InputError, match=r"cascade_sha256 is 'cd', and was 'ab'.*another --out"):
        make(tmp_path).begin({**IDENTITY, "cascade_sha256": "cd"})


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="something else"):
        make(tmp_path).begin(IDENTITY)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_results_are_kept_until_metrics_or_images_change(tmp_path):
    sweep, metric = make(tmp_path), Grey()
    sample(sweep, Sampler())
    first = score(sweep, metric)
    assert [found.value for found in first] == [31.0, 33.0]
    assert metric.calls == 2
    assert score(sweep, metric) == first
    assert metric.calls == 2
    score(sweep, Grey(version=2))
    score(sweep, metric)
    assert metric.calls == 4
    folders = [sweep.folder(point) / "4" / "000000.png" for point in POINTS]
    folders[0].write_bytes(folders[1].read_bytes())
    assert score(sweep, metric)[0] != first[0]
    assert metric.calls == 5


def test_what_real_images_measure_is_kept_beside(tmp_path):
    sweep = make(tmp_path)
    sample(sweep, Sampler())
    assert [found.real for found in score(sweep, Grey(), {"grey": Measure(99.0)})] == [99.0, 99.0]
    assert [found.real for found in score(sweep, Grey())] == [None, None]


def test_a_point_that_lost_an_image_is_not_measured(tmp_path):
    sweep = make(tmp_path)
    sample(sweep, Sampler())
    (sweep.folder(POINTS[1]) / "2" / "000004.png").unlink()
    with pytest.raises(InputError, match=r"guidance=3/2 has 6 images in place of 7; delete"):
        score(sweep, Grey())


def test_the_status_counts_images_and_results(tmp_path):
    with pytest.raises(InputError, match=r"sweep\.json.* is missing"):
        describe_status(tmp_path)
    sweep = make(tmp_path)
    sweep.begin(IDENTITY)
    assert "0 of 14 images (0%)" in describe_status(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        sample(sweep, Sampler(fail_at=3))
    assert describe_status(tmp_path).splitlines() == [
        "guidance=1: 3 of 7 images, not measured",
        "guidance=3: 0 of 7 images, not measured",
        "in all 3 of 14 images (21%)",
    ]
    sample(sweep, Sampler())
    score(sweep, Grey())
    assert "guidance=3: 7 of 7 images, measured" in describe_status(tmp_path)
    assert json.loads((tmp_path / "sweep.json").read_text())["identity"] == IDENTITY
