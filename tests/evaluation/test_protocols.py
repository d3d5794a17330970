import dataclasses

import pytest

from imagen_jax.errors import InputError
from imagen_jax.evaluation.prompts.protocols import PROTOCOLS
from tests.evaluation.test_coco import coco, write


def test_the_paper_s_numbers():
    coco30k, coco10k = PROTOCOLS["coco30k"], PROTOCOLS["coco10k"]
    assert (coco30k.num_prompts, coco30k.samples_per_prompt, coco30k.guidance) == (30_000, 1, ((1.35, 8.0),))
    assert coco10k.num_prompts == 10_000
    assert len(set(coco10k.guidance)) == 13 + 9
    assert {base for base, sr in coco10k.guidance if sr == 8} >= {1.25, 10}
    assert {PROTOCOLS[name].samples_per_prompt for name in ("drawbench", "parti")} == {8}


def test_each_protocol_reads_its_own_file(tmp_path):
    annotations = write(tmp_path / "captions.json", coco())
    (tmp_path / "d.csv").write_text("Prompts,Category\na,b\n")
    (tmp_path / "p.tsv").write_text("Prompt\tCategory\na\tb\n")
    few = dataclasses.replace(PROTOCOLS["coco30k"], num_prompts=12)
    read = few.read_prompts(coco_annotations=annotations, reading="images", seed=1)
    assert (read.name, len(read)) == ("coco12-images", 12)
    assert PROTOCOLS["drawbench"].read_prompts(prompts_file=tmp_path / "d.csv").name == "drawbench"
    assert PROTOCOLS["parti"].read_prompts(prompts_file=tmp_path / "p.tsv").name == "parti"


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_protocol_says_which_file_it_needs(name, tmp_path):
    needs, other = "coco_annotations", "prompts_file"
    if not name.startswith("coco"):
        needs, other = other, needs
    for given in ({}, {other: tmp_path}, {needs: tmp_path, other: tmp_path}):
        with pytest.raises(
            InputError, match=f"--protocol={name} takes its prompts from --{needs}=FILE, and no --{other}"
        ):
            PROTOCOLS[name].read_prompts(**given)
