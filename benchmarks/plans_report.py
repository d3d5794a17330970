"""docs/plans.md from the rows in docs/plans that `benchmarks.plans` measured."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from imagen_jax.files import read_json, write_text
from imagen_jax.training.collectives import Collectives
from imagen_jax.training.compiled import Compiled
from imagen_jax.training.plan import Work
from imagen_jax.training.topology import parse_topology

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
# Measured once, by compiling blocks alone, and kept here with the page that they explain.
_BLOCKS = """## Where the base's time goes

Blocks of the base compiled alone for one v4 chip, 8 images, forward and backward, by the same estimate:

| block | at the chip's peak | estimate | temporaries |
|---|---:|---:|---:|
| residual block, 64 px, 512 channels | 3.37 ms | 4.24 ms | 0.03 GB |
| attention, 32 px, 1024 channels, as `jax.nn.dot_product_attention` | 1.36 ms | 7.11 ms | 1.30 GB |
| the same, normalised after the product with v, gradient written out | 1.36 ms | 6.24 ms | 0.98 GB |
| the same, logits computed twice, both times in float32 | 1.36 ms | 6.28 ms | 0.98 GB |
| **the same, first in bfloat16: fused with the maximum** (`models/attention.py`) | 1.36 ms | 4.99 ms | 0.68 GB |
| update of 37.7M parameters, Adafactor and average | | 1.54 ms | |
| the same, AdamW | | 1.84 ms | |

- Seven layers attend at 32 px: 15 ms of a step and 4 GB less. Forward, and gradients of v, are as exact as before in
  bfloat16 (0.2 to 0.3% from float32); gradients of q and k are 0.3% off instead of 0.2%, and 0.5% where logits have a
  standard deviation of 9.
- The update reads and writes 40 bytes a parameter (AdamW: 48): for the whole base 98 ms (118) of a v4's memory
  bandwidth at every step where the state is replicated, and of that a 32nd where zero1 or fsdp divide it.
- In the residual block nothing is left to save: the compiler fuses normalisation and swish with the convolutions.
- Recomputing every block's activations costs 0.18 s at peak alone, where 0.13 s is all that a step needs without: the
  base doesn't, and 8 images a chip fit a v4 all the same.
- Of zero1's step the compiler's own cycles said where 0.04 s went: Adafactor scales by the norm of each parameter,
  twice read, and each chip did that for all of them. A step now computes its update on the chip's own part alone.
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
