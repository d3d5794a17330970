import json

from benchmarks import plans_report
from imagen_jax.planning.collectives import Collectives
from imagen_jax.planning.compiled import Compiled
from imagen_jax.planning.work import Work

WORK = Work(parameters=2_408_200_000, forward_flops=1_500_000_000_000, step_flops=0, batch_size=2048)


def row(strategy, compiled, topology="v4:8x8x4", **changes):
    # As it comes back from its file.
    return json.loads(
        json.dumps(
            {
                "config": "imagen_base64",
                "topology": topology,
                "strategy": strategy,
                "num_steps": 86400,  # at 0.25 s, a quarter of a day
                "work": WORK._replace(**changes)._asdict(),
                "compiled": compiled._asdict(),
            }
        )
    )


FITS = row("zero1", Compiled(9.0, 12.04, 21.04, 0.25, {"all-gather": Collectives(900, 9_600_000_000)}))
REFUSED = row("pmap", Compiled(total_gib=40.0, refusal="no room"), "v5e:16x16")


def test_a_row_has_what_the_compiler_said():
    text = plans_report.page([FITS])
    assert "## v4:8x8x4: 256 chips of 30.75 GiB" in text
    assert "| imagen_base64 | zero1 | 9.0 | 12.0 | 21.0 | 0.250 | 8192 | 52% | 0.2 | all-gather 9.6 |" in text


def test_what_does_not_fit_is_a_row_too():
    line = next(line for line in plans_report.page([FITS, REFUSED]).splitlines() if "| pmap |" in line)
    assert "40.0: does not fit" in line
    assert line.count("|") == len(plans_report._COLUMNS) + 1


def test_the_page_is_written_from_the_rows_there_are(tmp_path):
    (tmp_path / "plans").mkdir()
    (tmp_path / "plans" / "a.json").write_text(json.dumps(FITS))
    plans_report.write(tmp_path)
    assert "## v5e" not in (tmp_path / "plans.md").read_text()
    (tmp_path / "plans" / "b.json").write_text(json.dumps(REFUSED))
    plans_report.write(tmp_path)
    assert "## v5e" in (tmp_path / "plans.md").read_text()
