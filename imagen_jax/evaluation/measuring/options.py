"""Which metrics are computed, and with what; an option that none of them uses is an error and not ignored."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import logging

from imagen_jax import hosts
from imagen_jax.errors import InputError
from imagen_jax.evaluation.base import Metric
from imagen_jax.evaluation.bounds import check_resamples
from imagen_jax.evaluation.metrics import BOOTSTRAPPED, Inputs, left_for_request, make_metrics, needs_of, possible


@dataclasses.dataclass(frozen=True, kw_only=True)
class MetricOptions:
    """What a user says of metrics; None where nothing is said. The names are those of the command's flags.

    Attributes:
      metrics: names of `METRICS`; None: all that can be computed, but for what is left for request.
      inception_weights: a file of Inception's weights; resize: one of `FLAVOURS`.
      clip: a folder with a CLIP; clip_formula: one of `FORMULAS`.
      bootstrap: resamples for intervals, 0 for none.
      seed: of halves, subsets and resamples.
      reference: what was given as real images.
      training: what was given as images to search.

    Raises:
      InputError: no metric, an unknown one, one twice, or a number of resamples out of bounds.
    """

    metrics: Sequence[str] | None = None
    inception_weights: Path | None = None
    resize: str | None = None
    clip: Path | None = None
    clip_formula: str | None = None
    bootstrap: int | None = None
    seed: int = 0
    reference: str | None = None
    training: str | None = None

    def __post_init__(self) -> None:
        if self.bootstrap is not None:
            check_resamples("--bootstrap", self.bootstrap)
        if self.metrics is None:
            return
        names = [name.strip() for name in self.metrics]
        given = f"--metrics={','.join(names)}"
        if not any(names):
            raise InputError(f"{given} names no metric; leave it out for all that can be computed")
        if "" in names:
            raise InputError(f"{given}: a name is empty; expected names separated by single commas")
        for name in names:
            needs_of(name)
        if twice := [name for name in names if names.count(name) > 1]:
            raise InputError(f"{given}: {twice[0]} is there {names.count(twice[0])} times; expected each once")
        object.__setattr__(self, "metrics", tuple(names))

    def inputs(self) -> dict[str, Any]:
        """What of this `Inputs` takes, as keyword arguments."""
        return {
            "inception_weights": self.inception_weights,
            "resize": self.resize,
            "clip": self.clip,
            "clip_formula": self.clip_formula or "cosine",
            "num_resamples": self.bootstrap,
            "seed": self.seed,
        }


def choose_metrics(options: MetricOptions, inputs: Inputs) -> list[Metric]:
    """Makes the metrics that are asked for or can be computed; the log says what could be but isn't. All hosts call it.

    Raises:
      InputError: an option that no metric uses, no metric, or see `make_metrics`.
    """
    if options.metrics is None:
        names = possible(inputs)
        for reason, left in left_for_request(inputs).items():
            logging.info("left out: %s, since %s; --metrics=%s asks for it", " and ".join(left), reason, left[0])
    else:
        names = list(options.metrics)
    check_used(options, names)
    if not names:
        raise InputError(
            "there is nothing to measure: give --reference with --inception_weights or --clip, or name what needs "
            "neither, such as --metrics=fd_emojicnn for emoji-like pictures"
        )
    hosts.check_equal({"metrics": names})
    metrics = make_metrics(names, inputs)
    hosts.check_equal({"what metrics are made of": [dict(metric.made_of) for metric in metrics]})
    return metrics


def check_used(options: MetricOptions, names: Sequence[str]) -> None:
    """Raises InputError for an option that none of these metrics uses; the message says what would use it."""
    needs = {need for name in names for need in needs_of(name)}
    bootstrapped = [name for name in names if name in BOOTSTRAPPED]
    of = f"none of the metrics ({', '.join(names)})" if names else "no metric that can be computed"
    statistics = options.reference is not None and options.reference.endswith(".npz")
    compares = (
        "an .npz of statistics is for fid, with --inception_weights"
        if statistics
        else "fid and kid need --inception_weights, cmmd --clip, and fd_emojicnn only --metrics=fd_emojicnn"
    )
    # Option -> what was given, whether it is used, and what would use it.
    table: Mapping[str, tuple[Any, bool, str]] = {
        "reference": (options.reference, "reference" in needs, compares),
        "inception_weights": (
            options.inception_weights,
            "inception" in needs,
            "fid, kid, precision_recall and inception_score do",
        ),
        "resize": (options.resize, "inception" in needs, "it is for metrics of --inception_weights"),
        "clip": (options.clip, "clip" in needs, "cmmd does, with --reference, and clip_score, with prompts"),
        "clip_formula": (options.clip_formula, "clip_score" in names, "it is for clip_score, with --clip and prompts"),
        "bootstrap": (options.bootstrap, bool(bootstrapped), f"it is for {', '.join(BOOTSTRAPPED)}, against images"),
        "training": (options.training, "search" in needs, "names and memorisation do"),
    }
    for name, (given, used, who) in table.items():
        if given is not None and not used:
            raise InputError(f"--{name}={given} has no effect: {of} uses it; {who}. Give that, or leave it out")
