import jax
import numpy as np
import pytest

from imagen_jax.errors import InputError
from imagen_jax.training.selection import select, union
from imagen_jax.training.state import parameter_table

PARAMS = {
    "down_0": {"attention_0": {"q": {"kernel": np.ones((2, 3))}}, "block_0": {"kernel": np.ones((4, 4))}},
    "conv_out": {"bias": np.zeros(3)},
}


@pytest.mark.parametrize(
    ("patterns", "chosen"),
    [
        (["*"], ["conv_out/bias", "down_0/attention_0/q/kernel", "down_0/block_0/kernel"]),
        (["*attention*"], ["down_0/attention_0/q/kernel"]),
        (["conv_out/bias", "*block_[0-9]/*"], ["conv_out/bias", "down_0/block_0/kernel"]),
    ],
)
def test_patterns_fit_whole_paths_and_both_parts_make_the_whole(patterns, chosen):
    some, others = select(PARAMS, patterns)
    paths = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in jax.tree.leaves_with_path(some)]
    assert sorted(paths) == chosen
    assert len(jax.tree.leaves(some)) + len(jax.tree.leaves(others)) == 3
    jax.tree.map(np.testing.assert_array_equal, union(some, others), PARAMS)


@pytest.mark.parametrize(
    ("pattern", "nearest"),
    [("*atention*", "down_0/attention_0/q/kernel"), ("conv_ot", "conv_out/bias"), ("down_0", "down_0/block_0/kernel")],
)
def test_a_pattern_that_fits_nothing_names_the_nearest_paths(pattern, nearest):
    with pytest.raises(InputError, match=f"no parameter's path fits .*nearest of 3 paths: {nearest}"):
        select(PARAMS, ["*kernel", pattern])


def test_the_table_says_what_is_frozen():
    lines = parameter_table(*select(PARAMS, ["*kernel"])).splitlines()
    assert lines[0].split() == ["conv_out/bias", "3", "3", "frozen"]
    assert lines[1].split() == ["down_0/attention_0/q/kernel", "2x3", "6"]
    assert [line.split() for line in lines[-3:]] == [["total", "25"], ["trained", "22"], ["frozen", "3"]]
    assert "frozen" not in parameter_table(PARAMS, {})
