from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imagen_jax.errors import InputError
from imagen_jax.evaluation.base import Samples, measure
from imagen_jax.evaluation.image_sets import ArrayImages
from imagen_jax.evaluation.metrics import Inputs, left_for_request, make_metrics, possible
from imagen_jax.evaluation.reference import Reference

RNG = np.random.default_rng(0)
SEARCH: Any = range(5000)  # as many images, which are not read before a metric is made
REAL, FAKE = (ArrayImages(RNG.integers(0, 256, (12, 8, 8, 3)).astype(np.uint8)) for _ in range(2))


def test_only_what_has_all_it_needs_is_possible(tmp_path):
    (tmp_path / "real.npz").write_bytes(b"only its name and hash matter here")
    statistics = Reference(tmp_path / "real.npz")
    assert possible(Inputs(num_samples=12)) == []
    emoji = Inputs(num_samples=12, reference=Reference(REAL), emoji=True)
    assert possible(emoji) == ["fd_emojicnn", "mmd_emojicnn"] and left_for_request(emoji) == {}
    assert possible(Inputs(num_samples=12, reference=statistics)) == []
    with_weights = Inputs(num_samples=12, reference=statistics, inception_weights=Path("w"))
    assert possible(with_weights) == ["fid", "inception_score"]
    named = Inputs(num_samples=12, search=SEARCH, names=True, stages=True)
    assert possible(named) == ["names", "memorisation", "consistency"]
    assert possible(Inputs(num_samples=12, clip=Path("clip"), prompts=True, reference=Reference(REAL)))[:2] == [
        "cmmd",
        "clip_score",
    ]


def test_features_of_emoji_are_for_emoji_unless_asked_for():
    photographs = Inputs(num_samples=12, reference=Reference(REAL))
    assert possible(photographs) == []
    ((reason, names),) = left_for_request(photographs).items()
    assert "compare emoji" in reason and names == ["fd_emojicnn", "mmd_emojicnn"]
    assert len(make_metrics(["fd_emojicnn"], photographs)) == 1


def test_a_large_training_set_is_searched_on_request_only():
    large: Any = range(5001)
    asked = Inputs(num_samples=12, search=large, names=True, stages=True)
    assert possible(asked) == ["consistency"]
    assert left_for_request(asked) == {"all 5,001 training images would be read for them": ["names", "memorisation"]}
    assert left_for_request(Inputs(num_samples=12, search=SEARCH, names=True)) == {}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fid", "fid needs --reference and --inception_weights"),
        ("clip_score", "needs the samples' prompts and --clip"),
        ("names", "a data set whose records have names and the training images"),
        ("consistency", "a cascade of several stages"),
        ("precision_recall", "needs --reference and --inception_weights and four samples"),
        ("fdd", 'unknown metric "fdd"'),
    ],
)
def test_a_metric_says_what_it_lacks(name, message):
    with pytest.raises(InputError, match=message):
        make_metrics([name], Inputs(num_samples=3))


def test_metrics_of_one_network_are_made_together():
    metrics = make_metrics(
        ["fd_emojicnn", "corners", "mmd_emojicnn"], Inputs(num_samples=12, reference=Reference(REAL))
    )
    assert len(metrics) == 2
    found = measure(metrics, Samples({8: FAKE}))
    assert set(found) == {"fd_emojicnn_v1", "mmd_emojicnn_v1", "corner_deviation_8"}
    assert all(found[name].null is not None for name in ("fd_emojicnn_v1", "mmd_emojicnn_v1"))
    assert not any(metric.alignment for metric in metrics)
