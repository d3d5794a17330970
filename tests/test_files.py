import pytest

from imagen_jax.errors import InputError
from imagen_jax.files import read_json, write_json, write_text


def test_what_is_written_is_read_and_nothing_is_left_beside_it(tmp_path):
    path = tmp_path / "new" / "a.json"
    write_json(path, {"b": 1, "a": "ä"})
    write_json(path, {"b": 2, "a": "ä"})
    assert read_json(path, expected="numbers") == {"a": "ä", "b": 2}
    assert [file.name for file in path.parent.iterdir()] == ["a.json"]


@pytest.mark.parametrize(
    ("text", "message"), [(None, "is missing"), ('{"a": ', "is damaged"), ("[1]", "holds no JSON object")]
)
def test_a_fault_names_the_file_and_what_was_expected(tmp_path, text, message):
    path = tmp_path / "a.json"
    if text is not None:
        write_text(path, text)
    with pytest.raises(InputError, match=rf"a\.json\" {message}.*; expected a run"):
        read_json(path, expected="a run")
