"""What a config leaves open until its data set is there: how long the run is, what follows from that, and its prompts.

train.num_epochs       passes over the data set, in place of train.num_steps; 0: train.num_steps is what counts.
optimizer.decay_steps  -1: the decay of the learning rate ends with the run, however long that is.
optimizer.warmup_steps with that decay, the warm-up takes at most half of the run.
prompts                ("auto",): captions of the data set.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import logging

FOLLOW = -1  # of optimizer.decay_steps: train.num_steps
AUTO_PROMPTS = ("auto",)
# Chosen by us: two rows of a grid, which a glance takes in.
NUM_AUTO_PROMPTS = 8


def resolve(config: Any, *, captions: Sequence[str] | None = None) -> Any:
    """Returns a copy of `config` with numbers and captions in the place of what stands for them.

    A resolved config is its own resolved config.

    Args:
      config: of a run.
      captions: of its data set, one for each example; None before it is opened. The config's own num_steps then stands
        for a number that isn't known yet, and prompts stay as they are.
    """
    config = config.copy_and_resolve_references()
    _resolve_steps(config, num_examples=None if captions is None else len(captions))
    if captions is not None and tuple(config.prompts) == AUTO_PROMPTS:
        config.prompts = draw_distinct(captions, NUM_AUTO_PROMPTS, seed=config.seed)
    return config


def draw_distinct(captions: Sequence[str], count: int, *, seed: int) -> tuple[str, ...]:
    """Draws `count` captions of a data set, no two of them equal; all of them, where there are fewer."""
    drawn: dict[str, None] = {}
    for index in np.random.default_rng(seed).permutation(len(captions)):
        drawn[captions[int(index)]] = None
        if len(drawn) == count:
            break
    return tuple(drawn)


def _resolve_steps(config: Any, *, num_examples: int | None) -> None:
    num_epochs = config.train.num_epochs
    num_steps, batch_size = config.train.num_steps, config.data.batch_size
    if num_epochs and num_examples:
        num_steps = config.train.num_steps = math.ceil(num_epochs * num_examples / batch_size)
        logging.info("%g epochs of %d examples, %d a batch: %d steps", num_epochs, num_examples, batch_size, num_steps)
    optimizer = config.optimizer
    if optimizer.decay_steps != FOLLOW:
        return
    optimizer.decay_steps = num_steps
    if optimizer.warmup_steps > num_steps // 2:
        if num_examples:  # once: the checks of a config before its data is there come here as well
            logging.info(
                "config.optimizer.warmup_steps = %d is more than half of %d steps; the warm-up takes %d",
                optimizer.warmup_steps, num_steps, num_steps // 2,
            )  # fmt: skip
        optimizer.warmup_steps = num_steps // 2
