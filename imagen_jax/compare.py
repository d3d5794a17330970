"""Compares two runs of the same prompts by raters who don't know which is which.

python -m imagen_jax.compare --runs=A,B --out=DIR [--seed=1]
python -m imagen_jax.compare --votes=votes.json[,...] --out=DIR

The first writes a page: open DIR/page/index.html, or give raters the folder DIR/page, and not DIR/key.json, which says
which run is on which side. The second counts the votes.json files that the page lets raters download.
"""

from pathlib import Path

from absl import flags

from imagen_jax import cli
from imagen_jax.errors import InputError
from imagen_jax.evaluation.pages.comparison import KEY_FILE, read_key, read_votes, write_comparison
from imagen_jax.evaluation.pages.run_folder import check_same_prompts, image_paths, read_run
from imagen_jax.evaluation.pages.votes import count_votes, votes_table

_RUNS = flags.DEFINE_list("runs", None, "Folders of two runs, separated by a comma.")
_VOTES = flags.DEFINE_list("votes", None, "Files of votes, one a rater, separated by commas.")
_OUT = flags.DEFINE_string("out", None, "The comparison's folder, to write or to count for.", required=True)
_SEED = flags.DEFINE_integer("seed", 0, "Of which run is on which side.", lower_bound=0)


def main() -> None:
    """Writes the page, or prints the counts."""
    out, runs, votes = Path(_OUT.value), _RUNS.value or [], _VOTES.value or []
    if bool(runs) == bool(votes):
        raise InputError("give --runs=A,B to write a page, or --votes=FILE to count what was said on it, one of them")
    if votes:
        _count([Path(name) for name in votes], out)
    else:
        _write([Path(name) for name in runs], out)


def _count(files: list[Path], out: Path) -> None:
    key = read_key(out)
    votes = [read_votes(path, key) for path in files]
    print(votes_table(key.labels, count_votes(key, votes)))


def _write(folders: list[Path], out: Path) -> None:
    if len(folders) != 2:
        raise InputError(f"--runs={','.join(map(str, folders))}: expected two folders separated by a comma")
    a, b = (read_run(folder) for folder in folders)
    check_same_prompts(a, b)
    labels = [a.title, b.title]
    if a.title == b.title:
        labels = [f"{a.title} ({folder})" for folder in folders]
    images = [image_paths(folder, run) for folder, run in zip(folders, (a, b), strict=True)]
    page = write_comparison(out, a.prompts, list(zip(labels, images, strict=True)), seed=_SEED.value)
    print(f"{len(a.prompts)} prompts: open {page}; {out / KEY_FILE} is not for raters")


if __name__ == "__main__":
    cli.run(main)
