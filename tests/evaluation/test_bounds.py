from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imagen_jax.errors import InputError
from imagen_jax.evaluation.bounds import check_count, check_resamples
from imagen_jax.evaluation.frechet import frechet_distance
from imagen_jax.evaluation.inception_score import inception_score
from imagen_jax.evaluation.kernel_distance import kernel_distance
from imagen_jax.evaluation.precision_recall import precision_recall
from imagen_jax.evaluation.prompts.prompt_lists import draw_captions
from imagen_jax.evaluation.sweeps.sweep import Sweep
from imagen_jax.evaluation.uncertainty import bootstrap, mean_interval, null_distance

SOURCE: Any = None  # not looked at before the numbers are
A, B = (np.random.default_rng(seed).normal(size=(30, 3)) for seed in (0, 1))
NO_COUNTS = (-1, 2.0, 2.5, "3", None, True, [3], float("nan"))


def test_whole_numbers_of_any_type_pass_and_nothing_else():
    assert [check_count("n", value, least=1, most=5) for value in (1, 5, np.int64(3), np.uint8(2))] == [1, 5, 3, 2]
    for value in (0, 6, *NO_COUNTS):
        with pytest.raises(InputError, match=r"^n is .*; expected a whole number from 1 to 5$"):
            check_count("n", value, least=1, most=5)


def test_resamples_are_none_or_enough_for_an_interval():
    assert [check_resamples("n", value) for value in (0, 10, 100_000)] == [0, 10, 100_000]
    for value in (-5, 1, 9, 100_001, *NO_COUNTS):
        with pytest.raises(InputError, match="or 0 for no interval"):
            check_resamples("n", value)


@pytest.mark.parametrize(
    "call",
    [
        lambda n: bootstrap(frechet_distance, A, B, seed=0, num_resamples=n),
        lambda n: mean_interval(A[:, 0], kind="", seed=0, num_resamples=n),
        lambda n: kernel_distance(A, B, seed=0, num_subsets=n),
        lambda n: kernel_distance(A, B, seed=0, subset_size=n),
        lambda n: precision_recall(A, B, neighbours=n),
        lambda n: inception_score(A, seed=0, num_splits=n),
        lambda n: draw_captions(SOURCE, count=n, seed=0),
        lambda n: Sweep(Path("out"), [], [8], n, 1),
        lambda n: Sweep(Path("out"), [], [8], 1, n),
    ],
)
@pytest.mark.parametrize("value", [0, *NO_COUNTS])
def test_arguments_that_say_how_many_are_checked(call, value):
    with pytest.raises(InputError, match="expected a whole number"):
        call(value)


@pytest.mark.parametrize(
    "call",
    [
        lambda seed: bootstrap(frechet_distance, A, B, seed=seed),
        lambda seed: mean_interval(A[:, 0], kind="", seed=seed),
        lambda seed: null_distance(frechet_distance, A, seed=seed),
        lambda seed: kernel_distance(A, B, seed=seed),
        lambda seed: inception_score(A, seed=seed or -1),
        lambda seed: draw_captions(SOURCE, count=1, seed=seed),
    ],
)
@pytest.mark.parametrize("seed", NO_COUNTS)
def test_seeds_are_whole_numbers_from_0(call, seed):
    with pytest.raises(InputError, match=r"seed is .*; expected a whole number of at least 0"):
        call(seed)


@pytest.mark.parametrize("metric", [frechet_distance, partial(kernel_distance, seed=0)])
def test_one_feature_has_no_distance(metric):
    for pair in ((A, B[:1]), (A[:1], B), (A[:0], B)):
        with pytest.raises(InputError, match="number of features in"):
            metric(*pair)


@pytest.mark.parametrize("level", [0.0, 1.0, -1.0, float("nan")])
def test_an_interval_s_level_is_a_share(level):
    with pytest.raises(InputError, match="level"):
        bootstrap(frechet_distance, A, B, seed=0, level=level)
