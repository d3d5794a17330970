from typing import NamedTuple

import jax
import jax.numpy as jnp
import pytest

from imagen_jax.planning import compiled
from imagen_jax.planning.compiled import Compiled, compile_step, largest_batch
from imagen_jax.planning.topology import has_compiler, parse_topology
from imagen_jax.training import parallel
from tests.training import tiny

# As libtpu 0.0.52 says it.
REFUSAL = (
    "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory required for HLO "
    "temporaries (1.31T) exceeds available HBM (30.75G). HLO module: jit_step.\nSee https://openxla.org/"
)


class Memory(NamedTuple):
    """Of a program whose state of 2 GiB is donated, with a batch of 1 GiB and metrics of 0.5."""

    argument_size_in_bytes: float = 3 * 2**30
    output_size_in_bytes: float = 2.5 * 2**30
    alias_size_in_bytes: float = 2 * 2**30
    temp_size_in_bytes: float = 4 * 2**30
    generated_code_size_in_bytes: float = 0


class Program:
    """What `jax.stages.Lowered.compile` gives."""

    def memory_analysis(self):
        return Memory()

    def cost_analysis(self):
        return {"optimal_seconds": 0.25 - 2}

    def as_text(self):
        return "%a = f32[2] custom-call(%x)\n%b = f32[2] custom-call(%a)\n%c = f32[2] all-reduce(%b)\n"


def test_what_is_donated_counts_once_and_custom_calls_take_no_time():
    measured = compiled._measures(Program())
    assert (measured.state_gib, measured.temporaries_gib, measured.total_gib) == (3.5, 4.0, 7.5)
    assert measured.seconds == 0.25
    assert measured.collectives == {"all-reduce": (1, 8)}
    assert measured.fits(7.5)
    assert not measured.fits(7.4)


def test_the_memory_that_a_refusal_names_is_found():
    assert compiled._needed_gib(REFUSAL) == 1.31 * 1024
    assert compiled._needed_gib("RESOURCE_EXHAUSTED: ... Used 33.50G of 30.75G hbm. Exceeded by 2.75G") == 33.5
    assert compiled._needed_gib("RESOURCE_EXHAUSTED: no number") == float("inf")


def test_what_was_refused_fits_nowhere():
    assert not Compiled(total_gib=8.0, refusal="too large").fits(16.0)


class Chip:
    """Needs offset + slope * images, and as the compiler does not quite; counts how often it was asked."""

    def __init__(self, offset, slope, bend=0.0):
        self.offset, self.slope, self.bend, self.calls = offset, slope, bend, 0

    def __call__(self, images):
        self.calls += 1
        assert images > 0
        return self.offset + self.slope * images + self.bend * images**2


@pytest.mark.parametrize("start", [1, 8, 64])
@pytest.mark.parametrize(("offset", "slope"), [(16.1, 1.4), (0.5, 0.3), (10.0, 0.01), (30.0, 0.7), (0.0, 30.75)])
def test_the_largest_batch_fits_and_one_image_more_does_not(offset, slope, start):
    needs = Chip(offset, slope)
    largest = largest_batch(needs, budget=30.75, start=start, most_calls=20)
    assert needs(largest) <= 30.75 < needs(largest + 1)


def test_a_line_takes_few_compilations():
    needs = Chip(16.1, 1.4)
    assert largest_batch(needs, budget=30.75) == 10
    assert needs.calls <= 4


@pytest.mark.parametrize("bend", [0.02, -0.005])
def test_a_bent_line_is_followed(bend):
    needs = Chip(5.0, 1.0, bend)
    largest = largest_batch(needs, budget=30.75, most_calls=20)
    assert needs(largest) <= 30.75 < needs(largest + 1)


def test_where_one_image_is_too_many_there_is_none():
    assert largest_batch(Chip(40.0, 1.0), budget=30.75) == 0
    assert largest_batch(lambda images: float("inf"), budget=30.75) == 0


def test_an_answer_was_compiled_even_if_the_search_is_cut_short():
    needs = Chip(16.1, 0.001)
    largest = largest_batch(needs, budget=30.75, start=1, most_calls=3)
    assert needs.calls == 3
    assert needs(largest) <= 30.75


@pytest.mark.skipif(not has_compiler(), reason="no libtpu")
@pytest.mark.parametrize("strategy", ["pmap", "fsdp"])
def test_the_compiler_says_what_a_step_takes(strategy):
    shapes = jax.eval_shape(lambda: tiny.state())
    batch = {name: jax.ShapeDtypeStruct(value.shape, value.dtype) for name, value in tiny.batch().items()}
    measured = compile_step(strategy, tiny.step(), parse_topology("v5e:2x2"), shapes, {}, batch)
    assert measured.fits(15.75)
    assert 0 < measured.seconds < 0.1
    assert measured.collectives["all-reduce"].num_bytes > 0


@pytest.mark.skipif(not has_compiler(), reason="no libtpu")
def test_fsdp_gathers_kernels_in_the_type_they_are_used_in(monkeypatch):
    # Here rather than in test_parallel: a CPU's compiler sends everything in float32.
    monkeypatch.setattr(parallel, "_SMALL", 1 + tiny.state().params["conv_out"]["kernel"].size)
    shapes = jax.eval_shape(lambda: tiny.state())
    batch = {name: jax.ShapeDtypeStruct(value.shape, value.dtype) for name, value in tiny.batch().items()}
    gathered = {}
    for dtype in (jnp.float32, jnp.bfloat16):
        step = tiny.step(task=tiny.task(tiny.MODEL.clone(dtype=dtype)), compute_dtype=dtype)
        measured = compile_step("fsdp", step, parse_topology("v5e:2x2"), shapes, {}, batch)
        gathered[dtype] = measured.collectives["all-gather"].num_bytes
    assert 0.45 < gathered[jnp.bfloat16] / gathered[jnp.float32] < 0.55
