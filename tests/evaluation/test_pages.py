import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from imagen_jax.evaluation.pages import sample_page as pages
from imagen_jax.evaluation.pages.run_folder import image_paths
from imagen_jax.evaluation.pages.sample_page import write_page
from imagen_jax.evaluation.sweeps.report import show
from tests.evaluation.runs import CATEGORIES, NASTY, prompt_list, write_images


class Found(HTMLParser):
    """What a browser makes of a page: tags with their attributes, the text of quotes, titles, options and settings."""

    def __init__(self, page: Path):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(page.read_text("utf-8"))

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag in ("q", "option", "title", "dt", "dd", "h1"):
            self._open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag):
        if self._open and self._open[-1] == tag:
            self._open.pop()

    def handle_data(self, data):
        if self._open:
            self.texts[self._open[-1]][-1] += data


@pytest.fixture
def page(tmp_path):
    run_folder = tmp_path / "a #1 run? 100%"
    run = write_images(run_folder)
    path = run_folder / "index.html"
    write_page(
        path, "<i>DrawBench</i> {{sections}}", run.prompts, image_paths(run_folder, run), {"guidance <w>": "1.35 & 8"}
    )
    return path


def test_prompts_are_shown_as_they_are_whatever_they_say(page):
    found = Found(page)
    assert sorted(found.texts["q"]) == sorted(NASTY)
    assert found.texts["title"] == found.texts["h1"] == ["<i>DrawBench</i> {{sections}}"]
    assert found.texts["option"] == ["all categories", "Colors", "Text <&>", "Counting"]
    assert (found.texts["dt"][0], found.texts["dd"][0]) == ("guidance <w>", "1.35 & 8")
    assert len([tag for tag, _ in found.tags if tag == "script"]) == 1
    assert not any(name.startswith("on") for _, attributes in found.tags for name in attributes)


def test_a_page_says_what_the_prompts_are(page):
    found = Found(page)
    assert {"drawbench, 6", prompt_list().sha256[:12]} < set(found.texts["dd"])


def test_a_page_says_every_setting_of_every_stage_and_the_beginnings_of_hashes(tmp_path):
    run = write_images(tmp_path)
    stages = {"8": {"guidance_weight": 3.0, "times": (), "sampler": "ddpm"}, "16": {"guidance_weight": 1.0}}
    about = {"cascade_sha256": "ab" * 32, "seed": 5, "settings": stages, "prompts": "drawbench"}
    show(tmp_path, dataclasses.replace(run, settings=about))
    found = Found(tmp_path / "index.html")
    shown = dict(zip(found.texts["dt"], found.texts["dd"], strict=True))
    assert shown["cascade_sha256"] == "ab" * 6 and shown["seed"] == "5"
    assert shown["8 px"] == "guidance_weight 3.0, times none, sampler ddpm"
    assert shown["16 px"] == "guidance_weight 1.0"


def test_every_picture_is_there_once_below_its_prompt_and_loaded_when_needed(page):
    images = [attributes for tag, attributes in Found(page).tags if tag == "img"]
    files = [(page.parent / unquote(str(image["src"]))).resolve() for image in images]
    assert sorted(files) == sorted((page.parent / "8").resolve().glob("*.png"))
    assert {image["loading"] for image in images} == {"lazy"}
    # Colors has the first and the fourth prompt.
    assert [path.name for path in files[:4]] == [f"{index:06}.png" for index in (0, 1, 6, 7)]


def test_sections_are_categories(page):
    found = [attributes["data-category"] for tag, attributes in Found(page).tags if tag == "section"]
    assert found == list(dict.fromkeys(CATEGORIES))


def test_a_page_may_lie_beside_the_run_and_without_categories(tmp_path):
    run = write_images(tmp_path / "run", prompts=prompt_list(("x", "y"), ("", "")), per_prompt=1)
    write_page(tmp_path / "pages" / "run.html", "t", run.prompts, image_paths(tmp_path / "run", run), {})
    found = Found(tmp_path / "pages" / "run.html")
    assert [attributes["src"] for tag, attributes in found.tags if tag == "img"] == [
        f"../run/8/{index:06}.png" for index in (0, 1)
    ]
    assert ("main", {"class": "cards"}) in found.tags


def test_pages_need_no_network(page):
    templates = sorted((Path(pages.__file__).parent / "templates").glob("*.html"))
    assert len(templates) == 2
    for path in (page, *templates):
        assert not re.search(r"https?:|[\"'(]//|@import", path.read_text("utf-8"))
