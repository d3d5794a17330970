"""Kernel distances, Inception Score, precision and recall, and what is said about their uncertainty."""

import itertools

import numpy as np
import pytest

from imagen_jax.errors import InputError
from imagen_jax.evaluation import kernel_distance as kernels
from imagen_jax.evaluation import precision_recall as manifolds
from imagen_jax.evaluation.frechet import frechet_distance
from imagen_jax.evaluation.inception_score import inception_score
from imagen_jax.evaluation.kernel_distance import cmmd, gaussian_mmd2, kernel_distance, polynomial_mmd2
from imagen_jax.evaluation.precision_recall import precision_recall
from imagen_jax.evaluation.uncertainty import bootstrap, caveats, null_distance

RNG = np.random.default_rng(0)
A, B = RNG.normal(size=(50, 6)), RNG.normal(size=(40, 6)) + 0.5


def test_kid_is_its_definition():
    def kernel(x, y):
        return (np.dot(x, y) / 6 + 1) ** 3

    within = [np.mean([kernel(x, y) for x, y in itertools.permutations(s, 2)]) for s in (A, B)]
    between = np.mean([kernel(x, y) for x in A for y in B])
    assert polynomial_mmd2(A, B) == pytest.approx(sum(within) - 2 * between, rel=1e-9)


def test_kid_of_small_sets_is_of_all_of_them_and_of_larger_ones_averaged_over_subsets():
    whole = kernel_distance(A, A[:50] + 1.0, seed=0)
    assert whole.subset_size == 50 and whole.num_subsets == 1 and whole.deviation == 0.0
    parts = kernel_distance(A, B, seed=0, subset_size=20, num_subsets=400)
    assert parts.subset_size == 20 and parts.deviation > 0
    assert parts.mean == pytest.approx(polynomial_mmd2(A, B), abs=5 * parts.deviation / np.sqrt(400))
    assert parts == kernel_distance(A, B, seed=0, subset_size=20, num_subsets=400)
    assert parts != kernel_distance(A, B, seed=1, subset_size=20, num_subsets=400)
    assert kernel_distance(A, B, seed=0).subset_size == 40


def test_kid_has_no_bias():
    # Two sets of one distribution: zero on average, at any size.
    found = [polynomial_mmd2(RNG.normal(size=(10, 3)), RNG.normal(size=(10, 3))) for _ in range(2000)]
    assert abs(np.mean(found)) < 4 * np.std(found) / np.sqrt(2000)


@pytest.mark.parametrize("block", [7, 1024])
def test_the_gaussian_kernels_distance_is_its_definition_in_blocks_of_any_size(monkeypatch, block):
    monkeypatch.setattr(kernels, "_BLOCK", block)

    def mean(x, y):
        return np.exp(-np.sum((x[:, None] - y[None]) ** 2, axis=-1) / (2 * 1.5**2)).mean()

    expected = mean(A, A) + mean(B, B) - 2 * mean(A, B)
    assert gaussian_mmd2(A, B, sigma=1.5) == pytest.approx(expected, rel=1e-9)
    assert gaussian_mmd2(A, A, sigma=1.5) == pytest.approx(0, abs=1e-12)


def test_cmmd_sees_directions_only():
    assert cmmd(A, 3.0 * B) == pytest.approx(cmmd(A, B), rel=1e-9)
    # Two points at distance sqrt(2): 1000 * (1 + 1 - 2 exp(-2 / 200)).
    x, y = np.array([[5.0, 0.0]]), np.array([[0.0, 0.1]])
    assert cmmd(x, y) == pytest.approx(2000 * (1 - np.exp(-0.01)), rel=1e-9)


