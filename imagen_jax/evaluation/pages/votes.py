"""Counting what raters preferred."""

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import NamedTuple

from imagen_jax.evaluation.pages.comparison import QUESTIONS, Key

ALL = "all"


class Preference(NamedTuple):
    """Votes on one question, of one category or all.

    Attributes:
      first, ties, second: for the first run, for neither, for the second.
    """

    question: str
    category: str
    first: int
    ties: int
    second: int

    @property
    def rate(self) -> float | None:
        """Share of the first run among the votes for either; None where there is none."""
        decided = self.first + self.second
        return self.first / decided if decided else None

    @property
    def interval(self) -> tuple[float, float]:
        """Of `rate`, at 95%. Votes count as independent: several raters' of one prompt say less than it shows."""
        return wilson_interval(self.first, self.first + self.second)


def wilson_interval(successes: int, trials: int, *, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share (Journal of the American Statistical Association 22, 1927).

    It is all p with |k/n - p| <= z sqrt(p (1 - p) / n); (0, 1) without a trial.
    """
    if trials == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1.0 + level) / 2.0)
    centre = successes + z * z / 2.0
    half = z * math.sqrt(successes * (trials - successes) / trials + z * z / 4.0)
    return max(0.0, (centre - half) / (trials + z * z)), min(1.0, (centre + half) / (trials + z * z))


def count_votes(key: Key, votes: Sequence[Mapping[str, Mapping[str, str]]]) -> list[Preference]:
    """For each question all votes, and then each category's, where there are several.

    Args:
      votes: of each rater, by `read_votes`.
    """
    categories = list(dict.fromkeys(key.categories.values()))
    groups: dict[str, list[str]] = {ALL: list(key.categories)}
    if len(categories) > 1:
        groups |= {name: [key_id for key_id, of in key.categories.items() if of == name] for name in categories}
    return [_count(key, votes, question, category, ids) for question in QUESTIONS for category, ids in groups.items()]


def _count(
    key: Key, votes: Sequence[Mapping[str, Mapping[str, str]]], question: str, category: str, ids: Sequence[str]
) -> Preference:
    counts = [0, 0]
    ties = 0
    for prompt_id in ids:
        for answer in (rater[prompt_id].get(question) for rater in votes if prompt_id in rater):
            if answer == "tie":
                ties += 1
            elif answer is not None:
                counts[key.left[prompt_id] if answer == "left" else 1 - key.left[prompt_id]] += 1
    return Preference(question, category, counts[0], ties, counts[1])


def votes_table(labels: tuple[str, str], preferences: Sequence[Preference]) -> str:
    """The counts as text, a line each, with their rates in percent."""
    rows = [("question", "category", "first", "tie", "second", "first preferred", "95% interval")]
    for row in preferences:
        low, high = row.interval
        rate = "-" if row.rate is None else f"{row.rate:.0%}"
        shown = "-" if row.rate is None else f"{low:.0%} to {high:.0%}"
        rows.append((row.question, row.category or "-", str(row.first), str(row.ties), str(row.second), rate, shown))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([f"first: {labels[0]}", f"second: {labels[1]}", "", *lines])
