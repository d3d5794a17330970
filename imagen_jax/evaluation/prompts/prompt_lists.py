"""Prompts to evaluate on, and the files they come from. No benchmark is bundled: its user supplies the file."""

import codecs
import csv
import dataclasses
import functools
import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from imagen_jax.data.sources import Source
from imagen_jax.errors import InputError
from imagen_jax.evaluation.bounds import check_count
from imagen_jax.files import read_bytes, user_path
from imagen_jax.json_values import is_text
from imagen_jax.sampling.prompts import read_prompts_file

_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_MAX_TABLE_BYTES = 64 * 2**20


@dataclasses.dataclass(frozen=True)
class PromptList:
    """Prompts in a fixed order.

    Attributes:
      name: of the benchmark and how it was read, such as "coco30k-captions".
      prompts: none is empty.
      categories: one a prompt, "" where there is none.
      ids: one a prompt, each once: a COCO caption's id, or the number of a table's row, from 1.

    Raises:
      InputError: no prompts, categories or ids of another number, an id twice, or a text that is not valid Unicode.
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
        for number, text in enumerate((*self.prompts, *self.categories, *self.ids)):
            if not is_text(text):
                raise InputError(
                    f"prompt, category or id {number % len(self.prompts) + 1} is no valid Unicode ({text[:80]!r})"
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
      InputError: no such file, not UTF-8, another delimiter, a missing column, no rows, a row without a prompt, or with
        another number of fields than there are columns; the message names the line.
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
    """Reads a UTF-8 text file with one prompt per line, see `read_prompts_file`."""
    path = user_path(path)
    lines = tuple(read_prompts_file(path))
    return PromptList(path.stem, lines, ("",) * len(lines), tuple(str(number) for number in range(1, len(lines) + 1)))


def draw_captions(source: Source, *, count: int, seed: int) -> PromptList:
    """`count` captions of a data set, drawn without replacement, in its order; ids are its indices.

    Raises:
      InputError: there are fewer, or `count` is no whole number above 0.
    """
    check_count("count", count, least=1)
    check_count("seed", seed, least=0)
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
    path = user_path(path)
    rows = list(_rows(path, dialect, expected=f"a table with the columns {prompt} and {category}"))
    columns = [column.strip() for column in rows[0][1]] if rows else []
    _check_columns(path, columns, (prompt, category), dialect)
    places = [columns.index(column) for column in (prompt, category)]
    while len(rows) > 1 and not any(field.strip() for field in rows[-1][1]):  # what a spreadsheet leaves below
        rows.pop()
    if len(rows) < 2:
        raise InputError(f'"{path}" has no rows below its columns; expected a prompt in each')
    found = []
    for line, row in rows[1:]:
        if row and len(row) != len(columns):
            raise InputError(
                f'"{path}", line {line}: {len(row)} fields, and the columns are {len(columns)} '
                f"({', '.join(columns)[:200]}); {_remedy(dialect)}"
            )
        texts = [row[place].strip() if row else "" for place in places]
        if not texts[0]:
            raise InputError(f'"{path}", line {line}: no {prompt}; write a prompt there, or remove the row')
        found.append(texts)
    prompts, categories = zip(*found, strict=True)
    return PromptList(name, prompts, categories, ids=tuple(str(number) for number in range(1, len(found) + 1)))


def _check_columns(path: Path, columns: Sequence[str], wanted: Sequence[str], dialect: type[csv.Dialect]) -> None:
    missing = [column for column in wanted if column not in columns]
    twice = [column for column in wanted if columns.count(column) > 1]
    if twice:
        raise InputError(f'"{path}" has the column {twice[0]} {columns.count(twice[0])} times; expected it once')
    if not missing:
        return
    first = dialect.delimiter.join(columns)
    for delimiter, what in _DELIMITERS.items():
        if {*wanted} <= {column.strip(' "') for column in first.split(delimiter)}:
            raise InputError(
                f'"{path}" has its columns separated by {what}; expected {_DELIMITERS[dialect.delimiter]}: save it so'
            )
    raise InputError(
        f'"{path}" has no column {" and ".join(missing)}; its first row is {", ".join(columns)[:200] or "empty"}; '
        f"expected {wanted[0]} and {wanted[1]} there"
    )


def _remedy(dialect: type[csv.Dialect]) -> str:
    if dialect.quoting == csv.QUOTE_NONE:
        return "a tab in a prompt would be another field"
    return "a field with a comma in it needs quotation marks"


def _rows(path: Path, dialect: type[csv.Dialect], *, expected: str) -> Iterator[tuple[int, list[str]]]:
    """Yields each row with the number of the line in which it begins, from 1: a quoted field may have several lines."""
    if not path.is_file():
        raise InputError(f'no file "{path}"; expected {expected}')
    data = read_bytes(path, expected=expected, max_bytes=_MAX_TABLE_BYTES)
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise InputError(f'"{path}" is UTF-16; save it as UTF-8')
    if b"\0" in data:
        raise InputError(f'"{path}" is binary, or UTF-16, at byte {data.index(0)}; expected {expected}, in UTF-8')
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f'"{path}" is not UTF-8 (byte {error.start}); save it as UTF-8') from None
    reader = csv.reader(io.StringIO(text, newline=""), dialect, strict=True)
    line = 1
    try:
        for row in reader:
            yield line, row
            line = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f'"{path}", line {line}: no table that can be read ({error}); write it again') from None
