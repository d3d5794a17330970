import io
import sys

import numpy as np
import pytest

from imagen_jax.evaluation import statistics
from imagen_jax.evaluation.statistics import (
    Moments,
    from_words,
    gather_float64,
    merge,
    merge_over_processes,
    moments_of,
    stream_moments,
    to_words,
)
from launch.processes import host_environments, run_processes

RNG = np.random.default_rng(0)


def features(count=300, dim=7):
    # Far from zero, where the textbook sum of squares loses its digits.
    return RNG.normal(size=(count, dim)) @ RNG.normal(size=(dim, dim)) + 1e4


def assert_same(found, expected):
    assert found.count == expected.count
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-14)
    np.testing.assert_allclose(found.m2, expected.m2, rtol=0, atol=1e-12 * np.abs(expected.m2).max())


@pytest.mark.parametrize("sizes", [[300], [1, 299], [100, 0, 200], [7] * 42 + [6]], ids=len)
def test_streamed_batches_have_numpys_mean_and_covariance(sizes):
    x = features()
    found = stream_moments(np.split(x, np.cumsum(sizes)[:-1]))
    assert found.count == 300
    np.testing.assert_allclose(found.mean, x.mean(0), rtol=1e-14)
    expected = np.cov(x, rowvar=False)
    np.testing.assert_allclose(found.covariance, expected, rtol=0, atol=1e-12 * np.abs(expected).max())


def test_batches_in_any_order_and_grouping_are_one_set():
    parts = [moments_of(part) for part in np.split(features(), 4)]
    a, b, c, d = parts
    assert_same(merge(merge(d, b), merge(a, c)), merge(merge(merge(a, b), c), d))


def test_float32_features_are_summed_in_float64():
    x = features().astype(np.float32)
    np.testing.assert_array_equal(moments_of(x).m2, moments_of(x.astype(np.float64)).m2)


def test_one_feature_has_no_covariance():
    assert np.isnan(moments_of(np.ones((1, 3))).covariance).all()


def test_every_bit_of_a_float64_survives_as_words():
    x = np.array([[1.0, 1.0 + 2**-52, -0.0], [np.pi, 5e-324, 1e308]])
    assert to_words(x).dtype == np.uint32
    np.testing.assert_array_equal(from_words(to_words(x)).view(np.uint64), x.view(np.uint64))


def test_one_process_gathers_its_own_array_exactly():
    x = features(4)
    np.testing.assert_array_equal(gather_float64(x), x[None])
    assert_same(merge_over_processes(moments_of(x)), moments_of(x))


@pytest.mark.parametrize("gather_bytes", [1, 500, 2**28])
def test_processes_merge_to_the_moments_of_all_features(monkeypatch, gather_bytes):
    x = features()
    nothing = Moments(0, np.zeros(7), np.zeros((7, 7)))
    held = [moments_of(x[:10]), nothing, moments_of(x[10:])]
    monkeypatch.setattr(statistics.jax, "process_count", lambda: 3)
    monkeypatch.setattr(statistics, "_GATHER_BYTES", gather_bytes)
    calls = iter(
        [np.array([[float(m.count)] for m in held]), np.stack([m.mean for m in held])]
        + [np.stack([m.m2[i : i + n] for m in held]) for n in [max(1, gather_bytes // 168)] for i in range(0, 7, n)]
    )
    monkeypatch.setattr(statistics, "gather_float64", lambda array: next(calls))
    assert_same(merge_over_processes(held[0]), moments_of(x))


HOST = """
import os, jax, numpy as np
place = [os.environ["IMAGEN_" + name] for name in ("COORDINATOR", "NUM_PROCESSES", "PROCESS_ID")]
jax.distributed.initialize(place[0], *map(int, place[1:]))
from imagen_jax.evaluation import statistics
x = np.random.default_rng(0).normal(size=(300, 7))
mine = np.split(x, [100])[jax.process_index()]
assert np.array_equal(statistics.gather_float64(mine[:50])[jax.process_index()], mine[:50])
found, expected = statistics.merge_over_processes(statistics.moments_of(mine)), statistics.moments_of(x)
assert found.count == 300
np.testing.assert_allclose(found.m2, expected.m2, rtol=0, atol=1e-12 * np.abs(expected.m2).max())
print("sum", found.m2.sum().hex(), flush=True)
"""


def test_two_hosts_have_the_same_bits_and_the_moments_of_all():
    out = io.StringIO()
    code = run_processes([sys.executable, "-Wignore", "-c", HOST], host_environments(2, 1), out=out)
    sums = [line.split("sum ")[1] for line in out.getvalue().splitlines() if "sum " in line]
    assert code == 0, out.getvalue()
    assert len(sums) == 2 and len(set(sums)) == 1
