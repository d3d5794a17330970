"""A page on which a rater compares two runs of the same prompts without knowing which is which.

The protocol is DrawBench's (Imagen, arXiv 2205.11487): a rater sees two sets of samples of one prompt, and says for
each of two questions which is better, or that neither is.
"""

import dataclasses
import hashlib
import json
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from imagen_jax import storage
from imagen_jax.errors import InputError
from imagen_jax.evaluation.bounds import check_count
from imagen_jax.evaluation.pages.sample_page import fill_template, json_for_script
from imagen_jax.evaluation.prompts.prompt_lists import PromptList
from imagen_jax.files import read_json, write_json, write_text
from imagen_jax.json_values import WrongValue, get_list, get_number, get_text, is_text, shown

# What the paper asks for, by its names.
QUESTIONS = {
    "fidelity": "Which set has the higher quality?",
    "alignment": "Which set fits the prompt better?",
}
KEY_FILE = "key.json"
PAGE_FOLDER = "page"


@dataclasses.dataclass(frozen=True)
class Key:
    """Which run is on which side; raters must not see it.

    Attributes:
      comparison: hex that names what is compared, and on which sides: votes carry it too.
      labels: of the two runs.
      left: for each prompt's id, the number of the run on the left, 0 or 1.
      categories: for each prompt's id.
    """

    comparison: str
    labels: tuple[str, str]
    left: Mapping[str, int]
    categories: Mapping[str, str]


def write_comparison(
    out: Path, prompts: PromptList, runs: Sequence[tuple[str, Sequence[Sequence[Path]]]], *, seed: int
) -> Path:
    """Writes OUT/page, which is all that a rater needs, and OUT/key.json. Pictures are linked or copied.

    Args:
      runs: for each of the two, its label and, for each prompt, the files of its samples; as many of both.
      seed: of the sides, which are drawn for each prompt.

    Returns:
      The page's HTML file.

    Raises:
      InputError: OUT has the key of another comparison or holds something else, or both labels are the same.
      StorageError: the disk is full, read-only or gone.
    """
    check_folder(out)
    check_count("seed", seed, least=0)
    (label_a, images_a), (label_b, images_b) = runs
    assert len(images_a) == len(images_b) == len(prompts)
    if label_a == label_b:
        raise InputError(f'both runs are called "{label_a}"; give one another title')
    left = [int(side) for side in np.random.default_rng(seed).integers(2, size=len(prompts))]
    content = {
        "labels": [label_a, label_b],
        "prompts_sha256": prompts.sha256,
        "images_sha256": [_digest(images) for _, images in runs],
        "seed": seed,
        "prompts": [
            {"id": key, "category": category, "left": side}
            for key, category, side in zip(prompts.ids, prompts.categories, left, strict=True)
        ],
    }
    comparison = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
    if (out / KEY_FILE).exists() and read_key(out).comparison != comparison:
        raise InputError(f'"{out}" has another comparison, for which there may be votes; name another folder')
    write_json(out / KEY_FILE, content | {"comparison": comparison})
    with storage.writing(out):
        entries = [_entry(number, prompts, runs, left[number], out / PAGE_FOLDER) for number in range(len(prompts))]
    data = {
        "comparison": comparison,
        "questions": list(QUESTIONS.items()),
        "columns": _columns(len(images_a[0])),
        "prompts": entries,
    }
    page = out / PAGE_FOLDER / "index.html"
    write_text(page, fill_template("comparison.html", data=json_for_script(data)))
    return page


def _entry(
    number: int, prompts: PromptList, runs: Sequence[tuple[str, Sequence[Sequence[Path]]]], left: int, folder: Path
) -> dict[str, Any]:
    """What the page knows of a prompt, with its pictures put into its folder."""
    sides = {"left": runs[left][1][number], "right": runs[1 - left][1][number]}
    assert len(sides["left"]) == len(sides["right"])
    shown = {
        side: [_show(path, folder, f"images/{number:05d}_{side}_{k}.png") for k, path in enumerate(paths)]
        for side, paths in sides.items()
    }
    return {
        "id": prompts.ids[number],
        "prompt": prompts.prompts[number],
        "category": prompts.categories[number],
        **shown,
    }


def read_key(out: Path) -> Key:
    """Reads what `write_comparison` wrote in OUT.

    Raises:
      InputError: missing or damaged.
    """
    path = out / KEY_FILE
    content = read_json(path, expected="the key that is written with a comparison's page")
    try:
        labels = get_list(content, "labels")
        if len(labels) != 2 or not all(isinstance(label, str) and is_text(label) for label in labels):
            raise WrongValue(f"labels is {shown(labels)}; expected two texts")
        entries = get_list(content, "prompts")
        ids = [get_text(entry, "id") for entry in entries]
        if len(set(ids)) < len(ids):
            raise WrongValue("an id is there twice")
        left = [get_number(entry, "left", least=0, most=1) for entry in entries]
        categories = [get_text(entry, "category") for entry in entries]
        return Key(
            get_text(content, "comparison"),
            (labels[0], labels[1]),
            dict(zip(ids, left, strict=True)),
            dict(zip(ids, categories, strict=True)),
        )
    except WrongValue as error:
        raise InputError(f'"{path}" is no comparison\'s key ({error}); write the comparison again') from None


def check_folder(out: Path) -> None:
    """Raises InputError if OUT holds anything, and isn't a comparison's folder."""
    there = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
    if there and not any(name.startswith(KEY_FILE) for name in there):  # or a kill's half-written one
        raise InputError(f'"{out}" holds something else than a comparison, such as {there[0]}; choose another --out')


def _digest(images: Sequence[Sequence[Path]]) -> str:
    digest = hashlib.sha256()
    for path in (path for paths in images for path in paths):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _show(source: Path, folder: Path, name: str) -> str:
    """Puts a picture under a name that doesn't say where it is from; returns the name."""
    target = folder / name
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)
    return name


def _columns(count: int) -> int:
    """Of a grid of so many samples without holes, no higher than wide: 4 for 8."""
    return next(columns for columns in range(math.isqrt(count - 1) + 1, count + 1) if count % columns == 0)
