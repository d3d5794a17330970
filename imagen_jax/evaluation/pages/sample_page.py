"""Pages to look at samples with: one HTML file beside its pictures, which needs neither network nor server."""

import html
import json
import os
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import quote

from imagen_jax.evaluation.prompts.prompt_lists import PromptList
from imagen_jax.files import write_text

# Enough to tell two apart; all digits are in run.json.
_HASH, _HASH_DIGITS = re.compile("[0-9a-f]{64}"), 12


def write_page(
    out: Path, title: str, prompts: PromptList, images: Sequence[Sequence[Path]], settings: Mapping[str, Any]
) -> None:
    """One page of a run: its settings, and by category each prompt with its samples.

    Args:
      out: the HTML file. It finds the pictures by their path from there, so that both may move together.
      images: for each prompt, the files of its samples.
      settings: what to know about the run, shown in this order, hashes by their first 12 digits; what the prompts are
        is added.
    """
    assert len(images) == len(prompts)
    facts = {**settings, "prompts": f"{prompts.name}, {len(prompts):,}", "prompts' sha256": prompts.sha256}
    groups = prompts.by_category()
    write_text(
        out,
        fill_template(
            "samples.html",
            title=html.escape(title),
            counts=f"{len(prompts):,} prompts, {sum(map(len, images)):,} samples",
            settings="\n".join(
                f"<div><dt>{html.escape(key)}</dt><dd>{html.escape(_shown(value))}</dd></div>"
                for key, value in facts.items()
            ),
            categories="\n".join(f"<option>{html.escape(name)}</option>" for name in groups if name),
            sections="\n".join(
                _section(category, [_sample_row(number, prompts, images[number], out.parent) for number in numbers])
                for category, numbers in groups.items()
            ),
            layout="cards" if max(map(len, images)) == 1 else "rows",
        ),
    )


def _shown(value: Any) -> str:
    if isinstance(value, str) and _HASH.fullmatch(value):
        return value[:_HASH_DIGITS]
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_shown(each)}" for key, each in value.items())
    if isinstance(value, (list, tuple)):
        return "/".join(map(_shown, value)) or "none"
    return str(value)


def _section(category: str, rows: list[str]) -> str:
    heading = f"<h2>{html.escape(category)} <small>{len(rows)}</small></h2>" if category else ""
    return f'<section data-category="{html.escape(category)}">{heading}\n' + "\n".join(rows) + "\n</section>"


def _sample_row(number: int, prompts: PromptList, images: Sequence[Path], folder: Path) -> str:
    links = "".join(
        f'<a href="{url}"><img src="{url}" loading="lazy" alt=""></a>'
        for url in (html.escape(quote(os.path.relpath(path, folder))) for path in images)
    )
    key, prompt = html.escape(prompts.ids[number]), html.escape(prompts.prompts[number])
    return f'<article id="p{key}"><h3><a href="#p{key}">{key}</a> <q>{prompt}</q></h3><div>{links}</div></article>'


def fill_template(name: str, **values: str) -> str:
    """templates/NAME with each {{key}} replaced by its value, once: what looks like a key in a value stays."""
    template = resources.files("imagen_jax.evaluation.pages").joinpath("templates", name).read_text("utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda found: values[found[1]], template)


def json_for_script(value: Any) -> str:
    """JSON that can stand inside <script>, whatever its strings say."""
    return json.dumps(value, ensure_ascii=False).replace("<", "\\u003c")
