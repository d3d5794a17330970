"""The table of a config's fields is whole, and any value in any field is either used or one clear error."""

import inspect
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ml_collections import ConfigDict

from imagen_jax import build
from imagen_jax.config import base_config, to_json, validate
from imagen_jax.config_fields import FIELDS, as_markdown, model_fields
from imagen_jax.errors import InputError
from imagen_jax.fields import Field
from imagen_jax.models import MODELS
from tests.tiny_config import get_config

PAGE = Path(__file__).parents[1] / "docs" / "config.md"
NETWORKS = {"unet": "base", "efficient_unet": "sr1"}


def leaves(config: ConfigDict, prefix: str = "") -> set[str]:
    found: set[str] = set()
    for key, value in config.items():
        found |= leaves(value, f"{prefix}{key}.") if isinstance(value, ConfigDict) else {f"{prefix}{key}"}
    return found


def test_every_field_of_a_config_is_in_the_table_and_no_other():
    assert leaves(base_config()) | {"model.name"} == set(FIELDS)


@pytest.mark.parametrize("network", MODELS)
def test_every_attribute_of_a_network_is_in_its_table_and_no_other(network: str):
    attributes = set(inspect.signature(MODELS[network]).parameters) - {"parent", "name", "dtype"}
    assert {path.removeprefix("model.") for path in model_fields(network)} == attributes


def defaults() -> dict[str, object]:
    values: dict[str, object] = {}
    for path in leaves(base_config()):
        node: Any = base_config()
        for part in path.split("."):
            node = node[part]
        values[path] = node
    for network, table in MODELS.items():
        for path in model_fields(network):
            values[f"{network}:{path}"] = inspect.signature(table).parameters[path.removeprefix("model.")].default
    return values


def write_page() -> None:
    PAGE.write_text(as_markdown(defaults()), encoding="utf-8")


def test_the_page_is_what_the_table_says():
    assert PAGE.read_text("utf-8") == as_markdown(defaults()), "see the page's first lines"


def test_every_default_is_within_its_bounds():
    for path, value in defaults().items():
        network, _, field = path.rpartition(":")
        (model_fields(network) if network else FIELDS)[field].check(path, value)


@pytest.mark.parametrize("path", FIELDS)
def test_bounds_are_kept(path: str):
    field = FIELDS[path]
    if field.kind not in (int, float) or field.length:
        return
    for bound, name, step in ((field.lower, "lower", -1), (field.upper, "upper", 1)):
        if field.excluded not in (name, "both"):
            field.check(path, field.kind(bound))
        if field.kind(bound + step) != field.also:
            with pytest.raises(InputError, match="must be a"):
                field.check(path, field.kind(bound + step))


def test_every_number_has_bounds_and_every_field_a_sentence():
    for path, field in [*FIELDS.items(), *model_fields("unet").items(), *model_fields("efficient_unet").items()]:
        assert field.help.endswith(".") and len(field.help) > 10, path
        if field.kind in (int, float):
            assert math.isfinite(field.lower) and math.isfinite(field.upper), path


# Times on a shared machine say nothing.
QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
# Of one field at a time in the tiny configs, whose network is only looked at.
ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([0, -1, 1, 2, 3, 7, 8, 16, 10**9, 10**30, -(2**63)]),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["\0", "\ud800", "a\nb", "~", "~nobody/x", "folder/~/x", "x" * 9999, 10**5000]),
    st.sampled_from([np.int64(3), np.float32(0.5), np.bool_(True), np.zeros(3), Path("x"), 1j, object(), {1}]),
    st.binary(max_size=4),
    st.lists(st.one_of(st.integers(-2, 9), st.floats(), st.text(max_size=3), st.booleans(), st.none()), max_size=4),
    st.tuples(st.floats(0, 1), st.floats(0, 1)),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


def within(field: Field) -> st.SearchStrategy[Any]:
    """Values of the field's own type, most of them within its bounds."""
    if field.kind is bool:
        one: st.SearchStrategy[Any] = st.booleans()
    elif field.kind is str:
        one = st.sampled_from(["none", "cross", "joint", "x", "v", "eps", "adamw", "ddim", "fsdp", "karras", "~/a", ""])
    elif field.kind is int:
        one = st.integers(int(field.lower), min(int(field.upper), int(field.lower) + 70))
    else:
        one = st.floats(field.lower, field.upper)
    return one if field.length is None else st.lists(one, max_size=4).map(tuple)


@pytest.mark.parametrize("network", NETWORKS)
def test_any_value_in_any_field_is_used_or_is_one_error_that_names_it(network: str):
    fields = {**FIELDS, **model_fields(network)}

    @settings(max_examples=250, deadline=None, database=None, derandomize=True, suppress_health_check=QUIET)
    @given(st.data())
    def try_one(data: st.DataObject) -> None:
        path = data.draw(st.sampled_from(sorted(fields)))
        value = data.draw(st.one_of(ANYTHING, within(fields[path])))
        config = get_config(NETWORKS[network])
        tree = {name: node.to_dict() if isinstance(node, ConfigDict) else node for name, node in config.items()}
        node = tree[path.split(".")[0]] if "." in path else tree
        node[path.split(".")[-1]] = value
        changed: Any = ConfigDict(tree)
        message = ""
        try:
            validate(changed, num_devices=1)
            to_json(changed)
            build.check(changed)
        except InputError as error:
            message = str(error)
        if message:
            # The field, or for a relation between fields the other one that it names too.
            assert path.split(".")[-1] in message or "config." in message, (path, value, message)
            assert "\n" not in message and len(message) < 1000
        elif path.startswith(("model.", "data.")):
            build.shapes(changed, text_width=8)

    try_one()
