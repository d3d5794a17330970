"""A run: prompts, and as many samples of each, in a folder.

RUN/run.json has what `Run` has; sample k of prompt n is RUN/SIZE/INDEX.png, where INDEX is n * samples_per_prompt + k
with six digits.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from imagen_jax.errors import InputError
from imagen_jax.evaluation.prompts.prompt_lists import PromptList
from imagen_jax.files import read_json, write_json
from imagen_jax.json_values import get_list, get_number, get_object, get_text

RUN_FILE = "run.json"
# Whose names are listed at a time; a damaged number must not make it billions.
_MOST_IMAGES, _MOST_PX = 10_000_000, 65_536


@dataclasses.dataclass(frozen=True)
class Run:
    """What was sampled.

    Attributes:
      title: by which a reader knows the run.
      size: of the images, in pixels.
      settings: whatever else there is to say; JSON values.
    """

    title: str
    prompts: PromptList
    samples_per_prompt: int
    size: int
    settings: Mapping[str, Any]


def image_path(folder: Path, *, size: int, index: int) -> Path:
    """Where sample `index` (of all the run's) is."""
    return folder / str(size) / f"{index:06d}.png"


def image_paths(folder: Path, run: Run) -> list[list[Path]]:
    """For each prompt, the files of its samples.

    Raises:
      InputError: some aren't there.
    """
    per_prompt = run.samples_per_prompt
    paths = [image_path(folder, size=run.size, index=index) for index in range(len(run.prompts) * per_prompt)]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise InputError(
            f'{len(missing)} of {len(paths)} images are missing, for example "{missing[0]}"; finish the run first'
        )
    return [paths[start : start + per_prompt] for start in range(0, len(paths), per_prompt)]


def write_run(folder: Path, run: Run) -> None:
    """Writes run.json, whole or not at all."""
    prompts = run.prompts
    entries = [
        {"id": key, "prompt": prompt, "category": category}
        for key, prompt, category in zip(prompts.ids, prompts.prompts, prompts.categories, strict=True)
    ]
    record = {
        "title": run.title,
        "name": prompts.name,
        "prompts": entries,
        "sha256": prompts.sha256,
        "samples_per_prompt": run.samples_per_prompt,
        "size": run.size,
        "settings": dict(run.settings),
    }
    write_json(folder / RUN_FILE, record)


def read_run(folder: Path) -> Run:
    """What `write_run` wrote.

    Raises:
      InputError: missing, damaged, or with other prompts than its sha256 says.
    """
    path = folder / RUN_FILE
    record = read_json(path, expected="what a finished or unfinished run writes there")
    try:
        entries = get_list(record, "prompts")
        columns = [tuple(get_text(entry, key) for entry in entries) for key in ("prompt", "category", "id")]
        prompts = PromptList(get_text(record, "name"), *columns)
        run = Run(
            get_text(record, "title"),
            prompts,
            get_number(record, "samples_per_prompt", least=1, most=max(1, _MOST_IMAGES // len(entries))),
            get_number(record, "size", least=1, most=_MOST_PX),
            get_object(record, "settings"),
        )
        sha256 = get_text(record, "sha256")
    except ValueError as error:  # also of PromptList
        raise InputError(f'"{path}" is no run\'s record ({error}); start the run again') from None
    if sha256 != prompts.sha256:
        raise InputError(f'"{path}": its prompts are not those of its sha256: it was edited; start the run again')
    return run


def check_same_prompts(a: Run, b: Run) -> None:
    """Raises InputError, naming what differs, unless both have the same prompts and as many samples of each."""
    if a.samples_per_prompt != b.samples_per_prompt:
        raise InputError(
            f'"{a.title}" has {a.samples_per_prompt} samples a prompt and "{b.title}" {b.samples_per_prompt}; sample '
            "both with the same number"
        )
    if a.prompts.sha256 == b.prompts.sha256:
        return
    if len(a.prompts) != len(b.prompts):
        difference = (
            f'"{a.title}" has {len(a.prompts)} ({a.prompts.name}), "{b.title}" {len(b.prompts)} ({b.prompts.name})'
        )
    else:
        pairs = [list(zip(x.prompts.ids, x.prompts.prompts, strict=True)) for x in (a, b)]
        number = next(number for number, pair in enumerate(zip(*pairs, strict=True)) if pair[0] != pair[1])
        said = " and ".join(f'"{prompt}" (id {key})' for key, prompt in (pair[number] for pair in pairs))
        difference = f"the first that differs is number {number + 1}: {said}"
    raise InputError(f"the runs have different prompts: {difference}; sample both on the same prompts")
