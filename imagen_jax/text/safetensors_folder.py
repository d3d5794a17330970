"""Weights of published models: safetensors in transformers' layout, read one tensor at a time.

A model's folder has `model.safetensors`, or several files and `model.safetensors.index.json`, which says where each
tensor is.
"""

import hashlib
import json
import math
import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from imagen_jax.errors import InputError
from imagen_jax.files import read_json

_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_DTYPES = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}
# T5-XXL's encoder has 220.
_MAX_TENSORS = 100_000
_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")


class Stored(NamedTuple):
    """Where a tensor is: a file, and its name there."""

    path: Path
    name: str


def weight_files(folder: Path, *, ignored: tuple[str, ...]) -> list[Path]:
    """The files that hold the tensors of `find_tensors`, their index included; none where there are none."""
    if (folder / _SINGLE).is_file():
        return [folder / _SINGLE]
    if not (folder / _INDEX).is_file():
        return []
    return [folder / _INDEX, *sorted({stored.path for stored in _find_parts(folder, ignored).values()})]


def find_tensors(folder: Path, *, ignored: tuple[str, ...], transformers_class: str) -> dict[str, Stored]:
    """Where every tensor of a model is, by name. Where both layouts are there, the single file counts.

    Args:
      ignored: beginnings of the names of tensors that the model doesn't need; their files need not be there.
      transformers_class: that converts a pickle, for the message.

    Raises:
      InputError: there are no weights (the message lists the files expected), some of the files are missing, or the
        weights are a pickle.
    """
    if (folder / _SINGLE).is_file():
        with _open(folder / _SINGLE) as file:
            names = [name for name in file.keys() if not name.startswith(ignored)]  # noqa: SIM118
        return {name: Stored(folder / _SINGLE, name) for name in names}
    if (folder / _INDEX).is_file():
        return _find_parts(folder, ignored)
    if any((folder / name).is_file() for name in _PICKLES):
        raise InputError(
            f'"{folder}" has its weights as a pickle (pytorch_model.bin), which may run any program when it is read; '
            "convert it once, where torch and transformers are installed: "
            + _conversion_command(folder, transformers_class)
        )
    others = sorted(path.name for path in folder.glob("*.safetensors"))
    raise InputError(
        f'"{folder}" has no weights; expected {_SINGLE}, or {_INDEX} and the files that it names, beside config.json'
        + (f" (there is {', '.join(others[:3])}: give it that name)" if others else "")
    )


def read_tensors(
    folder: Path,
    tensors: Mapping[str, Stored],
    shapes: Mapping[str, tuple[int, ...]],
    use: Callable[[str, np.ndarray], None],
) -> str:
    """Calls `use` with name and value of every tensor, the largest first, while little else is in memory.

    Args:
      folder: for messages.
      tensors: where they are.
      shapes: by name, of all that the model has, and nothing else.
      use: gets float32, float16 or bfloat16, as stored.

    Returns:
      A hex sha256 over the tensors' names, types, shapes and values: the same for one file and several.

    Raises:
      InputError: a file is damaged; tensors are missing, unknown, or of other shapes.
    """
    _check_names(folder, there=set(tensors), needed=set(shapes))
    digests: dict[str, str] = {}
    for name in sorted(shapes, key=lambda name: -math.prod(shapes[name])):
        tensor = _read_tensor(tensors[name], shapes[name])
        use(name, tensor)
        header = f"{name} {tensor.dtype} {tensor.shape} "
        digests[name] = header + hashlib.sha256(np.ascontiguousarray(tensor).view(np.uint8).data).hexdigest()
    return hashlib.sha256("\n".join(digests[name] for name in sorted(digests)).encode()).hexdigest()


def _find_parts(folder: Path, ignored: tuple[str, ...]) -> dict[str, Stored]:
    names = read_json(folder / _INDEX, expected="the index of a model's weights").get("weight_map")
    if not isinstance(names, dict) or not names or not all(isinstance(file, str) for file in names.values()):
        raise InputError(f'"{folder / _INDEX}" has no weight_map; fetch it again')
    if len(names) > _MAX_TENSORS:
        raise InputError(
            f'"{folder / _INDEX}" names {len(names):,} tensors; expected {_MAX_TENSORS:,} at most: fetch it again'
        )
    for file in set(names.values()):
        # A name, and no way out of the folder.
        if not file.endswith(".safetensors") or len(file) > 255 or set(file) & set("/\\\0:"):
            raise InputError(
                f'"{folder / _INDEX}" names a file "{file:.80}"; expected .safetensors files beside it: fetch it again'
            )
    found = {name: Stored(folder / file, name) for name, file in names.items() if not name.startswith(ignored)}
    if missing := sorted(path.name for path in {stored.path for stored in found.values()} if not path.is_file()):
        raise InputError(f'"{folder}" lacks {_first_of("", missing)}, which {_INDEX} names; fetch them again')
    return found


def _conversion_command(folder: Path, transformers_class: str) -> str:
    """A shell command that writes `model.safetensors` beside a `pytorch_model.bin`."""
    path = json.dumps(str(folder))
    model = f'{transformers_class}.from_pretrained({path}, dtype="auto")'
    code = f"from transformers import {transformers_class}; {model}.save_pretrained({path})"
    return f"python -c {shlex.quote(code)}"


def _check_names(folder: Path, *, there: set[str], needed: set[str]) -> None:
    missing, unknown = sorted(needed - there), sorted(there - needed)
    if missing or unknown:
        raise InputError(
            f'"{folder}": the weights do not fit config.json: {_first_of("missing", missing)}'
            f"{'; ' if missing and unknown else ''}{_first_of('unknown', unknown)}; they belong to different models"
        )


def _first_of(what: str, names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    shown = ", ".join(f"{name:.80}" for name in names[:3])
    return f"{what} {shown}{more}".strip() if names else ""


def _read_tensor(stored: Stored, shape: tuple[int, ...]) -> np.ndarray:
    # Opened for one tensor: the pages of a file that stays mapped would count as this process's memory, all of them.
    with _open(stored.path) as file:
        if stored.name not in file.keys():  # noqa: SIM118 (no dict)
            raise InputError(
                f'"{stored.path}" has no tensor {stored.name:.80}, which {_INDEX} says it has; fetch them again'
            )
        tensor = file.get_slice(stored.name)
        if tuple(tensor.get_shape()) != shape:
            raise InputError(
                f'"{stored.path}": {stored.name} is {list(tensor.get_shape())}, and by config.json {list(shape)}; they '
                "belong to different models"
            )
        if tensor.get_dtype() not in _DTYPES:
            raise InputError(
                f'"{stored.path}": {stored.name} is {tensor.get_dtype()}; expected {", ".join(_DTYPES)} (weights that '
                "are not quantised)"
            )
        return file.get_tensor(stored.name)


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="numpy") as file:
            yield file
    except SafetensorError as error:
        raise InputError(
            f'"{path}" is truncated or damaged ({" ".join(str(error).split())[:200]}); fetch it again'
        ) from error
