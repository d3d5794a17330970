"""The pages as a user meets them, in a real browser."""

import json

import pytest

from imagen_jax.evaluation.pages.comparison import read_key, write_comparison
from imagen_jax.evaluation.pages.run_folder import image_paths
from imagen_jax.evaluation.pages.sample_page import write_page
from imagen_jax.evaluation.pages.vote_files import once_each, read_votes
from imagen_jax.evaluation.pages.votes import count_votes
from tests.evaluation.browser import needs_browser, open_browser
from tests.evaluation.runs import NASTY, prompt_list, write_images

pytestmark = needs_browser

LOADED = "[...document.querySelectorAll('{0} img')].every((image) => image.complete && image.naturalWidth === 8)"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    runs = [
        (name, image_paths(folder / name, write_images(folder / name, name, per_prompt=8, seed=seed)))
        for seed, name in enumerate(("a", "b"))
    ]
    write_page(folder / "a" / "index.html", "DrawBench", prompt_list(), runs[0][1], {"seed": "0"})
    write_comparison(folder / "out", prompt_list(), runs, seed=0)
    return folder


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    with open_browser(tmp_path_factory.mktemp("profile")) as tab:
        yield tab
        assert tab.errors == []


@pytest.fixture
def comparison(tab, folder):
    """The page, without votes."""
    tab.open(folder / "out" / "page" / "index.html")
    tab.run("localStorage.clear()")
    tab.reload()
    return tab


def test_a_page_shows_prompts_and_pictures_by_category(tab, folder):
    tab.open(folder / "a" / "index.html")
    shown = "[...document.querySelectorAll('article')].filter((article) => article.checkVisibility()).length"
    assert tab.run("[...document.querySelectorAll('q')].map((q) => q.textContent)") == [
        NASTY[number] for numbers in prompt_list().by_category().values() for number in numbers
    ]
    assert tab.run("document.title") == "DrawBench"
    tab.run("document.querySelectorAll('img').forEach((image) => image.loading = 'eager')")
    tab.wait(lambda: tab.run(LOADED.format("main")))
    assert (tab.run(shown), tab.text("#counts")) == (6, "6 prompts, 48 samples")
    tab.click("#search")
    tab.press(*"two")
    assert (tab.run(shown), tab.text("#counts")) == (1, "1 of 6 prompts")
    tab.run("document.querySelector('#search').select()")
    tab.press("e")
    assert tab.run(shown) == 5
    tab.run("document.querySelector('#category').focus()")
    tab.press("C")  # a closed list takes the first that begins so
    assert tab.run("document.querySelector('#category').value") == "Colors"
    assert tab.run(shown) == 2
    assert tab.run("document.documentElement.scrollWidth <= innerWidth")


def test_a_prompt_is_asked_with_both_sets_in_view(comparison):
    comparison.wait(lambda: comparison.run(LOADED.format("#sets")))
    assert comparison.run("document.querySelectorAll('#sets img').length") == 16
    assert comparison.run("document.querySelector('#prompt').textContent") == NASTY[0]
    assert comparison.text("#position") == "Prompt 1 of 6"
    assert comparison.run("document.title") == "Side by side"
    assert comparison.run("document.documentElement.scrollHeight <= innerHeight")
    assert comparison.run("document.documentElement.scrollWidth <= innerWidth")


def test_votes_by_click_and_key_are_kept_downloaded_and_counted(comparison, folder, tmp_path):
    tab = comparison
    tab.click(".question:nth-child(1) [data-choice=left]")
    tab.click(".question:nth-child(2) [data-choice=tie]")
    assert tab.text("#position") == "Prompt 2 of 6"
    tab.press("ArrowRight", "ArrowDown")
    tab.press("n", "ArrowUp", "ArrowLeft")  # the second question of the fourth prompt
    assert (tab.text("#position"), tab.text("#answered")) == ("Prompt 4 of 6", "2 answered")
    tab.reload()
    assert (tab.text("#position"), tab.text("#answered")) == ("Prompt 3 of 6", "2 answered")
    tab.click("#next")
    assert tab.run("document.querySelector('.active').innerText").startswith("Which set has the higher quality?")
    assert tab.run("document.querySelector('[aria-pressed=true]').dataset.choice") == "left"
    tab.press("p", "p", "p", "ArrowRight")  # another vote on the first, which stays there
    assert tab.text("#position") == "Prompt 1 of 6"
    file = tab.download("#download", tmp_path)
    assert file.name == "votes.json"
    key = read_key(folder / "out")
    read = read_votes(file, key)
    votes = read.answers
    assert votes == {
        "1": {"fidelity": "right", "alignment": "tie"},
        "2": {"fidelity": "right", "alignment": "tie"},
        "4": {"alignment": "left"},
    }
    assert len(read.rater) == 16 and read.time > 1.7e12
    tab.press("ArrowLeft")
    (tmp_path / "again").mkdir()
    again = read_votes(tab.download("#download", tmp_path / "again"), key)
    assert again.rater == read.rater and again.time > read.time
    assert once_each([again, read])[0] == [again]
    right = [1 - key.left[prompt_id] for prompt_id in ("1", "2")]
    fidelity, alignment = (row for row in count_votes(key, [votes]) if row.category == "all")
    assert (fidelity.first, fidelity.ties, fidelity.second) == (right.count(0), 0, right.count(1))
    assert (alignment.first, alignment.ties, alignment.second) == (key.left["4"] == 0, 2, key.left["4"] == 1)


def test_keys_alone_go_through_all_prompts_to_the_end(comparison):
    comparison.press(*["ArrowLeft", "ArrowRight"] * len(NASTY))
    assert comparison.text("#answered") == "6 answered"
    assert comparison.text("#done").startswith("All prompts are answered")
    stored = comparison.run("Object.entries(localStorage)")
    votes = next(text for name, text in stored if not name.endswith(".rater"))
    assert json.loads(votes) == {str(number): {"fidelity": "left", "alignment": "right"} for number in range(1, 7)}
    assert len(stored) == 2


def test_a_picture_is_enlarged_and_keys_don_t_vote_meanwhile(comparison):
    comparison.click("#right img:nth-child(3)")
    assert comparison.run("document.querySelector('#zoom img').src.endsWith('images/00000_right_2.png')")
    comparison.press("ArrowLeft")
    comparison.click("#zoom img")
    assert not comparison.run("document.querySelector('#zoom').open")
    assert comparison.run("document.querySelectorAll('[aria-pressed=true]').length") == 0
    assert comparison.run("localStorage.length") == 0


def test_votes_are_forgotten_when_asked_twice_only(comparison):
    for accept, expected in ((False, "1 answered"), (True, "0 answered")):
        comparison.press("ArrowLeft", "ArrowLeft")
        rater = comparison.run("rater")
        comparison.accept = accept
        comparison.click("#clear")
        assert (comparison.run("rater") != rater) == accept  # whoever votes next is another
        assert comparison.text("#answered") == expected
        comparison.press("p")
