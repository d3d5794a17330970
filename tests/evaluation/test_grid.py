import pytest

from imagen_jax.errors import InputError
from imagen_jax.evaluation.sweeps.grid import make_points
from imagen_jax.sampling.settings import SamplingSettings

OWN = [
    SamplingSettings(guidance_weight=weight, aug_level=level) for weight, level in ((2.0, 0.0), (3.0, 0.1), (4.0, 0.2))
]


def test_without_settings_there_is_one_point():
    (point,) = make_points({}, OWN)
    assert (point.name, point.label, point.overrides) == ("default", "default", {})


def test_points_are_all_combinations_in_the_order_given():
    points = make_points({"guidance": ["1", "1.35"], "steps": ["8", "4"]}, OWN)
    assert [point.name for point in points] == [
        "guidance=1,steps=8", "guidance=1,steps=4", "guidance=1.35,steps=8", "guidance=1.35,steps=4",
    ]  # fmt: skip
    assert [point.label for point in points] == ["1, 8", "1, 4", "1.35, 8", "1.35, 4"]
    assert points[3].values == {"guidance": 1.35, "steps": 4}


def test_one_value_is_for_all_stages_that_it_is_meant_for():
    (point,) = make_points({"guidance": ["5"], "aug_level": ["0.3"], "steps": ["7"]}, OWN)
    assert point.overrides == {"guidance": [5.0, 5.0, 5.0], "aug_level": [None, 0.3, 0.3], "steps": [7, 7, 7]}


def test_an_empty_place_keeps_a_stages_own():
    (point,) = make_points({"guidance": ["5/"], "steps": ["/7/"]}, OWN)
    assert point.overrides == {"guidance": [5.0, None, None], "steps": [None, 7, None]}
    assert (point.name, point.values["guidance"]) == ("guidance=5_,steps=_7_", [5.0, 3.0, 4.0])
    assert [each.label for each in make_points({"guidance": ["5/", "3/1/1"]}, OWN)] == ["5", "3/1/1"]


def test_slashes_give_each_stage_its_own():
    (point,) = make_points({"guidance": ["3/1/1"], "guidance_interval": ["0.2:0.8/0:1/0:1"]}, OWN)
    assert point.overrides["guidance"] == [3.0, 1.0, 1.0]
    assert point.overrides["guidance_interval"] == [(0.2, 0.8), (0.0, 1.0), (0.0, 1.0)]
    assert "/" not in point.name


def test_labels_leave_out_what_all_points_share():
    points = make_points({"guidance": ["1", "3"], "sampler": ["ddim"]}, OWN)
    assert [point.label for point in points] == ["1", "3"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"guidance": ["1", "x"]}, "--guidance=x: expected a number"),
        ({"guidance": ["1/2"]}, "guidance_weight: one value for all stages, or one for each of the 3"),
        ({"guidance": ["1", "2", "1"]}, "--guidance=1,2,1: expected values that are all different"),
        ({"steps": ["1.5"]}, "--steps=1.5: expected a whole number"),
        ({"guidance": ["1", "1.0"]}, "--guidance=1,1.0: expected values that are all different"),
        ({"guidance": ["3", "3/3/3", "3/3.0/3"]}, "expected values that are all different"),
        ({"guidance": list(map(str, range(101))), "steps": list(map(str, range(1, 101)))}, "10,100 combinations"),
    ],
)
def test_bad_values_are_named(given, message):
    with pytest.raises(InputError, match=message.replace("?", r"\?")):
        make_points(given, OWN)


def test_names_fit_into_a_file_system_and_stay_apart():
    values = [":".join(["1", *(f"0.{k}{n:02d}" for n in range(99, 0, -1)), "0"]) for k in (8, 9)]
    points = make_points({"times": values}, OWN)
    assert all(len(point.name) <= 200 for point in points) and len({point.name for point in points}) == 2


def test_levels_with_commas_are_not_taken_for_points_of_one_step_each():
    with pytest.raises(InputError, match=r"--times=1,0.7: levels are separated by colons, --times=1:0.7; commas"):
        make_points({"times": ["1", "0.7"]}, OWN)
