"""A training on a TPU slice in numbers and in words: what follows from shapes, and from what the compiler says."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from imagen_jax.models.flops import count_flops
from imagen_jax.planning.compiled import Compiled
from imagen_jax.planning.topology import Topology
from imagen_jax.training.parallel import STRATEGIES
from imagen_jax.training.state import count_parameters
from imagen_jax.training.tasks import Task
from imagen_jax.types import Params

_SECONDS_A_DAY = 86400


class Work(NamedTuple):
    """What a step has to do, by shapes alone. FLOPs are of one image; a multiply-add is two.

    Attributes:
      parameters: of the network, frozen ones included.
      forward_flops: of the loss.
      step_flops: of the loss and its gradient, with what remat computes again.
      batch_size: images a step, of all chips.
      frozen: how many of the parameters are frozen.
    """

    parameters: int
    forward_flops: int
    step_flops: int
    batch_size: int
    frozen: int = 0

    @property
    def useful_flops(self) -> int:
        """Of forward and backward: three times forward (docs/networks.md), whatever is computed again.

        Where parameters are frozen it is at most what is computed, as they need no gradients of their own.
        """
        return min(3 * self.forward_flops, self.step_flops) if self.frozen else 3 * self.forward_flops

    def seconds_at_peak(self, topology: Topology) -> float:
        """A step's time if the chips did nothing but the useful operations, each at its peak."""
        return self.batch_size * self.useful_flops / (topology.num_chips * topology.chip.peak_flops)


def count_work(task: Task, trainable: Params, frozen: Params, batch: dict[str, Any]) -> Work:
    """Counts by tracing; parameters and batch are shapes."""
    one = {name: jax.ShapeDtypeStruct((1, *shape.shape[1:]), shape.dtype) for name, shape in batch.items()}
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 1))
    t = jax.ShapeDtypeStruct((1,), jnp.float32)

    def mean_loss(trainable: Params, frozen: Params, batch: Any, keys: jax.Array, t: jax.Array) -> jax.Array:
        return jnp.mean(task.loss(trainable, frozen, batch, keys, t))

    return Work(
        parameters=count_parameters(trainable) + count_parameters(frozen),
        forward_flops=count_flops(mean_loss, trainable, frozen, one, keys, t),
        step_flops=count_flops(jax.value_and_grad(mean_loss), trainable, frozen, one, keys, t),
        batch_size=batch["image"].shape[0],
        frozen=count_parameters(frozen),
    )


def describe_work(work: Work, topology: Topology) -> str:
    """The lines on what follows from shapes."""
    per_chip = work.batch_size // topology.num_chips
    return _lines(
        ("slice", f"{topology.name}, {topology.num_chips} chips, each {topology.chip.peak_flops / 1e12:g} TFLOP/s"),
        ("batch", f"{work.batch_size} images, {per_chip} a chip"),
        ("parameters", f"{work.parameters / 1e6:.1f}M{_of_which_frozen(work)}"),
        ("forward", f"{work.forward_flops / 1e12:.3f} TFLOP an image"),
        ("and backward", f"{work.step_flops / 1e12:.3f} TFLOP, {work.step_flops / work.forward_flops:.2f} forwards"),
        ("step at peak", f"{work.seconds_at_peak(topology):.3f} s"),
    )


def describe_compiled(
    strategy: str, compiled: Compiled, work: Work, topology: Topology, *, budget_gib: float, num_steps: int
) -> str:
    """The lines on what the compiler says of a strategy; `budget_gib`: what it may take of a chip."""
    fits = "fits" if compiled.fits(budget_gib) else "does not fit"
    verdict = f"{compiled.total_gib:.2f} of {budget_gib:g} GiB a chip, {work.batch_size} images a step: {fits}"
    if compiled.refusal:
        return _lines((strategy, verdict), ("the compiler", compiled.refusal))
    seconds = compiled.seconds
    collectives = [
        f"{found.number} {kind} ({found.num_bytes / 1e9:.2f} GB)"
        for kind, found in sorted(compiled.collectives.items())
    ]
    return _lines(
        (strategy, verdict),
        ("state", f"{compiled.state_gib:.2f} GiB"),
        ("temporaries", f"{compiled.temporaries_gib:.2f} GiB"),
        ("step", f"{seconds:.3f} s by the compiler's estimate"),
        ("speed", f"{work.batch_size / seconds:.0f} images/s"),
        ("share of peak", f"{work.seconds_at_peak(topology) / seconds:.0%}"),
        ("collectives", ", ".join(collectives) or "none"),
        (f"{num_steps} steps", f"{num_steps * seconds / _SECONDS_A_DAY:.1f} days"),
    )


def what_would_fit(tried: Sequence[str], *, per_chip: int, accumulate_steps: int, remat: bool) -> str:
    """What to try where no strategy of `tried` fits."""
    divided = [name for name in STRATEGIES if name != "pmap" and name not in tried]
    parts = 2 * accumulate_steps
    return "what would take less: " + "; ".join(
        [f"--strategy={name}" for name in divided]
        + (["--config.model.remat=True"] if not remat else [])
        + ([f"--config.train.accumulate_steps={parts}"] if per_chip % parts == 0 else [])
        + (
            [f"a smaller config.data.batch_size than {per_chip} images a chip (--hbm_gb finds it)"]
            if per_chip > 1
            else []
        )
        + ["more chips, or chips with more memory"]
    )


def _of_which_frozen(work: Work) -> str:
    return f", of which {work.frozen / 1e6:.1f}M are frozen" if work.frozen else ""


def _lines(*rows: tuple[str, str]) -> str:
    return "\n".join(f"{name:<16}{value}" for name, value in rows)
