import errno
import json
import os

import numpy as np
import pytest

from imagen_jax import files, hosts
from imagen_jax.errors import InputError, StorageError
from imagen_jax.evaluation.base import Measure, Samples
from imagen_jax.evaluation.pages.run_folder import Run, read_run
from imagen_jax.evaluation.prompts.prompt_lists import PromptList
from imagen_jax.evaluation.sweeps.grid import Point
from imagen_jax.evaluation.sweeps.sweep import Sweep, describe_status, progress_line

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


DAMAGES = [
    b"",
    b"{",
    b"[]",
    b"[" * 5000,
    b'{"made_of": MADE, "measures": {}}',
    b'{"made_of": MADE, "measures": [["grey"]]}',
    b'{"made_of": MADE, "measures": [["grey", {"value": 1}]]}',
    b'{"made_of": MADE, "measures": [["grey", FIELDS]]}'.replace(b"FIELDS", b'{"value": "x", "kind": "", "low": null}'),
    b'{"made_of": MADE}',
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_result_is_measured_again_with_one_line(tmp_path, caplog, damage):
    sweep, metric = make(tmp_path), Grey()
    sample(sweep, Sampler())
    first = score(sweep, metric)
    path = sweep.folder(POINTS[0]) / "result.json"
    valid = path.read_bytes()
    made_of = json.dumps(json.loads(valid)["made_of"]).encode()
    path.write_bytes(damage.replace(b"MADE", made_of))
    caplog.clear()
    assert score(sweep, metric) == first
    assert metric.calls == 3
    assert path.read_bytes() == valid
    assert len(caplog.records) == 1 and "can't be used, and is measured again" in caplog.text


@pytest.mark.parametrize("value", [None, 3, [], {}, {"identity": 3, "points": ["a"], "sizes": [8], "count": 1}])
def test_a_damaged_record_of_a_sweep_is_one_clear_error(tmp_path, value):
    (tmp_path / "sweep.json").write_text(json.dumps(value))
    for use in (lambda: describe_status(tmp_path), lambda: make(tmp_path).begin(IDENTITY)):
        with pytest.raises(InputError, match=r"sweep\.json.*(damaged|no JSON object)"):
            use()


def test_results_of_images_are_no_sweep_s_folder(tmp_path):
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(InputError, match=r"holds results\.json, which is something else than a sweep"):
        make(tmp_path).begin(IDENTITY)


def test_a_disk_that_fills_up_ends_a_sweep_which_goes_on_to_the_same_bytes(tmp_path, monkeypatch):
    def everything(out):
        return {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()}

    def run(out):
        sweep = make(out)
        sweep.begin(IDENTITY)
        sample(sweep, Sampler())
        score(sweep, Grey())

    run(tmp_path / "whole")
    allowed, said = 0, []
    real = files.os.replace
    while True:
        left = allowed

        def replace(source, target):
            nonlocal left
            left -= 1
            if left < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(source))
            real(source, target)

        with monkeypatch.context() as patch:
            patch.setattr(files.os, "replace", replace)
            try:
                run(tmp_path / "often")
                break
            except StorageError as error:
                said.append(str(error))
        allowed += 1
    assert len(said) > 5
    assert all(text.startswith("can't write \"") and "\n" not in text for text in said)
    assert everything(tmp_path / "often") == everything(tmp_path / "whole")


@pytest.mark.parametrize("name", ["default", "guidance=1.35", "sampler=dpmpp_2m," * 12, "\N{SNOWMAN}" * 100])
def test_progress_fits_into_a_line_of_a_terminal(name):
    line = progress_line("point 11 of 128", name, "30000 of 30000 images; 1234.5 minutes left")
    assert len(line) < 80
    assert line.startswith("point 11 of 128, ") and line.endswith(": 30000 of 30000 images; 1234.5 minutes left")
    assert name in line or (name[:5] in line and "..." in line and name[-3:] in line)


def test_a_point_that_has_images_of_other_settings_is_refused(tmp_path):
    def run(weight):
        return lambda point: Run(point.name, PROMPTS, 1, 4, {"settings": {"4": {"guidance_weight": weight}}})

    sweep = make(tmp_path, POINTS[:1])
    for _ in range(2):
        assert list(sweep.sample(Sampler(), run(1.0))) == POINTS[:1]
    with pytest.raises(InputError, match='guidance=1" has images of other settings at 4 px; choose another'):
        list(sweep.sample(Sampler(), run(2.0)))


def test_hosts_meet_as_often_whatever_each_sees_of_the_shared_folder(tmp_path, monkeypatch):
    """A host that sees the first one's run.json must not wait once more than it does."""
    met = []
    monkeypatch.setattr(hosts, "gather", lambda text: met.append(text) or [text])
    sweep = make(tmp_path, POINTS[:1])
    counts = []
    for _ in range(2):  # without the file, and with it
        met.clear()
        list(sweep.sample(Sampler(), lambda point: Run(point.name, PROMPTS, 1, 4, {"settings": {}})))
        counts.append(len(met))
    assert counts[0] == counts[1]
