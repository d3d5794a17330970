import pytest

from imagen_jax.evaluation.pages.comparison import Key
from imagen_jax.evaluation.pages.votes import count_votes, votes_table, wilson_interval

# A is on the left of the first and the third, B of the others.
KEY = Key(
    "ab12",
    ("A", "B"),
    left={"1": 0, "2": 1, "3": 0, "4": 1},
    categories={"1": "Colors", "2": "Text", "3": "Text", "4": "Text"},
)


def both(answer):
    return {"fidelity": answer, "alignment": answer}


@pytest.mark.parametrize(("successes", "trials"), [(0, 5), (3, 7), (50, 100), (7, 7)])
def test_wilson_s_ends_are_where_the_score_test_is_at_its_limit(successes, trials):
    low, high = wilson_interval(successes, trials)
    share = successes / trials
    assert 0.0 <= low <= share + 1e-12 and share - 1e-12 <= high <= 1.0
    for end in (low, high):
        assert (share - end) ** 2 == pytest.approx(1.959963984540054**2 * end * (1 - end) / trials, abs=1e-12)
    assert wilson_interval(trials - successes, trials) == pytest.approx((1 - high, 1 - low))


def test_more_votes_or_less_confidence_are_a_narrower_interval():
    widths = [high - low for low, high in (wilson_interval(3 * n, 5 * n) for n in (1, 4, 16, 64))]
    assert widths == sorted(widths, reverse=True)
    low, high = wilson_interval(3, 5, level=0.5)
    assert high - low < widths[0]
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_sides_become_runs_by_the_key():
    votes = [{"1": both("left"), "2": both("right"), "3": {"fidelity": "tie", "alignment": "right"}}]
    counts = {(row.question, row.category): row[2:] for row in count_votes(KEY, votes)}
    assert counts == {
        ("fidelity", "all"): (2, 1, 0),
        ("fidelity", "Colors"): (1, 0, 0),
        ("fidelity", "Text"): (1, 1, 0),
        ("alignment", "all"): (2, 0, 1),
        ("alignment", "Colors"): (1, 0, 0),
        ("alignment", "Text"): (1, 0, 1),
    }


def test_votes_of_all_raters_count_and_swapping_all_sides_swaps_the_runs():
    votes = [{"1": both("left"), "4": {"fidelity": "left"}}, {"1": both("left"), "2": both("tie")}]
    swapped = Key("ab12", KEY.labels, {key: 1 - side for key, side in KEY.left.items()}, KEY.categories)
    for row, other in zip(count_votes(KEY, votes), count_votes(swapped, votes), strict=True):
        assert (row.first, row.ties, row.second) == (other.second, other.ties, other.first)
    assert count_votes(KEY, votes)[0][2:] == (2, 1, 1)


def test_ties_are_no_part_of_the_rate_and_without_votes_there_is_none():
    (row, *_) = count_votes(KEY, [{"1": both("tie"), "2": both("left"), "3": both("left"), "4": both("left")}])
    assert row.rate == pytest.approx(1 / 3)
    assert row.interval == wilson_interval(1, 3)
    assert {row.rate for row in count_votes(KEY, [])} == {None}
    assert "-" in votes_table(KEY.labels, count_votes(KEY, []))


def test_one_category_is_not_told_twice():
    key = Key("ab12", KEY.labels, KEY.left, dict.fromkeys(KEY.left, ""))
    assert [row.category for row in count_votes(key, [])] == ["all", "all"]


def test_the_table_has_a_line_for_each():
    table = votes_table(KEY.labels, count_votes(KEY, [{"2": both("right"), "3": both("left"), "4": both("left")}]))
    lines = [line.split() for line in table.splitlines()]
    assert lines[:2] == [["first:", "A"], ["second:", "B"]]
    assert ["fidelity", "Text", "2", "0", "1", "67%", "21%", "to", "94%"] in lines
