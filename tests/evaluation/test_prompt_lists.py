import dataclasses

import pytest

from imagen_jax.errors import InputError
from imagen_jax.evaluation.prompts.prompt_lists import PromptList, read_drawbench, read_parti

DRAWBENCH = (
    'Prompts,Category\nA red car.,Colors\n"A sign, that says ""Hi"".",Text\n"two\nlines",Text\nTür\N{SNOWMAN},Reddit\n'
)


def write(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_drawbench_s_csv_with_quotes_byte_order_mark_and_any_line_ends(tmp_path, encoding, newline):
    prompts = read_drawbench(write(tmp_path / "a.csv", DRAWBENCH.replace("\n", newline), encoding))
    assert prompts.prompts == ("A red car.", 'A sign, that says "Hi".', f"two{newline}lines", "Tür\N{SNOWMAN}")
    assert prompts.categories == ("Colors", "Text", "Text", "Reddit")
    assert prompts.ids == ("1", "2", "3", "4")
    assert prompts.by_category() == {"Colors": [0], "Text": [1, 2], "Reddit": [3]}


def test_further_columns_their_order_and_rows_left_empty_below_change_nothing(tmp_path):
    plain = read_drawbench(write(tmp_path / "a.csv", "Prompts,Category\na,x\nb,\nc,\n"))
    other = read_drawbench(write(tmp_path / "b.csv", "Category,n,Prompts\nx,1,a\n,2,b\n,3,c\n\n,,\n,,\n"))
    assert plain == other
    assert plain.categories == ("x", "", "")


def test_parti_s_tsv_keeps_quotation_marks(tmp_path):
    text = 'Prompt\tCategory\tChallenge\tNote\nbond\tAbstract\tBasic\tno "note\n"Hi" on a wall\tArts\tComplex\t\n'
    prompts = read_parti(write(tmp_path / "p.tsv", text))
    assert prompts.prompts == ("bond", '"Hi" on a wall')
    assert prompts.categories == ("Abstract", "Arts")


@pytest.mark.parametrize(
    ("text", "encoding", "message"),
    [
        ("Prompt,Category\na,b\n", "utf-8", "no column Prompts; its first row is Prompt, Category; expected Prompts"),
        ("a prompt\n", "utf-8", "no column Prompts and Category; its first row is a prompt"),
        ("", "utf-8", "first row is empty"),
        ("Prompts,Category\n", "utf-8", "no rows"),
        ("Prompts,Category\n,\n", "utf-8", "no rows"),
        ("Prompts,Category\na,x\n ,x\nb,x\n", "utf-8", "line 3: no Prompts; write a prompt"),
        ("Prompts,Category\na,x\n\nb,x\n", "utf-8", "line 3: no Prompts"),
        ("Prompts,Category\na,x\nb, c,x\n", "utf-8", r"line 3: 3 fields, and the columns are 2 .*quotation marks"),
        ('Prompts,Category\n"two\nlines",x\n"a\n\nb",x\nc\n', "utf-8", "line 7: 1 fields, and the columns are 2"),
        ("Prompts;Category\na;x\n", "utf-8", "separated by semicolons; expected commas"),
        ("Prompts\tCategory\na\tx\n", "utf-8", "separated by tabs; expected commas"),
        ("Prompts,Category,Prompts\na,x,b\n", "utf-8", "the column Prompts 2 times"),
        ("Prompts,Category\na,x\n", "utf-16", "is UTF-16; save it as UTF-8"),
        ("Prompts,Category\na,x\n", "utf-16-le", "is binary, or UTF-16, at byte 1"),
        ("Prompts,Category\nTür,x\n", "latin-1", r"not UTF-8 \(byte 18\)"),
        ('Prompts,Category\n"a,x\n', "utf-8", "no table that can be read"),
    ],
)
def test_a_file_that_is_something_else_is_one_clear_error(tmp_path, text, encoding, message):
    with pytest.raises(InputError, match=message):
        read_drawbench(write(tmp_path / "a.csv", text, encoding))


def test_parti_s_rows_have_as_many_fields_as_columns(tmp_path):
    for row in ("a\tb", "a\tb\tc\td\te"):
        path = write(tmp_path / "p.tsv", f"Prompt\tCategory\tChallenge\tNote\nbond\tA\tB\t\n{row}\n")
        with pytest.raises(InputError, match=r"line 3: \d fields, and the columns are 4 .*a tab in a prompt"):
            read_parti(path)


def test_halves_of_characters_are_no_prompt():
    with pytest.raises(InputError, match="id 2 is no valid Unicode"):
        PromptList("a", ("x", "\ud800"), ("", ""), ("1", "2"))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r'no file ".*p\.tsv"; expected .* Prompt and Category'):
        read_parti(tmp_path / "p.tsv")


def test_the_hash_is_of_ids_and_prompts_in_order():
    one = PromptList("a", ("x", "y"), ("", ""), ("1", "2"))
    same = [dataclasses.replace(one, name="b"), dataclasses.replace(one, categories=("c", "d"))]
    others = [
        dataclasses.replace(one, prompts=("y", "x")),
        dataclasses.replace(one, ids=("1", "3")),
        PromptList("a", ("y", "x"), ("", ""), ("2", "1")),
        PromptList("a", ("x",), ("",), ("1",)),
    ]
    assert {other.sha256 for other in same} == {one.sha256}
    assert len({one.sha256, *(other.sha256 for other in others)}) == 5


@pytest.mark.parametrize(("prompts", "ids"), [((), ()), (("x",), ("1", "2")), (("x", "y"), ("1", "1"))])
def test_a_list_has_one_id_a_prompt(prompts, ids):
    with pytest.raises(InputError, match="as many of each"):
        PromptList("a", prompts, ("",) * len(prompts), ids)
