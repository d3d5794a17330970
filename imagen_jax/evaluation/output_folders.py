"""The folders that `sample`, and `evaluate` with a cascade, write: which images in them are the last stage's.

SAMPLES/samples.json, 000_16.png, 000_64.png, ..., grid.png      by imagen_jax.sample
SWEEP/sweep.json, points/POINT/run.json, points/POINT/SIZE/...    by imagen_jax.evaluate
"""

import dataclasses
import re
from pathlib import Path
from typing import Any

from imagen_jax.errors import InputError
from imagen_jax.evaluation.pages.run_folder import RUN_FILE, Run, image_paths, read_run
from imagen_jax.evaluation.prompts.prompt_lists import PromptList
from imagen_jax.files import read_json
from imagen_jax.json_values import WrongValue, get_list, get_text

SWEEP_FILE, POINTS = "sweep.json", "points"
SAMPLES_FILE = "samples.json"
_SAMPLE = re.compile(r"\d{3,}_(\d+)\.png")
_GRID = "grid.png"


@dataclasses.dataclass(frozen=True)
class LastStage:
    """The images of the last stage in a folder.

    Attributes:
      folder: that holds them.
      files: those of them that count; None: all in `folder`.
      said: a sentence on what was taken and what was left out; "" where nothing was left out.
    """

    folder: Path
    files: list[Path] | None = None
    said: str = ""


def find_last_stage(folder: Path) -> LastStage:
    """Finds the images of the last stage in what `sample` or a sweep has written; any other folder is itself.

    Raises:
      InputError: a sweep of several points; the message lists them. Or a damaged record of a run.
    """
    if (folder / SWEEP_FILE).is_file() or (folder / POINTS).is_dir():
        folder = find_point(folder)
    if (folder / RUN_FILE).is_file():
        size = read_run(folder).size
        there = sum(1 for _ in (folder / str(size)).glob("*.png"))
        others = sorted((int(path.name) for path in folder.iterdir() if path.name.isdecimal()), reverse=True)
        left_out = ", ".join(f"{other} px" for other in others if other != size)
        said = f"images of the last stage, {size} px: {there}"
        return LastStage(folder / str(size), said=said + (f"; left out: those of {left_out}" if left_out else ""))
    return _last_of_samples(folder)


def _last_of_samples(folder: Path) -> LastStage:
    by_size: dict[int, list[Path]] = {}
    others = []
    for path in sorted(folder.glob("*.png")):
        if found := _SAMPLE.fullmatch(path.name):
            by_size.setdefault(int(found[1]), []).append(path)
        elif path.name != _GRID:
            others.append(path)
    written = (folder / SAMPLES_FILE).is_file() or (folder / _GRID).is_file()
    if not by_size or others or not written:
        return LastStage(folder)
    size = max(by_size)
    earlier = sum(map(len, by_size.values())) - len(by_size[size])
    left_out = [_GRID] if (folder / _GRID).is_file() else []
    left_out += [f"{earlier} of earlier stages"] if earlier else []
    said = f"images of the last stage, {size} px: {len(by_size[size])}"
    return LastStage(folder, by_size[size], said + (f"; left out: {' and '.join(left_out)}" if left_out else ""))


def find_point(folder: Path) -> Path:
    """Returns the folder of a sweep's only point.

    Raises:
      InputError: there are several, which the message lists, or none yet.
    """
    points = sorted(path for path in (folder / POINTS).glob("*") if (path / RUN_FILE).is_file())
    if len(points) == 1:
        return points[0]
    if not points:
        raise InputError(f'"{folder}" is a sweep without samples; run it to its end first')
    listed = ", ".join(path.name for path in points[:20]) + (", ..." if len(points) > 20 else "")
    raise InputError(
        f'"{folder}" is a sweep of {len(points)} points; name one of them, such as "{points[0]}": {listed}'
    )


def open_run(folder: Path) -> tuple[Run, list[list[Path]]]:
    """Opens a run to be shown or compared: a point of a sweep, a sweep with one point, or what `sample` wrote.

    Returns:
      The run and, for each prompt, the files of its samples of the last stage.

    Raises:
      InputError: neither of these, several points, damaged, or images are missing.
    """
    if not folder.is_dir():
        raise InputError(f'no folder "{folder}"; expected one that imagen_jax.evaluate or imagen_jax.sample wrote')
    if (folder / SAMPLES_FILE).is_file():
        return _open_samples(folder)
    if (folder / SWEEP_FILE).is_file():
        folder = find_point(folder)
    run = read_run(folder)
    return run, image_paths(folder, run)


def _open_samples(folder: Path) -> tuple[Run, list[list[Path]]]:
    path = folder / SAMPLES_FILE
    record = read_json(path, expected="what imagen_jax.sample writes beside its pictures")
    try:
        entries = [(get_text(entry, "prompt"), _last_file(entry)) for entry in get_list(record, "images")]
    except WrongValue as error:
        raise InputError(f'"{path}" is no record of samples ({error}); sample again') from None
    groups: list[tuple[str, list[Path]]] = []  # a prompt that is repeated has several samples
    for prompt, name in entries:
        if not groups or groups[-1][0] != prompt:
            groups.append((prompt, []))
        groups[-1][1].append(folder / name)
    if len({len(files) for _, files in groups}) > 1:
        groups = [(prompt, [folder / name]) for prompt, name in entries]
    if missing := [file for _, files in groups for file in files if not file.is_file()]:
        raise InputError(f'{len(missing)} images are missing, for example "{missing[0]}"; sample again')
    ids = tuple(str(number) for number in range(1, len(groups) + 1))
    prompts = PromptList(SAMPLES_FILE, tuple(prompt for prompt, _ in groups), ("",) * len(groups), ids)
    sizes = {_size(file) for _, files in groups for file in files}
    if len(sizes) > 1:
        raise InputError(f'"{path}" lists last images of {len(sizes)} sizes; sample again')
    run = Run(folder.resolve().name, prompts, len(groups[0][1]), sizes.pop(), {})
    return run, [files for _, files in groups]


def _last_file(entry: Any) -> str:
    files = get_list(entry, "files")
    sizes = {int(found[1]): file for file in files if isinstance(file, str) and (found := _SAMPLE.fullmatch(file))}
    if not sizes:
        raise WrongValue("files names no picture such as 000_64.png")
    return sizes[max(sizes)]


def _size(file: Path) -> int:
    found = _SAMPLE.fullmatch(file.name)
    assert found
    return int(found[1])


def with_ids_of(run: Run, other: Run) -> Run:
    """Gives a run that `sample` wrote, whose prompts are only numbered, the ids and categories of the same prompts.

    Returns:
      `run` itself where it isn't one, or where its prompts are others.
    """
    if run.prompts.name != SAMPLES_FILE or run.prompts.prompts != other.prompts.prompts:
        return run
    return dataclasses.replace(run, prompts=other.prompts)
