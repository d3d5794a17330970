"""Compares two runs of the same prompts by raters who don't know which is which.

python -m imagen_jax.compare --runs=A,B --out=DIR [--seed=1]
python -m imagen_jax.compare --votes=votes.json[,...] --out=DIR

The first writes a page: open DIR/page/index.html, or give raters the folder DIR/page, and not DIR/key.json, which says
which run is on which side. A run is a folder that imagen_jax.sample wrote, a sweep of one point by imagen_jax.evaluate,
or one of its points, SWEEP/points/NAME. The second counts the votes.json files that the page lets raters download: of
each rater one.
"""

from pathlib import Path

from absl import flags

from imagen_jax import cli, shared_flags
from imagen_jax.errors import InputError
from imagen_jax.evaluation.output_folders import open_run, with_ids_of
from imagen_jax.evaluation.pages.comparison import KEY_FILE, check_folder, read_key, write_comparison
from imagen_jax.evaluation.pages.run_folder import check_same_prompts
from imagen_jax.evaluation.pages.vote_files import once_each, read_votes
from imagen_jax.evaluation.pages.votes import count_votes, votes_table
from imagen_jax.files import user_path
from imagen_jax.terminal import say

_RUNS = flags.DEFINE_list("runs", None, "Folders of two runs, separated by a comma: of sample, a sweep, or its point.")
_VOTES = flags.DEFINE_list("votes", None, "Files of votes, one of each rater, separated by commas.")
_OUT = shared_flags.define_path("out", None, "The comparison's folder, to write or to count for.", required=True)
_SEED = flags.DEFINE_integer(
    "seed", 0, "Draws which run is on which side of each prompt.", lower_bound=0, upper_bound=2**32 - 1
)


def main() -> None:
    """Writes the page, or prints the counts."""
    out, runs, votes = _OUT.value, _RUNS.value or [], _VOTES.value or []
    if bool(runs) == bool(votes):
        raise InputError("give --runs=A,B to write a page, or --votes=FILE to count what was said on it, one of them")
    if votes and _SEED.present:
        raise InputError("--seed is for --runs, and votes are counted by the sides that were drawn; leave it out")
    paths = [user_path(name) for name in runs or votes]
    if votes:
        _count(paths, out)
    else:
        _write(paths, out)


def _count(files: list[Path], out: Path) -> None:
    key = read_key(out)
    votes, left_out = once_each([read_votes(path, key) for path in files])
    print(votes_table(key.labels, count_votes(key, [each.answers for each in votes])))
    print("\n".join([f"raters: {len(votes)}", *(f"note: {text}" for text in left_out)]))


def _write(folders: list[Path], out: Path) -> None:
    if len(folders) != 2:
        raise InputError(f"--runs={','.join(map(str, folders))}: expected two folders separated by a comma")
    check_folder(out)
    (a, images_a), (b, images_b) = (open_run(folder) for folder in folders)
    a, b = with_ids_of(a, b), with_ids_of(b, a)
    check_same_prompts(a, b)
    labels = [a.title, b.title]
    if a.title == b.title:
        labels = [f"{a.title} ({folder})" for folder in folders]
    page = write_comparison(out, a.prompts, list(zip(labels, (images_a, images_b), strict=True)), seed=_SEED.value)
    say(f"{len(a.prompts)} prompts: open {page}; {out / KEY_FILE} is not for raters")


if __name__ == "__main__":
    cli.run(main)
