"""Prompts to evaluate on, and the files they come from. No benchmark is bundled: its user supplies the file."""

import csv
import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from imagen_jax.data.sources import Source
from imagen_jax.errors import InputError
from imagen_jax.sampling.prompts import read_prompts_file


@dataclasses.dataclass(frozen=True)
class PromptList:
    """Prompts in a fixed order.

    Attributes:
      name: of the benchmark and how it was read, such as "coco30k-captions".
      prompts: none is empty.
      categories: one a prompt, "" where there is none.
      ids: one a prompt, each once: a COCO caption's id, or the number of a table's row, from 1.

    Raises:
      InputError: no prompts, categories or ids of another number, or an id twice.
    """

    name: str
    prompts: tuple[str, ...]
    categories: tuple[str, ...]
    ids: tuple[str, ...]

    def __post_init__(self) -> None:
        counts = len(self.prompts), len(self.categories), len(self.ids), len(set(self.ids))
        if not 0 < min(counts) == max(counts):
            raise InputError(
                "{} prompts, {} categories, {} ids, {} of them distinct: expected as many of each".format(*counts)
            )

    def __len__(self) -> int:
        return len(self.prompts)

    @functools.cached_property
    def sha256(self) -> str:
        """Hex over ids and prompts, in order: by it a result says what it was measured on."""
        pairs = list(zip(self.ids, self.prompts, strict=True))
        return hashlib.sha256(json.dumps(pairs, ensure_ascii=False).encode()).hexdigest()

    def by_category(self) -> dict[str, list[int]]:
        """Numbers of the prompts of each category, in the order in which categories first appear."""
        numbers: dict[str, list[int]] = {}
        for number, category in enumerate(self.categories):
            numbers.setdefault(category, []).append(number)
        return numbers


def read_drawbench(path: Path) -> PromptList:
    """A CSV with the columns Prompts and Category (Imagen, arXiv 2205.11487: about 200 prompts of 11 categories).

    Others are ignored. Fields may be quoted.

    Raises:
      InputError: no such file, not UTF-8, a missing column, no rows, or a row without a prompt.
    """
    return _read_table(path, "drawbench", prompt="Prompts", category="Category", dialect=csv.excel)


def read_parti(path: Path) -> PromptList:
    """A TSV with the columns Prompt and Category (PartiPrompts, arXiv 2206.10789: 1,632 prompts).

    Its others, Challenge and Note, are ignored. Quotation marks are part of a prompt.

    Raises:
      InputError: as `read_drawbench`.
    """
    return _read_table(path, "parti", prompt="Prompt", category="Category", dialect=_TabSeparated)


def read_lines(path: Path) -> PromptList:
    """A UTF-8 text file with a prompt a line, see `read_prompts_file`."""
    lines = tuple(read_prompts_file(path))
    return PromptList(path.stem, lines, ("",) * len(lines), tuple(str(number) for number in range(1, len(lines) + 1)))


def draw_captions(source: Source, *, count: int, seed: int) -> PromptList:
    """`count` captions of a data set, drawn without replacement, in its order; ids are its indices.

    Raises:
      InputError: there are fewer.
    """
    if count > len(source):
        raise InputError(
            f'{count} samples: "{source.spec}" has {len(source)} captions; expected up to that, or several samples of '
            "each (--samples_per_prompt=4)"
        )
    rows = np.sort(np.random.default_rng(seed).permutation(len(source))[:count])
    captions = source.captions()
    return PromptList(source.spec, tuple(captions[row] for row in rows), ("",) * count, tuple(map(str, rows)))


class _TabSeparated(csv.excel_tab):
    quoting = csv.QUOTE_NONE


def _read_table(path: Path, name: str, *, prompt: str, category: str, dialect: type[csv.Dialect]) -> PromptList:
    if not path.is_file():
        raise InputError(f'no file "{path}"; expected a table with the columns {prompt} and {category}')
    rows = list(_rows(path, dialect))
    columns = [column.strip() for column in rows[0]] if rows else []
    missing = [column for column in (prompt, category) if column not in columns]
    if missing:
        raise InputError(
            f'"{path}" has no column {" and ".join(missing)}; its first row is {", ".join(columns) or "empty"}; '
            f"expected {prompt} and {category} there"
        )
    places = [columns.index(column) for column in (prompt, category)]
    # A short row has no category.
    found = [tuple(row[place].strip() if place < len(row) else "" for place in places) for row in rows[1:]]
    while found and not found[-1][0]:  # what a spreadsheet leaves below its last row
        found.pop()
    if not found:
        raise InputError(f'"{path}" has no rows below its columns; expected a prompt in each')
    for number, (text, _) in enumerate(found, 1):
        if not text:
            raise InputError(f'"{path}": row {number} below the columns has no prompt; write one, or remove the row')
    prompts, categories = zip(*found, strict=True)
    return PromptList(name, prompts, categories, ids=tuple(str(number) for number in range(1, len(found) + 1)))


def _rows(path: Path, dialect: type[csv.Dialect]) -> Iterator[Sequence[str]]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            yield from csv.reader(file, dialect, strict=True)
    except UnicodeDecodeError as error:
        raise InputError(f'"{path}" is not UTF-8 (byte {error.start}); save it as UTF-8') from None
    except csv.Error as error:
        raise InputError(f'"{path}" is no table that can be read ({error}); write it again') from None
