import jax

from imagen_jax.planning.collectives import Collectives
from imagen_jax.planning.compiled import Compiled
from imagen_jax.planning.topology import parse_topology
from imagen_jax.planning.work import Work, count_work, describe_compiled, describe_work, what_would_fit
from imagen_jax.training.selection import select
from imagen_jax.training.state import count_parameters
from tests.training import tiny

BASE = Work(parameters=2_408_200_000, forward_flops=1_500_000_000_000, step_flops=6_000_000_000_000, batch_size=2048)
V4 = parse_topology("v4:8x8x4")
# Half of what the useful operations of BASE ask for at peak.
COMPILED = Compiled(
    state_gib=16.0, temporaries_gib=11.5, total_gib=27.5, seconds=2 * 2048 * 4.5e12 / (256 * 275e12),
    collectives={"all-reduce": Collectives(2, 9_600_000_000)},
)  # fmt: skip


def test_work_is_counted_for_one_image_whatever_the_batch():
    params = tiny.state().params
    some, others = select(params, ["*bias"])
    works = []
    for size in (8, 16):
        batch = {name: jax.ShapeDtypeStruct(array.shape, array.dtype) for name, array in tiny.batch(size=size).items()}
        works.append(count_work(tiny.task(), params, {}, batch))
    assert works[0]._replace(batch_size=16) == works[1]
    assert works[0].parameters == count_parameters(params)
    assert 2.5 < works[0].step_flops / works[0].forward_flops < 3.2
    # What is frozen needs no gradients of its own.
    partly = count_work(tiny.task(trainable=["*bias"]), some, others, batch)
    assert (partly.parameters, partly.frozen) == (works[0].parameters, count_parameters(others))
    assert partly.forward_flops == works[0].forward_flops
    assert 1.8 < partly.step_flops / partly.forward_flops < 2.3
    assert partly.useful_flops == partly.step_flops


def test_the_work_is_described_with_its_floor():
    text = describe_work(BASE, V4)
    for line in ("v4:8x8x4, 256 chips, each 275 TFLOP/s", "2048 images, 8 a chip", "2408.2M", "1.500 TFLOP", "0.131 s"):
        assert line in text
    assert "6.000 TFLOP, 4.00 forwards" in text


def test_share_of_peak_leaves_out_what_remat_repeats():
    text = describe_compiled("pmap", COMPILED, BASE, V4, budget_gib=30.75, num_steps=2_500_000)
    assert "pmap            27.50 of 30.75 GiB a chip, 2048 images a step: fits" in text
    assert "share of peak   50%" in text
    assert "2 all-reduce (9.60 GB)" in text
    assert "2500000 steps   7.6 days" in text


def test_a_smaller_budget_than_the_chip_s_is_kept():
    assert "does not fit" in describe_compiled("pmap", COMPILED, BASE, V4, budget_gib=20.0, num_steps=1)


def test_a_refusal_is_shown_as_the_compiler_gave_it():
    text = describe_compiled("pmap", Compiled(40.0, refusal="no room"), BASE, V4, budget_gib=30.75, num_steps=1)
    assert "does not fit" in text
    assert "the compiler    no room" in text


def test_what_would_fit_is_what_was_not_tried():
    text = what_would_fit(["pmap"], per_chip=8, accumulate_steps=1, remat=False)
    for hint in (
        "--strategy=zero1",
        "--strategy=fsdp",
        "accumulate_steps=2",
        "remat=True",
        "smaller config.data.batch",
    ):
        assert hint in text
    text = what_would_fit(["pmap", "zero1", "fsdp"], per_chip=1, accumulate_steps=1, remat=True)
    assert text == "what would take less: more chips, or chips with more memory"
