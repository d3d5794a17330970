import errno
import json
import os
import re
import shutil

import numpy as np
import pytest

from imagen_jax.errors import InputError, StorageError
from imagen_jax.evaluation.pages.comparison import QUESTIONS, read_key, write_comparison
from imagen_jax.evaluation.pages.run_folder import image_paths
from tests.evaluation.runs import CATEGORIES, NASTY, prompt_list, write_images


@pytest.fixture
def runs(tmp_path):
    """Labels and images of two runs that no page may name."""
    folders = [tmp_path / name for name in ("secret_a", "secret_b")]
    return [
        (folder.name, image_paths(folder, write_images(folder, folder.name, seed=seed)))
        for seed, folder in enumerate(folders)
    ]


def data_of(page):
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page.read_text("utf-8"), re.S)
    return json.loads(text)


def test_the_key_says_whose_pictures_are_on_which_side(runs, tmp_path):
    page = write_comparison(tmp_path / "out", prompt_list(), runs, seed=5)
    key, data = read_key(tmp_path / "out"), data_of(page)
    assert key.labels == ("secret_a", "secret_b")
    assert list(key.categories.items()) == list(zip("123456", CATEGORIES, strict=True))
    for number, entry in enumerate(data["prompts"]):
        assert entry["prompt"] == NASTY[number]
        left = key.left[entry["id"]]
        for side, run in (("left", left), ("right", 1 - left)):
            shown = [(page.parent / name).read_bytes() for name in entry[side]]
            assert shown == [path.read_bytes() for path in runs[run][1][number]]
    assert data["questions"] == [list(item) for item in QUESTIONS.items()]


def test_nothing_that_a_rater_gets_names_a_run(runs, tmp_path):
    page = write_comparison(tmp_path / "out", prompt_list(), runs, seed=0)
    files = sorted(path for path in page.parent.rglob("*") if path.is_file())
    assert len(files) == 1 + 2 * 2 * len(NASTY)
    assert not any("secret" in path.relative_to(tmp_path / "out").as_posix() or path.is_symlink() for path in files)
    assert "secret" not in page.read_text("utf-8")
    for name in re.findall(r"images/[^\"]+", page.read_text("utf-8")):
        assert re.fullmatch(r"images/\d{5}_(left|right)_\d\.png", name)


def test_sides_are_drawn_by_the_seed_for_each_prompt(runs, tmp_path):
    prompts = prompt_list(tuple(map(str, range(64))), ("",) * 64)
    many = [(label, images[:1] * 64) for label, images in runs]
    sides = []
    for number, seed in enumerate((0, 0, 1)):
        write_comparison(tmp_path / str(number), prompts, many, seed=seed)
        sides.append(list(read_key(tmp_path / str(number)).left.values()))
    assert sides[0] == sides[1] != sides[2]
    assert 16 < np.sum(sides[0]) < 48


def test_a_second_time_nothing_changes_and_other_pictures_are_refused(runs, tmp_path):
    page = write_comparison(tmp_path / "out", prompt_list(), runs, seed=0)
    before = page.read_bytes()
    write_comparison(tmp_path / "out", prompt_list(), runs, seed=0)
    assert page.read_bytes() == before
    swapped = [(runs[0][0], runs[1][1]), (runs[1][0], runs[0][1])]
    for other, seed in ((runs, 1), (swapped, 0)):
        with pytest.raises(InputError, match="another comparison"):
            write_comparison(tmp_path / "out", prompt_list(), other, seed=seed)


def test_two_runs_of_one_name_are_refused(runs, tmp_path):
    with pytest.raises(InputError, match='both runs are called "secret_a"'):
        write_comparison(tmp_path / "out", prompt_list(), [runs[0], runs[0]], seed=0)


@pytest.mark.parametrize(
    ("count", "columns"), [(1, 1), (2, 2), (3, 3), (4, 2), (6, 3), (7, 7), (8, 4), (9, 3), (12, 4), (16, 4)]
)
def test_sets_are_shown_in_full_rows(runs, tmp_path, count, columns):
    images = [(label, [(paths[0] * 16)[:count]]) for label, paths in runs]
    page = write_comparison(tmp_path / "out", prompt_list(("x",), ("",)), images, seed=0)
    assert data_of(page)["columns"] == columns


def test_a_folder_without_a_key_or_with_a_damaged_one(tmp_path):
    for text in (None, "{", "{}", '{"labels": ["a"]}'):
        if text is not None:
            (tmp_path / "key.json").write_text(text)
        with pytest.raises(InputError, match=r"key\.json"):
            read_key(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": ["a", "b", "c"]}, "labels is"),
        ({"labels": [1, 2]}, "labels is"),
        ({"comparison": None}, "comparison is None; expected a text"),
        ({"prompts": {}}, "prompts is {}; expected a list"),
        ({"prompts": [{"id": "1", "left": 2, "category": ""}]}, "left is 2; expected a whole number from 0 to 1"),
        ({"prompts": [{"id": "1", "left": True, "category": ""}]}, "left is True"),
        ({"prompts": [{"id": "1", "left": 0, "category": ""}] * 2}, "an id is there twice"),
        ({"prompts": [3]}, "3 in place of an object with id"),
    ],
)
def test_a_key_with_other_values_than_it_is_written_with_is_refused(tmp_path, changes, message):
    key = {"comparison": "a", "labels": ["a", "b"], "prompts": [{"id": "1", "left": 0, "category": ""}]}
    (tmp_path / "key.json").write_text(json.dumps(key))
    read_key(tmp_path)
    (tmp_path / "key.json").write_text(json.dumps(key | changes))
    with pytest.raises(InputError, match=message):
        read_key(tmp_path)


def test_a_folder_of_something_else_is_left_alone(runs, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match=r"something else than a comparison, such as thesis\.txt"):
        write_comparison(out, prompt_list(), runs, seed=0)
    assert [path.name for path in out.iterdir()] == ["thesis.txt"]


def test_a_full_disk_is_one_line_and_the_same_command_goes_on(runs, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", full)
        patch.setattr(shutil, "copyfile", full)
        with pytest.raises(StorageError, match="No space left on device"):
            write_comparison(tmp_path / "out", prompt_list(), runs, seed=0)
    assert write_comparison(tmp_path / "out", prompt_list(), runs, seed=0).is_file()
