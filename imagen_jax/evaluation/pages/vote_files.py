"""The votes.json files that raters download from a comparison's page: read, and counted once for each rater."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from imagen_jax.errors import InputError
from imagen_jax.evaluation.pages.comparison import QUESTIONS, Key
from imagen_jax.files import read_json
from imagen_jax.json_values import WrongValue, get_text, shown


@dataclasses.dataclass(frozen=True)
class RaterVotes:
    """What one file of votes holds.

    Attributes:
      path: the file.
      answers: {prompt's id: {question: "left", "right" or "tie"}}.
      rater: an id that the page drew at random for the rater; "" in files of pages that had none.
      time: when it was downloaded, in milliseconds since 1970; 0 where that is unknown.
    """

    path: Path
    answers: Mapping[str, Mapping[str, str]]
    rater: str = ""
    time: float = 0.0


def read_votes(path: Path, key: Key) -> RaterVotes:
    """Reads the votes that a rater downloaded from the page.

    Raises:
      InputError: missing, damaged, or of another comparison.
    """
    content: dict[str, Any] = read_json(path, expected="the votes.json that a comparison's page gives")
    if content.get("comparison") != key.comparison:
        raise InputError(
            f'"{path}" has votes of comparison {shown(content.get("comparison"))}, and the key is of '
            f"{shown(key.comparison)}; name the folder whose page they were given on"
        )
    votes, time = content.get("votes"), content.get("time", 0)
    try:
        rater = get_text(content, "rater") if "rater" in content else ""
        usable = isinstance(votes, dict) and all(_is_vote(key, *item) for item in votes.items())
        if not usable or isinstance(time, bool) or not isinstance(time, int | float) or not 0 <= time < 1e16:
            raise WrongValue(f"votes or time, {shown(time)}")
    except WrongValue:
        raise InputError(f'"{path}" has votes that the page doesn\'t give; download them again') from None
    return RaterVotes(path, votes or {}, rater[:100], float(time))


def once_each(files: Sequence[RaterVotes]) -> tuple[list[RaterVotes], list[str]]:
    """Keeps one file of each rater, in the order in which they are given.

    Of two different files of one rater the later counts, by its time, and where that is the same the one given last.
    Files without a rater's id are of one rater if they say the same.

    Returns:
      What counts, and a sentence for each file that doesn't.
    """
    kept: dict[str, RaterVotes] = {}
    said = []
    for votes in files:
        rater = (
            votes.rater or f"without an id, {sorted((key, *sorted(of.items())) for key, of in votes.answers.items())}"
        )
        before = kept.get(rater)
        if before is None:
            kept[rater] = votes
        elif before.answers == votes.answers:
            said.append(f"{votes.path} has the same votes of the same rater as {before.path}, and counts once")
        else:
            first, later = (before, votes) if votes.time >= before.time else (votes, before)
            kept[rater] = later
            said.append(f"{first.path} is an earlier file of the rater of {later.path}, which counts in its place")
    return list(kept.values()), said


def _is_vote(key: Key, prompt_id: str, answers: Any) -> bool:
    return (
        prompt_id in key.left
        and isinstance(answers, dict)
        and set(answers) <= set(QUESTIONS)
        and all(answer in ("left", "right", "tie") for answer in answers.values())
    )
