"""Whether distances of the package's own feature network tell good sets of emoji from bad ones: docs/emoji_cnn.md.

python -m benchmarks.emoji_distances        half a minute on one core

Damages sets of 1,280 emoji in ways and steps and writes their distances to 1,280 others. Ends with exit code 1 if a
distance doesn't grow with every step of one damage.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import flags

from benchmarks import damage
from benchmarks.emoji_images import read_emoji
from imagen_jax import cli
from imagen_jax.evaluation.emoji_cnn import MMD_SIGMA, NAME, TAP, emoji_features, emoji_mmd
from imagen_jax.evaluation.frechet import frechet_distance
from imagen_jax.evaluation.kernel_distance import squared_distances
from imagen_jax.files import write_text

_DATA_DIR = flags.DEFINE_string("data_dir", "datasets", "Where data sets are built and looked for.")
_DOCS = flags.DEFINE_string("docs", "docs", "Folder of the report.")

# Ten times as many as a feature has numbers.
NUM_IMAGES = 1280
NUM_SPLITS = 10
METRICS = {f"fd_{NAME}": frechet_distance, f"mmd_{NAME}": emoji_mmd}
DAMAGES: dict[str, tuple[Callable[..., np.ndarray], Sequence[float]]] = {
    "blur, sigma in px": (damage.blurred, (0.5, 1.0, 2.0)),
    "noise, deviation of 255": (damage.noised, (8, 16, 32)),
    "shuffled squares, on a side": (damage.shuffled, (2, 4, 8)),
    "red and blue exchanged, share of the images": (damage.colours_swapped, (0.25, 0.5, 1.0)),
    "contrast lost, share left": (damage.faded, (0.9, 0.75, 0.5)),
    "JPEG, quality": (damage.compressed, (75, 50, 20)),
}
DISTINCT = (320, 80, 20)
# The largest group, and the shares of it that are left out.
THINNED, SHARES = "People & Body", (0.33, 0.67, 1.0)
# Each step leaves out one more. What is missing then has no one direction, so that no distance needs to grow.
GROUPS = ("Flags", "People & Body", "Animals & Nature")

_INTRODUCTION = """# What {name} sees

Written by `python -m benchmarks.emoji_distances`. `{name}` is the small network of
imagen_jax/evaluation/emoji_cnn.py, trained on emoji by benchmarks/emoji_cnn.py. Its numbers compare sets of emoji-like
pictures with each other, at equal numbers of images. They are no FID and compare with no published number.

`fd_{name}` is the Frechet distance, `mmd_{name}` 1000 times the squared maximum mean discrepancy with a
Gaussian kernel of sigma {sigma:g}. Each number is between {count:,} emoji and {count:,} others, damaged at 64 px.
*Null* is two undamaged sets: mean and deviation of {splits} random pairs. Damage grows to the right.
"""
_CLOSING = """
The network learnt to measure blur and noise; the other damages it never saw. Detail finer than 64 px, the size that all
images are brought to, it can't see. What is within a few deviations of the null says nothing. Of all variance of the
features {largest:.0%} is in one direction.

In the last row different groups go one after the other. No distance needs to grow there: of two sets that lack groups,
the farther one isn't always the one that lacks more.

It was trained on these emoji. Of those it never saw:
"""


class Row(NamedTuple):
    """Distances after each strength of one damage: metric -> as many as there are strengths."""

    damage: str
    strengths: Sequence[str]
    distances: dict[str, list[float]]


def main() -> int:
    """Measures and writes the page; 1 if a distance doesn't grow."""
    (images, records), (test_images, test_records) = (
        read_emoji(split, data_dir=_DATA_DIR.value) for split in ("train", "test")
    )
    extractor = emoji_features()

    def features_of(some: np.ndarray) -> np.ndarray:
        return np.concatenate([batch[TAP] for batch in extractor(some)])

    features, groups = features_of(images), np.array([record["group"] for record in records])
    order = np.random.default_rng(0).permutation(len(images))
    real, others = features[order[:NUM_IMAGES]], order[NUM_IMAGES:]
    rows = []
    for name, (function, strengths) in DAMAGES.items():
        damaged = [features_of(function(images[others[:NUM_IMAGES]], strength)) for strength in strengths]
        rows.append(_row(name, list(map(str, strengths)), real, damaged))
    copies = [np.resize(features[others[:count]], real.shape) for count in DISTINCT]
    rows.append(_row("few distinct images", list(map(str, DISTINCT)), real, copies))
    thinned, several = _missing(features, groups, others, real)
    rows.append(thinned)
    undamaged = _row("", [""], real, [features[others[:NUM_IMAGES]]])
    variances = np.linalg.eigvalsh(np.cov(features, rowvar=False))
    page = [
        _INTRODUCTION.format(name=NAME, sigma=MMD_SIGMA, count=NUM_IMAGES, splits=NUM_SPLITS),
        *_table([*rows, several], _nulls(features)),
        _CLOSING.format(largest=variances[-1] / variances.sum()),
        *_unseen(real, features[others], features_of(test_images)),
        "",
        _neighbours(features, records, features_of(test_images), test_records),
    ]
    path = Path(_DOCS.value) / "emoji_cnn.md"
    write_text(path, "\n".join(page) + "\n")
    print("\n".join(page))
    failed = [
        f"{metric}, {row.damage}"
        for row in rows
        for metric in METRICS
        if np.any(np.diff([*undamaged.distances[metric], *row.distances[metric]]) <= 0.0)
    ]
    print(
        f"{path}; "
        + (f"DOES NOT GROW: {'; '.join(failed)}" if failed else "distances grow with every step of one damage")
    )
    return 1 if failed else 0


