import json

import pytest

from imagen_jax.json_values import WrongValue, get_list, get_number, get_object, get_text, shown

RECORD = {"text": "a", "half": "\ud800", "number": 3, "yes": True, "list": [1], "empty": [], "object": {}}


def test_values_of_the_right_type_are_returned():
    assert (get_text(RECORD, "text"), get_number(RECORD, "number", least=3, most=3)) == ("a", 3)
    assert (get_list(RECORD, "list"), get_object(RECORD, "object")) == ([1], {})


@pytest.mark.parametrize(
    ("get", "wrong"),
    [
        (get_text, ("half", "number", "list", "yes")),
        (lambda record, key: get_number(record, key, least=0, most=2), ("number", "yes", "text")),
        (get_list, ("empty", "object", "text")),
        (get_object, ("list", "text")),
    ],
)
def test_other_values_and_missing_ones_are_named(get, wrong):
    for key in wrong:
        with pytest.raises(WrongValue, match=f"^{key} is .*; expected"):
            get(RECORD, key)
    with pytest.raises(WrongValue, match=r"^absent is missing"):
        get(RECORD, "absent")
    for record in (None, [], "text", 3):
        with pytest.raises(WrongValue, match="in place of an object with text"):
            get(record, "text")


def test_whatever_a_value_is_it_is_shown_in_a_few_words():
    deep = json.loads("[" * 900 + "]" * 900)
    for value in (deep, "x" * 10**6, list(range(10**5)), {"a": deep, "b": "y" * 10**5}, 10**4000, b"z" * 10**5):
        assert len(shown(value)) < 600
    assert (shown("a"), shown(None), shown([1, "b"])) == ("'a'", "None", "[1, 'b']")
