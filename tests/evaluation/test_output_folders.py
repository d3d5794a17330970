"""What `sample` and `evaluate` wrote is found again, and what is taken of it is said."""

import json

import numpy as np
import pytest

from imagen_jax.errors import InputError
from imagen_jax.evaluation.output_folders import find_last_stage, find_point, open_run, with_ids_of
from imagen_jax.sampling.images import save_png
from tests.evaluation.runs import prompt_list, write_images

IMAGE = np.zeros((4, 4, 3), np.uint8)


def write_samples(folder, prompts=("a", "b", "c"), sizes=(4, 8), *, record=True):
    """As imagen_jax.sample writes it."""
    entries = []
    for index, prompt in enumerate(prompts):
        files = [f"{index:03d}_{size}.png" for size in sizes]
        for file in files:
            save_png(IMAGE, folder / file)
        entries.append({"index": index, "prompt": prompt, "files": files})
    save_png(IMAGE, folder / "grid.png")
    if record:
        (folder / "samples.json").write_text(json.dumps({"seed": 0, "images": entries}))
    return folder


def write_sweep(folder, *points, sizes=(4, 8), title="a run"):
    """As a sweep over two stages leaves it, whose last images are of 8 px."""
    for seed, point in enumerate(points):
        write_images(folder / "points" / point, title, seed=seed)
        for size in sizes[:-1]:
            save_png(IMAGE, folder / "points" / point / str(size) / "000000.png")
        save_png(IMAGE, folder / "points" / point / "grid.png")
    (folder / "sweep.json").write_text("{}")
    return folder


@pytest.mark.parametrize("record", [True, False])
def test_of_samples_the_last_stage_is_taken_and_the_rest_is_said(tmp_path, record):
    found = find_last_stage(write_samples(tmp_path, record=record))
    assert [path.name for path in found.files or ()] == [f"00{k}_8.png" for k in range(3)]
    assert found.said == "images of the last stage, 8 px: 3; left out: grid.png and 3 of earlier stages"


def test_a_folder_of_images_is_itself(tmp_path):
    for name in ("cat.png", "000_8.png"):
        save_png(IMAGE, tmp_path / name)
        assert find_last_stage(tmp_path) == (tmp_path, None, "") or find_last_stage(tmp_path).files is None
        assert find_last_stage(tmp_path).said == ""


def test_names_like_those_of_samples_are_no_sign_beside_others(tmp_path):
    write_samples(tmp_path, record=False)
    save_png(IMAGE, tmp_path / "cat.png")
    assert find_last_stage(tmp_path).files is None


def test_of_a_sweep_and_of_its_point_the_last_stage_is_taken(tmp_path):
    write_sweep(tmp_path, "guidance=1")
    for folder in (tmp_path, tmp_path / "points" / "guidance=1"):
        found = find_last_stage(folder)
        assert found.folder == tmp_path / "points" / "guidance=1" / "8" and found.files is None
        assert found.said == "images of the last stage, 8 px: 12; left out: those of 4 px"


def test_a_sweep_of_several_points_lists_them(tmp_path):
    write_sweep(tmp_path, "guidance=1", "guidance=3")
    for use in (find_last_stage, open_run):
        with pytest.raises(InputError, match=r"a sweep of 2 points.*points/guidance=1\": guidance=1, guidance=3"):
            use(tmp_path)
    (tmp_path / "empty" / "points").mkdir(parents=True)
    with pytest.raises(InputError, match="a sweep without samples"):
        find_point(tmp_path / "empty")


def test_a_sweep_its_point_and_samples_are_runs_to_compare(tmp_path):
    write_sweep(tmp_path / "sweep", "default", title="first")
    for folder in (tmp_path / "sweep", tmp_path / "sweep" / "points" / "default"):
        run, images = open_run(folder)
        assert (run.title, run.size, len(images), len(images[0])) == ("first", 8, 6, 2)
    run, images = open_run(write_samples(tmp_path / "mine"))
    assert (run.title, run.size, run.prompts.prompts, run.samples_per_prompt) == ("mine", 8, ("a", "b", "c"), 1)
    assert [path.name for (path,) in images] == ["000_8.png", "001_8.png", "002_8.png"]


def test_a_prompt_that_was_sampled_several_times_has_several_samples(tmp_path):
    run, images = open_run(write_samples(tmp_path / "even", ("a", "a", "b", "b")))
    assert (run.prompts.prompts, run.samples_per_prompt) == (("a", "b"), 2)
    assert [[path.name[:3] for path in paths] for paths in images] == [["000", "001"], ["002", "003"]]
    run, images = open_run(write_samples(tmp_path / "odd", ("a", "a", "b")))
    assert (run.prompts.prompts, run.samples_per_prompt) == (("a", "a", "b"), 1)


def test_samples_take_the_ids_of_a_run_with_the_same_prompts(tmp_path):
    prompts = prompt_list(("x", "y"), ("Colors", "Text"))
    other = write_images(tmp_path / "run", prompts=prompts, per_prompt=1)
    run, _ = open_run(write_samples(tmp_path / "samples", ("x", "y")))
    assert with_ids_of(run, other).prompts == prompts and with_ids_of(other, run) == other
    different, _ = open_run(write_samples(tmp_path / "others", ("x", "z")))
    assert with_ids_of(different, other) == different


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([], "images is .*expected a list"),
        ([{"prompt": 3, "files": ["000_8.png"]}], "prompt is 3"),
        ([{"prompt": "a", "files": []}], "files is"),
        ([{"prompt": "a", "files": ["../../000_8.png"]}], "files names no picture"),
        ([{"prompt": "a", "files": ["000_8.png"]}], "1 images are missing"),
    ],
)
def test_a_damaged_record_of_samples_is_one_clear_error(tmp_path, entries, message):
    (tmp_path / "samples.json").write_text(json.dumps({"images": entries}))
    with pytest.raises(InputError, match=message):
        open_run(tmp_path)
    with pytest.raises(InputError, match="no folder"):
        open_run(tmp_path / "nowhere")
