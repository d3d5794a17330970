"""`python -m imagen_jax.compare` as a user runs it."""

import json

from imagen_jax.errors import EXIT_BAD_INPUT
from imagen_jax.evaluation.pages.comparison import read_key
from tests.evaluation.runs import prompt_list, write_images
from tests.evaluation.test_output_folders import write_samples
from tests.mains import run


def test_two_runs_become_a_page_and_votes_a_table(tmp_path):
    for seed, name in enumerate(("a", "b")):
        write_images(tmp_path / name, "one title", seed=seed)
    out = tmp_path / "out"
    text = run("compare", f"--runs={tmp_path}/a,{tmp_path}/b", f"--out={out}")
    assert text.startswith(f"6 prompts: open {out}/page/index.html")
    key = read_key(out)
    assert key.labels == tuple(f"one title ({tmp_path}/{name})" for name in ("a", "b"))
    # The first rater likes what is on the left, the second run a.
    answers = [{"1": "left", "2": "left"}, {n: ("left", "right")[key.left[n]] for n in ("1", "2", "3")}]
    files = []
    for number, given in enumerate(answers):
        votes = {prompt_id: {"fidelity": side} for prompt_id, side in given.items()}
        files.append(tmp_path / f"{number}.json")
        files[-1].write_text(json.dumps({"comparison": key.comparison, "votes": votes}))
    text = run("compare", f"--votes={files[0]},{files[1]},{files[0]}", f"--out={out}")
    assert "raters: 2" in text and f"note: {files[0]} has the same votes of the same rater as {files[0]}" in text
    second = key.left["1"] + key.left["2"]
    (line,) = [line.split() for line in text.splitlines() if line.startswith("fidelity") and " all " in line]
    assert line[2:5] == [str(5 - second), "0", str(second)]


def test_what_sample_wrote_is_compared_with_a_sweep_of_one_point(tmp_path):
    write_samples(tmp_path / "samples", ("x", "y"))
    prompts = prompt_list(("x", "y"), ("Colors", "Text"))
    write_images(tmp_path / "sweep" / "points" / "default", "swept", prompts=prompts, per_prompt=1)
    (tmp_path / "sweep" / "sweep.json").write_text("{}")
    out = tmp_path / "out"
    run("compare", f"--runs={tmp_path}/samples,{tmp_path}/sweep", f"--out={out}")
    key = read_key(out)
    assert key.labels == ("samples", "swept")
    assert key.categories == {"1": "Colors", "2": "Text"}


def test_mistakes_are_one_line(tmp_path):
    write_images(tmp_path / "a", "first")
    write_images(tmp_path / "b", "second", prompts=prompt_list(("x",), ("",)))
    out = f"--out={tmp_path}/out"
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").touch()
    for flags, message in (
        (
            [f"--out={tmp_path}/notes", f"--runs={tmp_path}/a,{tmp_path}/a"],
            "something else than a comparison",
        ),
        ([out], "error: give --runs=A,B to write a page, or --votes=FILE"),
        ([out, f"--runs={tmp_path}/a,{tmp_path}/b"], 'different prompts: "first" has 6 (drawbench), "second" 1'),
    ):
        text = run("compare", *flags, expect=EXIT_BAD_INPUT)
        assert message in text
        assert len(text.splitlines()) == 1
    assert not (tmp_path / "out").exists()
