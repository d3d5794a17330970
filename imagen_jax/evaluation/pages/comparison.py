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

from imagen_jax.errors import InputError
from imagen_jax.evaluation.pages.sample_page import fill_template, json_for_script
from imagen_jax.evaluation.prompts.prompt_lists import PromptList
from imagen_jax.files import read_json, write_json, write_text

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
      InputError: OUT has the key of another comparison, or both labels are the same.
    """
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
    entries = []
    for number in range(len(prompts)):
        sides = {"left": runs[left[number]][1][number], "right": runs[1 - left[number]][1][number]}
        assert len(sides["left"]) == len(sides["right"])
        shown = {
            side: [
                _show(path, out / PAGE_FOLDER, f"images/{number:05d}_{side}_{k}.png") for k, path in enumerate(paths)
            ]
            for side, paths in sides.items()
        }
        entries.append(
            {"id": prompts.ids[number], "prompt": prompts.prompts[number], "category": prompts.categories[number]}
            | shown
        )
    data = {
        "comparison": comparison,
        "questions": list(QUESTIONS.items()),
        "columns": _columns(len(images_a[0])),
        "prompts": entries,
    }
    page = out / PAGE_FOLDER / "index.html"
    write_text(page, fill_template("comparison.html", data=json_for_script(data)))
    return page


def read_key(out: Path) -> Key:
    """What `write_comparison` wrote in OUT.

    Raises:
      InputError: missing or damaged.
    """
    path = out / KEY_FILE
    content = read_json(path, expected="the key that is written with a comparison's page")
    try:
        label_a, label_b = content["labels"]
        entries = content["prompts"]
        left = {entry["id"]: entry["left"] for entry in entries}
        categories = {entry["id"]: entry["category"] for entry in entries}
        return Key(content["comparison"], (label_a, label_b), left, categories)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f'"{path}" is no comparison\'s key ({error}); write the comparison again') from error


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


def read_votes(path: Path, key: Key) -> dict[str, dict[str, str]]:
    """The votes that a rater downloaded from the page: {prompt's id: {question: "left", "right" or "tie"}}.

    Raises:
      InputError: missing, damaged, or of another comparison.
    """
    content: dict[str, Any] = read_json(path, expected="the votes.json that a comparison's page gives")
    if content.get("comparison") != key.comparison:
        raise InputError(
            f'"{path}" has votes of comparison {content.get("comparison")}, and the key is of {key.comparison}; name '
            "the folder whose page they were given on"
        )
    votes = content.get("votes")
    if not isinstance(votes, dict) or not all(_is_vote(key, *item) for item in votes.items()):
        raise InputError(f'"{path}" has votes that the page doesn\'t give; download them again')
    return votes


def _is_vote(key: Key, prompt_id: str, answers: Any) -> bool:
    return (
        prompt_id in key.left
        and isinstance(answers, dict)
        and set(answers) <= set(QUESTIONS)
        and all(answer in ("left", "right", "tie") for answer in answers.values())
    )