def _missing(features: np.ndarray, groups: np.ndarray, others: np.ndarray, real: np.ndarray) -> tuple[Row, Row]:
    """Without more and more of one group, and without one group after the other."""

    def sets_without(gone: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [features[others[~np.isin(others, some)][:NUM_IMAGES]] for some in gone]

    # Shuffled again: those that go must not be the first of `others`, of which the first are taken.
    people = np.random.default_rng(1).permutation(others[groups[others] == THINNED])
    thinned = sets_without([people[: round(share * len(people))] for share in SHARES])
    whole = sets_without([others[np.isin(groups[others], GROUPS[:count])] for count in range(1, len(GROUPS) + 1)])
    steps = [GROUPS[0], *(f"and {name}" for name in GROUPS[1:])]
    return (
        _row(f"{THINNED} missing, share of them", list(map(str, SHARES)), real, thinned),
        _row("whole groups missing", steps, real, whole),
    )


def _row(name: str, strengths: Sequence[str], real: np.ndarray, sets: list[np.ndarray]) -> Row:
    return Row(name, strengths, {key: [metric(real, some) for some in sets] for key, metric in METRICS.items()})


def _nulls(features: np.ndarray) -> dict[str, list[float]]:
    """Distances between two undamaged sets."""
    found: dict[str, list[float]] = {name: [] for name in METRICS}
    for seed in range(NUM_SPLITS):
        a, b, *_ = np.split(np.random.default_rng(seed).permutation(len(features)), [NUM_IMAGES, 2 * NUM_IMAGES])
        for name, metric in METRICS.items():
            found[name].append(metric(features[a], features[b]))
    return found


def _table(rows: list[Row], nulls: dict[str, list[float]]) -> list[str]:
    null = " | ".join(f"{np.mean(values):.2f} ± {np.std(values):.2f}" for values in nulls.values())
    lines = [
        f"| damage | strengths | {' | '.join(METRICS)} |",
        "|---|---|" + "---|" * len(METRICS),
        f"| null | | {null} |",
    ]
    for row in rows:
        cells = (", ".join(f"{value:.1f}" for value in row.distances[name]) for name in METRICS)
        lines.append(f"| {row.damage} | {', '.join(row.strengths)} | {' | '.join(cells)} |")
    return lines


def _unseen(real: np.ndarray, others: np.ndarray, unseen: np.ndarray) -> list[str]:
    """A table of the distances of held-out emoji, and of as many that training saw."""
    lines = [f"| {len(unseen)} emoji | {' | '.join(METRICS)} |", "|---|" + "---|" * len(METRICS)]
    draws = [np.random.default_rng(seed).permutation(len(others))[: len(unseen)] for seed in range(NUM_SPLITS)]
    seen = {name: [metric(real, others[draw]) for draw in draws] for name, metric in METRICS.items()}
    cells = (f"{np.mean(values):.2f} ± {np.std(values):.2f}" for values in seen.values())
    lines.append(f"| seen in training | {' | '.join(cells)} |")
    lines.append(f"| never seen | {' | '.join(f'{metric(real, unseen):.2f}' for metric in METRICS.values())} |")
    return lines


def _neighbours(
    features: np.ndarray, records: list[dict[str, str]], unseen: np.ndarray, truth: list[dict[str, str]]
) -> str:
    nearest = [records[index] for index in np.argmin(squared_distances(unseen, features), axis=1)]
    group, style = (
        np.mean([a[key] == b[key] for a, b in zip(nearest, truth, strict=True)]) for key in ("group", "style")
    )
    return (
        f"The nearest training emoji of those never seen has the right Unicode group for {group:.0%}, and the right "
        f"style for {style:.0%}."
    )


if __name__ == "__main__":
    cli.run(main)
