import json

import pytest

from imagen_jax.errors import InputError
from imagen_jax.evaluation.pages.run_folder import check_same_prompts, image_paths, read_run
from tests.evaluation.runs import prompt_list, write_images


def test_a_run_comes_back_as_it_was(tmp_path):
    assert write_images(tmp_path) == read_run(tmp_path)


def test_samples_of_a_prompt_are_beside_each_other(tmp_path):
    run = write_images(tmp_path, per_prompt=3)
    paths = image_paths(tmp_path, run)
    assert [len(samples) for samples in paths] == [3] * 6
    assert paths[2] == [tmp_path / "8" / f"{index:06}.png" for index in (6, 7, 8)]


def test_an_unfinished_run_says_how_much_is_missing(tmp_path):
    run = write_images(tmp_path)
    for index in (5, 11):
        (tmp_path / "8" / f"{index:06}.png").unlink()
    with pytest.raises(InputError, match=r"2 of 12 images are missing, for example .*000005\.png"):
        image_paths(tmp_path, run)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sha256": "ab"}, "edited"),
        ({"prompts": [{"id": "1", "prompt": "x", "category": ""}]}, "edited"),
        ({"prompts": []}, "no run's record"),
        ({"prompts": [{"id": "1"}]}, "no run's record"),
        ({"size": "large"}, "no run's record"),
        ({"settings": None}, "no run's record"),
    ],
)
def test_a_damaged_record_is_one_clear_error(tmp_path, change, message):
    write_images(tmp_path)
    file = tmp_path / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | change), "utf-8")
    with pytest.raises(InputError, match=message):
        read_run(tmp_path)


def test_a_folder_without_a_record(tmp_path):
    with pytest.raises(InputError, match=r"run\.json\" is missing"):
        read_run(tmp_path)


def test_runs_that_can_t_be_compared_say_what_differs(tmp_path):
    a = write_images(tmp_path / "a", "first")
    assert check_same_prompts(a, write_images(tmp_path / "same", "second", seed=1)) is None
    for b, message in (
        (write_images(tmp_path / "b", "second", per_prompt=3), '"first" has 2 samples a prompt and "second" 3'),
        (
            write_images(tmp_path / "c", "second", prompts=prompt_list(("x", "y"), ("", ""))),
            r'"first" has 6 \(drawbench\), "second" 2',
        ),
        (
            write_images(tmp_path / "d", "second", prompts=prompt_list((*a.prompts.prompts[:4], "x", "y"))),
            r'number 5: "two\nlines" \(id 5\) and "x"',
        ),
    ):
        with pytest.raises(InputError, match=message):
            check_same_prompts(a, b)
