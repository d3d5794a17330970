"""What a training step takes on a TPU slice: memory, time, collectives, by the TPU's own compiler. No TPU is needed.

python -m imagen_jax.plan --config=configs/X.py[:VARIANT] --topology=v4:8x8x4 [--config.key=value]
    [--strategy=pmap|zero1|fsdp | --all] [--hbm_gb=N]

The program that training runs is compiled for the slice, which takes minutes for a network of the paper's size; the
compiler is the extra `tpu`. Without it: what follows from shapes alone. --all compiles for each strategy, one after the
other; --hbm_gb looks for the largest batch a chip, in about three compilations a strategy. GiB are 2^30 bytes.

Times are the compiler's estimates, which we have not compared with a real step. Exit codes: 0 it fits; 2 it doesn't,
or a mistake in the command or the config.
"""

from collections.abc import Callable
from typing import Any

from absl import flags
from ml_collections import config_flags

from imagen_jax import build, cli
from imagen_jax import config as config_lib
from imagen_jax.errors import EXIT_BAD_INPUT, InputError
from imagen_jax.planning.compiled import Compiled, compile_step, largest_batch
from imagen_jax.planning.topology import INSTALL_COMPILER, has_compiler, only_compile, parse_topology
from imagen_jax.planning.work import describe_compiled, describe_work, what_would_fit
from imagen_jax.training.parallel import STRATEGIES

_CONFIG = config_flags.DEFINE_config_file("config", None, "The run: configs/X.py[:VARIANT].", lock_config=True)
_TOPOLOGY = flags.DEFINE_string("topology", None, "The slice, CHIP:SHAPE, such as v4:8x8x4 or v5e:16x16.")
_STRATEGY = flags.DEFINE_enum("strategy", None, list(STRATEGIES), "Instead of config.train.strategy.")
_ALL = flags.DEFINE_bool("all", False, "Compile for each strategy.")
_HBM_GB = flags.DEFINE_float("hbm_gb", None, "Look for the largest batch a chip that fits in so many GiB.")
flags.mark_flags_as_required(["config", "topology"])


def main() -> int:
    """Prints the plan, and returns the exit code."""
    only_compile()
    config: Any = _CONFIG.value
    topology = parse_topology(_TOPOLOGY.value or "")
    strategies = list(STRATEGIES) if _ALL.value else [_STRATEGY.value or config.train.strategy]
    budget = topology.chip.hbm_gib if _HBM_GB.value is None else _HBM_GB.value
    if not 0 < budget <= topology.chip.hbm_gib:
        raise InputError(f"--hbm_gb={budget:g}: expected up to {topology.chip.hbm_gib:g}, what a program may use there")
    if config.train.num_epochs:
        raise InputError("config.train.num_epochs: a plan opens no data set; give --config.train.num_steps instead")
    config_lib.validate(config, num_devices=topology.num_chips)
    build.check(config)
    width, _ = build.text_width(config)
    state, frozen = build.shapes(config, text_width=width)
    work = build.work(config, text_width=width)
    print(describe_work(work, topology), flush=True)
    if not has_compiler():
        print(f"\nMemory, time and collectives take the TPU compiler, and no TPU: {INSTALL_COMPILER}")
        return 0

    step = build.step(config, platform="tpu")
    one_fits = False
    for strategy in strategies:

        def compile_for(batch_size: int, strategy: str = strategy) -> Compiled:
            config.data.batch_size = batch_size
            shapes = build.batch_shapes(config, text_width=width)
            return compile_step(strategy, step, topology, state, frozen, shapes)

        if _HBM_GB.value is None:
            batch_size, compiled = work.batch_size, compile_for(work.batch_size)
        else:
            smallest = topology.num_chips * config.train.accumulate_steps
            batch_size, compiled = _largest(compile_for, work.batch_size, smallest, budget)
        planned = work._replace(batch_size=batch_size)
        lines = describe_compiled(
            strategy, compiled, planned, topology, budget_gib=budget, num_steps=config.train.num_steps
        )
        print(f"\n{lines}", flush=True)
        one_fits |= compiled.fits(budget)
    if not one_fits:
        per_chip = config.data.batch_size // topology.num_chips
        parts, remat = config.train.accumulate_steps, config.model.remat
        print(f"\n{what_would_fit(strategies, per_chip=per_chip, accumulate_steps=parts, remat=remat)}")
    return 0 if one_fits else EXIT_BAD_INPUT


def _largest(
    compile_for: Callable[[int], Compiled], batch_size: int, smallest: int, budget: float
) -> tuple[int, Compiled]:
    """The largest batch that `smallest` divides, and its program; `smallest` itself where even that is too large."""
    programs: dict[int, Compiled] = {}

    def needs(count: int) -> float:
        programs[count] = compile_for(count * smallest)
        return programs[count].total_gib

    count = max(1, largest_batch(needs, budget=budget, start=batch_size // smallest))
    if count not in programs:
        needs(count)
    return count * smallest, programs[count]


if __name__ == "__main__":
    cli.run(main)
