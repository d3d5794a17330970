import csv
import io

import pytest
from PIL import Image

from imagen_jax.evaluation.base import Measure
from imagen_jax.evaluation.sweeps import curve, report

MEASURES = [
    {
        "fd_x": Measure(distance, "distance", low=distance - 1, high=distance + 1, null=0.5, caveats=("few images",)),
        "flat": Measure(1.0, "alignment", low=0.9, high=1.0, real=1.0),
        "score": Measure(alignment, "alignment", low=alignment - 0.01, high=alignment + 0.01, real=0.9),
        "other": Measure(7.0),
    }
    for distance, alignment in ((3.0, 0.1), (2.0, 0.3), (4.0, 0.4), (5.0, 0.35))
]


def test_entries_are_flat_by_name():
    found = report.entry(MEASURES[0], {"num_samples": 8})
    assert found["fd_x"] == 3.0 and found["fd_x_low"] == 2.0 and found["fd_x_null"] == 0.5
    assert found["score_real"] == 0.9 and found["num_samples"] == 8
    assert found["caveats"] == ["few images"]
    assert "other_low" not in found


def test_lines_say_what_is_known_of_a_number():
    lines = report.describe(MEASURES[0]).splitlines()
    assert lines[0] == "  fd_x 3 (95%: 2 to 4, null 0.5)"
    assert lines[3] == "  other 7"
    assert lines[-1] == "  note: few images"


def test_a_csv_has_a_column_for_every_setting_and_comes_back():
    entries = [{"point": "a", "fd": 0.1 + 0.2, "note": 'with "quotes", and commas'}, {"point": "b", "kid": 2.0}]
    settings = [{16: {"times": (1.0, 0.5)}, 64: {"steps": 3}}, {16: {"times": ()}, 64: {"steps": 4}}]
    rows = list(csv.DictReader(io.StringIO(report.to_csv(entries, settings))))
    assert float(rows[0]["fd"]) == 0.1 + 0.2
    assert rows[0]["note"] == entries[0]["note"]
    assert [row["16.times"] for row in rows] == ["1.0 0.5", ""]
    assert [row["64.steps"] for row in rows] == ["3", "4"]
    assert rows[0]["kid"] == "" and rows[1]["fd"] == ""


def test_the_front_is_what_no_other_point_beats():
    points = [(0.1, 3.0), (0.3, 2.0), (0.4, 4.0), (0.35, 5.0), (0.3, 2.0), (0.3, 2.5)]
    assert curve.pareto(points) == [1, 4, 2]
    assert curve.pareto([(0.0, 1.0)]) == [0]
    assert curve.pareto([(0.0, 1.0), (1.0, 0.0)]) == [1]


def test_the_alignment_that_tells_points_apart_is_drawn():
    assert curve.axes_of(MEASURES) == ("score", "fd_x")
    assert curve.axes_of([{"fd_x": MEASURES[0]["fd_x"]}]) == ("", "fd_x")
    assert curve.axes_of([{"score": MEASURES[0]["score"]}]) == ("score", "")
    assert curve.axes_of([{"other": MEASURES[0]["other"]}]) == ("", "")


@pytest.mark.parametrize(
    ("name", "shown"),
    [("fd_x", ("fd_x (less is better)", "null")), ("score", ("score (more is better)", "real images, 0.9"))],
)
@pytest.mark.parametrize("labels", [["1", "2", "8", "4"], ["ddpm, 4", "ddpm, 8", "ddim, 4", "ddim, 8"]], ids=len)
def test_a_distance_or_an_alignment_alone_is_drawn_over_what_is_varied(tmp_path, name, shown, labels):
    table = report.Table(tmp_path, title="test", varied="sampler, steps")
    for label, measures in zip(labels, MEASURES, strict=True):
        one = {name: measures[name], "other": measures["other"]}
        table.add(report.entry(one, {"point": label}), one, settings={}, label=label)
    text = (tmp_path / "curve.svg").read_text()
    for words in (*shown, "sampler, steps", *(() if labels[0] == "1" else labels)):
        assert words in text
    assert "Pareto" not in text


def test_numbers_are_on_a_scale_and_other_labels_beside_each_other():
    assert curve._numbers(["1", "2.5", "10"]) == [1.0, 2.5, 10.0]
    for labels in (["1", "a"], ["1", "1"], ["1", "nan"], ["0.2:0.8"]):
        assert curve._numbers(labels) is None


def test_without_a_distance_or_an_alignment_there_is_a_table_and_no_curve(tmp_path):
    one = {"other": MEASURES[0]["other"]}
    report.Table(tmp_path, title="t", varied="").add(report.entry(one, {}), one, settings={}, label="default")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results.csv", "results.json"]


def test_a_long_note_is_wrapped_to_a_terminal():
    measure = Measure(1.0, caveats=("few images " * 20,))
    lines = report.describe({"fd_x": measure}).splitlines()
    assert len(lines) > 3 and max(map(len, lines)) < 80


def test_a_sweep_is_written_with_the_same_bytes_each_time(tmp_path):
    for folder in (tmp_path / "a", tmp_path / "b"):
        table = report.Table(folder, title="test", varied="guidance")
        for number, measures in enumerate(MEASURES):
            entry = report.entry(measures, {"point": str(number)})
            table.add(entry, measures, settings={16: {"guidance_weight": float(number)}}, label=str(number))
    names = ["curve.png", "curve.svg", "results.csv", "results.json"]
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == names
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    text = (tmp_path / "a" / "curve.svg").read_text()
    for shown in ("score (more is better)", "fd_x (less is better)", "Pareto front", "null", "real images, 0.9"):
        assert shown in text
    with Image.open(tmp_path / "a" / "curve.png") as image:
        assert min(image.size) > 500


@pytest.mark.parametrize("points", [MEASURES[:1], MEASURES[:2]], ids=len)
def test_few_points_are_drawn_too(points):
    labels = [str(number) for number in range(len(points))]
    pictures = curve.draw(points, labels, alignment="score", distance="fd_x", title="t", varied="guidance")
    assert set(pictures) == {"png", "svg"}
