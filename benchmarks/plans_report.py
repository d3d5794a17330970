"""docs/plans.md from the rows in docs/plans that `benchmarks.plans` measured."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from imagen_jax.files import read_json, write_text
from imagen_jax.planning.collectives import Collectives
from imagen_jax.planning.compiled import Compiled
from imagen_jax.planning.topology import parse_topology
from imagen_jax.planning.work import Work

_INTRODUCTION = """# What a training step takes on TPUs

A step of the paper's three stages (`configs/imagen_*.py`, 2048 images, text of width 4096) on 256 chips, by every
strategy, as the TPU's own compiler (libtpu) plans it. No TPU was at hand: **nothing here was measured on one.** Memory
is what the compiled program lays out; the compiler refuses one that does not fit. Times are its
`cost_analysis()["optimal_seconds"]`, the sum over operations of how long each must take at least, by its arithmetic and
by what it reads and writes; they leave out waiting for the network between chips.

`python -m imagen_jax.plan --config=configs/imagen_base64.py --topology=v4:8x8x4 --all` prints the same for one config
and slice; `make plans` makes this page, and compiles what is missing.

*State*: what lies on a chip from step to step, in GiB (2^30 bytes); *temporaries*: activations and gradients at their
worst moment; *share of peak*: three forwards' operations a step, whatever is computed again; *sent*: the results of a
chip's collectives, in GB.
"""
# The table is what benchmarks.plan_blocks printed.
_BLOCKS = """## Where the base's time goes

Blocks of the base compiled alone for one v4 chip, 8 images, forward and backward, by the same estimate
(`python -m benchmarks.plan_blocks`, seconds each):

| block | three forwards at peak | estimate | temporaries |
|---|---:|---:|---:|
| residual block, 64 px, 512 channels | 3.31 ms | 3.76 ms | 0.06 GiB |
| attention, 32 px, 1024 channels, as `jax.nn.dot_product_attention` | 1.37 ms | 6.24 ms | 1.20 GiB |
| **attention, 32 px, 1024 channels** (`models/attention.py`) | 1.37 ms | 4.17 ms | 0.65 GiB |
| attention, 16 px, 1536 channels, as `jax.nn.dot_product_attention` | 0.76 ms | 1.70 ms | 0.15 GiB |
| **attention, 16 px, 1536 channels** (`models/attention.py`) | 0.76 ms | 1.45 ms | 0.06 GiB |
| update of 37.7M parameters, adafactor and average | | 1.38 ms | 0.00 GiB |
| update of 37.7M parameters, adamw and average | | 1.38 ms | 0.00 GiB |

- At the chip's peak a step takes 0.135 s. Convolutions are near it: the compiler fuses normalisation and swish with
  them.
- Seven layers attend at 32 px, and write and read weights of [8, 16, 1024, 1152]. They are normalised after the
  product with v, kept once and in bfloat16, and logits are computed twice, first in bfloat16 for their maximum: less
  time than to write them out. In bfloat16 the result is 0.2% from float32, as `jax.nn`'s is; gradients are 0.3% off
  instead of 0.2%, and of q and k 0.5% where logits have a standard deviation of 9.
- The update takes as long as reading and writing 45 bytes a parameter: 88 ms for the whole base where the state is
  replicated (pmap), and a 32nd of that where zero1 or fsdp divide it.
- fsdp gathers kernels in bfloat16, which the network casts them to anyway: the same numbers, half of the bytes.
  Gradients are summed over the chips in bfloat16 with zero1 and fsdp, in float32 with pmap. zero1 keeps whole
  parameters in float32 and gathers those: 4 bytes a parameter written, and read and written once more, since what
  arrives from other chips can't be written where the old parameters lie.
- Recomputing every block's activations would cost 0.045 s more, at peak; the base fits without.
"""
_COLUMNS = (
    "stage",
    "strategy",
    "state",
    "temporaries",
    "total",
    "step, s",
    "images/s",
    "share of peak",
    "days",
    "sent",
)


def write(docs: Path) -> None:
    """Writes the page with the rows that there are."""
    paths = sorted((docs / "plans").glob("*.json"))
    rows = [read_json(path, expected="a row of benchmarks.plans") for path in paths]
    write_text(docs / "plans.md", page(rows))


def page(rows: Iterable[dict[str, Any]]) -> str:
    """Markdown: a table a slice, its stages by the work of a step."""
    by_slice: dict[str, list[dict[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: (row["topology"], -row["work"]["parameters"])):
        by_slice.setdefault(row["topology"], []).append(row)
    lines = [_INTRODUCTION]
    for name, found in by_slice.items():
        topology = parse_topology(name)
        lines += [f"## {name}: {topology.num_chips} chips of {topology.chip.hbm_gib:g} GiB", "", _cells(_COLUMNS)]
        lines += ["|---|---|" + "---:|" * 8, *map(_row, found), ""]
    lines += [] if by_slice else ["No row is compiled so far.", ""]
    lines.append(_BLOCKS)
    return "\n".join(lines)


def _row(row: dict[str, Any]) -> str:
    compiled, work = Compiled(**row["compiled"]), Work(**row["work"])
    seconds, total = compiled.seconds, f"{compiled.total_gib:.1f}"
    cells = [row["config"], row["strategy"]]
    if compiled.refusal:
        return _cells([*cells, "", "", f"{total}: does not fit", *[""] * 5])
    share = work.seconds_at_peak(parse_topology(row["topology"])) / seconds
    sent = ", ".join(
        f"{kind} {Collectives(*found).num_bytes / 1e9:.1f}" for kind, found in sorted(compiled.collectives.items())
    )
    cells += [f"{compiled.state_gib:.1f}", f"{compiled.temporaries_gib:.1f}", total, f"{seconds:.3f}"]
    cells += [f"{work.batch_size / seconds:.0f}", f"{share:.0%}", f"{row['num_steps'] * seconds / 86400:.1f}", sent]
    return _cells(cells)


def _cells(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