def test_the_inception_score_of_sure_and_of_unsure_classifiers_is_the_closed_form():
    # Every part of ten images sees each of five classes twice, all but certainly: the score is 5.
    sure = 1000.0 * np.eye(5)[np.arange(100) % 5]
    assert inception_score(sure, seed=None) == pytest.approx((5.0, 0.0), rel=1e-9)
    assert inception_score(np.zeros((100, 5)), seed=0) == pytest.approx((1.0, 0.0), rel=1e-9)
    # Sorted by class a part sees one class only; shuffled parts see more.
    assert inception_score(np.sort(np.arange(100) % 5)[:, None] == np.arange(5), seed=None)[0] < 1.1
    assert inception_score(sure[np.argsort(np.arange(100) % 5)], seed=0)[0] > 3


def test_the_inception_score_ignores_what_a_softmax_ignores():
    logits = RNG.normal(size=(57, 11))
    shifted = logits + RNG.normal(size=(57, 1))
    assert inception_score(logits, seed=3) == pytest.approx(inception_score(shifted, seed=3), rel=1e-9)
    with pytest.raises(InputError, match="9 images"):
        inception_score(logits[:9], seed=0)


def test_precision_and_recall_of_identical_and_of_distant_sets():
    assert precision_recall(A, RNG.permutation(A)) == (1.0, 1.0)
    assert precision_recall(A, A + 100.0) == (0.0, 0.0)
    # Samples that are a part of what is real: nothing wrong, much missing.
    precision, recall = precision_recall(A, A[np.argsort(A[:, 0])][:10])
    assert precision == 1.0 and recall < 0.7


@pytest.mark.parametrize("block", [3, 7, 1024])
def test_precision_and_recall_are_their_definition_in_blocks_of_any_size(monkeypatch, block):
    monkeypatch.setattr(manifolds, "_BLOCK", block)

    def inside(points, centres):
        radii = np.sort(np.linalg.norm(centres[:, None] - centres[None], axis=-1), axis=1)[:, 3]
        return np.mean(np.any(np.linalg.norm(points[:, None] - centres[None], axis=-1) <= radii[None], axis=1))

    assert precision_recall(A, B) == (inside(B, A), inside(A, B))
    assert 0 < inside(B, A) < 1


def test_without_enough_neighbours_there_is_no_manifold():
    precision_recall(A[:4], B[:4])
    with pytest.raises(InputError, match="3 neighbours"):
        precision_recall(A[:3], B)


def test_a_bootstrap_interval_holds_the_value_and_shrinks_with_the_number_of_images():
    sets = [[RNG.normal(size=(n, 2)), RNG.normal(size=(n, 2)) + 1.0] for n in (50, 800)]
    few, many = (bootstrap(frechet_distance, *pair, seed=0) for pair in sets)
    for interval, pair in zip((few, many), sets, strict=True):
        assert interval.low < interval.value < interval.high
        assert interval.value == frechet_distance(*pair)
        assert interval.deviation == pytest.approx((interval.high - interval.low) / 3.92, rel=0.3)
    assert few.deviation == pytest.approx(4 * many.deviation, rel=0.5)
    assert few == bootstrap(frechet_distance, *sets[0], seed=0) != bootstrap(frechet_distance, *sets[0], seed=1)


def test_the_null_is_between_halves_without_a_common_image():
    seen = []
    null_distance(lambda a, b: float(len(seen.append((a, b)) or [])), np.arange(11.0)[:, None], seed=0)
    a, b = seen[0]
    assert len(a) == len(b) == 5 and not set(a[:, 0]) & set(b[:, 0])
    real = RNG.normal(size=(400, 3))
    assert null_distance(frechet_distance, real, seed=0) < frechet_distance(real[:200], real[200:] + 0.5)
    with pytest.raises(InputError, match="halves"):
        null_distance(frechet_distance, real[:3], seed=0)


def test_what_makes_a_number_of_little_use_is_said():
    assert caveats(count_a=5000, count_b=5000, dim=2048) == []
    assert "singular" in caveats(count_a=2048, count_b=2048, dim=2048)[0]
    assert "5000 images against 2000" in caveats(count_a=5000, count_b=2000, dim=64)[0]
    assert "unknown" in caveats(count_a=None, count_b=5000, dim=2048)[0]
