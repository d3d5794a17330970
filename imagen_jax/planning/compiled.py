"""What the TPU compiler says of a training step: memory, time and collectives on a slice that isn't there."""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from imagen_jax.planning.collectives import Collectives, count_collectives
from imagen_jax.planning.topology import Topology, abstract_devices, compiler_environment
from imagen_jax.training import parallel
from imagen_jax.training.state import TrainState
from imagen_jax.types import Params

# The least effort: minutes to most of an hour for a network of the paper's size, by how busy the machine is.
COMPILER_OPTIONS: Mapping[str, Any] = {"exec_time_optimization_effort": -1.0, "memory_fitting_effort": -1.0}

_GIB = 2**30
_CUSTOM_CALL = re.compile(r"\bcustom-call\(")
_NEEDED = re.compile(r"([\d.]+)([KMGT])\) exceeds available HBM|Used ([\d.]+)([KMGT]) of [\d.]+[KMGT] hbm")
_UNITS = {"K": 2**-20, "M": 2**-10, "G": 1.0, "T": 2.0**10}


class Compiled(NamedTuple):
    """A training step as compiled for a chip of a slice. GiB are a chip's.

    Attributes:
      state_gib: what lies there from step to step: the state, and a batch.
      temporaries_gib: what a step takes besides, at its worst moment: activations, gradients.
      total_gib: of both; where the compiler refused the program, what it said that it needs.
      seconds: the compiler's estimate of a step's time.
      collectives: what a chip sends and receives in a step, by kind.
      refusal: "" or, where the program doesn't fit, what the compiler said. Then only total_gib is known.
    """

    state_gib: float = 0.0
    temporaries_gib: float = 0.0
    total_gib: float = 0.0
    seconds: float = 0.0
    collectives: Mapping[str, Collectives] = {}
    refusal: str = ""

    def fits(self, budget_gib: float) -> bool:
        """Whether a chip with so much memory holds it."""
        return not self.refusal and self.total_gib <= budget_gib


def compile_step(
    strategy: str,
    train_step: parallel.TrainStep,
    topology: Topology,
    state: TrainState,
    frozen: Params,
    batch: Mapping[str, Any],
) -> Compiled:
    """Compiles the program that a training runs; minutes for a network of the paper's size.

    Args:
      strategy, train_step: see `parallel.parallelise`.
      topology: the slice.
      state, frozen: shapes.
      batch: shapes [B,...], B of all chips together.

    Raises:
      InputError: an unknown strategy, no TPU compiler, or no such slice.
    """
    devices = abstract_devices(topology)
    run = parallel.parallelise(strategy, train_step, devices, state, frozen)
    if run.device_axis:
        batch = {name: _divided(shape, len(devices)) for name, shape in batch.items()}
    step: Any = run.step
    key = jax.eval_shape(lambda: jax.random.key(0))
    return compile_lowered(step.lower(state, frozen, batch, key))


def compile_lowered(lowered: Any) -> Compiled:
    """Compiles `jax.jit(...).lower(...)` for devices of `topology.abstract_devices`."""
    try:
        with compiler_environment():
            return _measures(lowered.compile(compiler_options=dict(COMPILER_OPTIONS)))
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return Compiled(total_gib=_needed_gib(str(error)), refusal=str(error).splitlines()[0])


def _divided(shape: jax.ShapeDtypeStruct, count: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((count, shape.shape[0] // count, *shape.shape[1:]), shape.dtype)


def _measures(compiled: Any) -> Compiled:
    memory, program = compiled.memory_analysis(), compiled.as_text()
    # What is donated is both argument and output.
    state = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    temporaries = memory.temp_size_in_bytes + memory.generated_code_size_in_bytes
    return Compiled(
        state_gib=state / _GIB,
        temporaries_gib=temporaries / _GIB,
        total_gib=(state + temporaries) / _GIB,
        # XLA's HloCostAnalysis says -1 s for a custom call, whose time it doesn't know. Those here only put parts of an
        # array side by side.
        seconds=compiled.cost_analysis()["optimal_seconds"] + len(_CUSTOM_CALL.findall(program)),
        collectives=count_collectives(program),
    )


def _needed_gib(refusal: str) -> float:
    """What a program needs that the compiler refused; infinity where it doesn't say."""
    found = _NEEDED.search(refusal)
    if not found:
        return float("inf")
    number, unit = [group for group in found.groups() if group]
    return float(number) * _UNITS[unit]


def largest_batch(needs: Callable[[int], float], *, budget: float, start: int = 8, most_calls: int = 6) -> int:
    """The largest number of images a chip whose step needs no more than `budget`, 0 where one image is too many.

    What a step needs is near to a line in the number of images, so that each guess is where the line through the two
    nearest known points meets the budget.

    Args:
      needs: images a chip -> memory in any unit; growing. Each call compiles, so that there are few: the answer is the
        largest found to fit within `most_calls`, and the search is seldom cut short.
      budget: in the same unit.
      start: the first guess.
    """
    known: dict[int, float] = {}
    guess = max(1, start)
    while guess not in known and len(known) < most_calls:
        known[guess] = needs(guess)
        fitting = max((batch for batch, need in known.items() if need <= budget), default=0)
        too_large = min((batch for batch, need in known.items() if need > budget), default=2 * fitting + 1)
        guess = min(max(_crossing(known, budget), fitting + 1), too_large - 1)
        if too_large == fitting + 1 or guess == 0:
            break
    return max((batch for batch, need in known.items() if need <= budget), default=0)


def _crossing(known: Mapping[int, float], budget: float) -> int:
    """The batch that needs the budget, by the line through the two points nearest to it."""
    nearest = sorted(known, key=lambda batch: abs(known[batch] - budget))[:2]
    if len(nearest) == 1 or not all(math.isfinite(known[batch]) for batch in nearest):
        return nearest[0] // 2 if known[nearest[0]] > budget else 2 * nearest[0]
    a, b = nearest
    slope = (known[b] - known[a]) / (b - a)
    return int(a + (budget - known[a]) / slope) if slope > 0 else a
