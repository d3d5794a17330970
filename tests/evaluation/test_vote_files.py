import json
from pathlib import Path

import pytest

from imagen_jax.errors import InputError
from imagen_jax.evaluation.pages.comparison import Key
from imagen_jax.evaluation.pages.vote_files import RaterVotes, once_each, read_votes

KEY = Key("ab12", ("A", "B"), left={"1": 0, "2": 1}, categories={"1": "", "2": ""})
LEFT, RIGHT = ({"1": {"fidelity": side}} for side in ("left", "right"))


def votes(name, answers, rater="", time=0.0):
    return RaterVotes(Path(name), answers, rater, time)


def counted(*files):
    kept, said = once_each(files)
    return [each.path.name for each in kept], said


def test_a_file_says_whose_it_is_and_when_it_was_given(tmp_path):
    path = tmp_path / "votes.json"
    path.write_text(json.dumps({"comparison": "ab12", "rater": "f00d", "time": 12.5, "votes": LEFT}))
    assert read_votes(path, KEY) == RaterVotes(path, LEFT, "f00d", 12.5)
    path.write_text(json.dumps({"comparison": "ab12", "votes": LEFT}))  # of a page that had no raters
    assert read_votes(path, KEY) == RaterVotes(path, LEFT, "", 0.0)


def test_raters_all_count_though_they_say_the_same():
    assert counted(votes("a", LEFT, "x"), votes("b", LEFT, "y")) == (["a", "b"], [])


def test_one_file_given_twice_counts_once_and_that_is_said():
    names, said = counted(votes("a", LEFT, "x", 1.0), votes("b", LEFT, "x", 2.0))
    assert names == ["a"]
    assert said == ["b has the same votes of the same rater as a, and counts once"]


@pytest.mark.parametrize("order", [1, -1])
def test_of_two_files_of_a_rater_the_later_counts_in_any_order(order):
    files = [votes("early", LEFT, "x", 1.0), votes("late", RIGHT, "x", 2.0), votes("other", LEFT, "y", 0.0)]
    names, said = counted(*files[::order])
    assert sorted(names) == ["late", "other"]
    assert said == ["early is an earlier file of the rater of late, which counts in its place"]


def test_of_two_files_without_a_time_the_last_given_counts():
    assert counted(votes("a", LEFT, "x"), votes("b", RIGHT, "x"))[0] == ["b"]


def test_files_without_raters_are_told_apart_by_what_they_say():
    again = {"1": dict(LEFT["1"])}
    assert counted(votes("a", LEFT), votes("b", RIGHT), votes("c", again))[0] == ["a", "b"]
    assert counted(votes("a", LEFT), votes("b", LEFT, "x"))[0] == ["a", "b"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"votes": {}}, "votes of comparison None"),
        ({"comparison": "0123", "votes": {}}, "votes of comparison '0123', and the key is of 'ab12'"),
        ({}, "doesn't give"),
        ({"votes": []}, "doesn't give"),
        ({"votes": {"99": {"fidelity": "left"}}}, "doesn't give"),
        ({"votes": {"1": {"beauty": "left"}}}, "doesn't give"),
        ({"votes": {"1": {"fidelity": "secret_a"}}}, "doesn't give"),
        ({"votes": {"1": "left"}}, "doesn't give"),
        ({"votes": {"1": {"fidelity": ["left"]}}}, "doesn't give"),
        ({"votes": {}, "rater": 7}, "doesn't give"),
        ({"votes": {}, "rater": "\ud800"}, "doesn't give"),
        ({"votes": {}, "time": "noon"}, "doesn't give"),
        ({"votes": {}, "time": -1}, "doesn't give"),
        ({"votes": {}, "time": 1e400}, "doesn't give"),
    ],
)
def test_votes_that_the_page_can_t_have_given_are_refused(tmp_path, content, message):
    path = tmp_path / "votes.json"
    own = {} if "of comparison" in message else {"comparison": KEY.comparison}
    path.write_text(json.dumps(own | content), "utf-8")
    with pytest.raises(InputError, match=message):
        read_votes(path, KEY)
