"""What a step of the paper's three stages takes on slices of 256 chips, by the TPU's own compiler: docs/plans.md.

python -m benchmarks.plans            27 compilations of minutes each; no TPU

Each row is a file in docs/plans, so that the same command compiles what is missing, and writes the page with the rows
there are. A row doesn't know the code that it was compiled from: delete its file to have it compiled again.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

from absl import flags, logging

from benchmarks import plans_report
from configs import imagen_base64, imagen_sr256, imagen_sr1024
from imagen_jax import build, cli
from imagen_jax.files import write_json
from imagen_jax.planning.compiled import compile_step
from imagen_jax.planning.topology import only_compile, parse_topology
from imagen_jax.registry import lookup
from imagen_jax.training.parallel import STRATEGIES

_DOCS = flags.DEFINE_string("docs", "docs", "Folder of the page and of its rows.")
_ONLY = flags.DEFINE_string(
    "only", None, "A row to compile, such as imagen_base64-v4-zero1; default: all missing ones."
)

CONFIGS = {"imagen_base64": imagen_base64, "imagen_sr256": imagen_sr256, "imagen_sr1024": imagen_sr1024}
TOPOLOGIES = ("v4:8x8x4", "v5e:16x16", "v5p:8x8x4")


def main() -> int:
    """Compiles what is missing, or the one row asked for, and writes the page; 0, or the code of a row that failed."""
    only_compile()
    docs = Path(_DOCS.value)
    rows = {
        f"{name}-{topology.split(':')[0]}-{strategy}": (name, topology, strategy)
        for name in CONFIGS
        for topology in TOPOLOGIES
        for strategy in STRATEGIES
    }
    if _ONLY.value:
        measured = _measure(*lookup(rows, _ONLY.value, what="row"))
        write_json(docs / "plans" / f"{_ONLY.value}.json", measured)
    else:
        for row in rows:
            if not (docs / "plans" / f"{row}.json").is_file():
                logging.info("compiling %s", row)
                # A process each, which gives back the gigabytes that it took.
                command = [sys.executable, "-m", "benchmarks.plans", f"--docs={docs}", f"--only={row}"]
                if code := subprocess.run(command, check=False).returncode:
                    return code  # it has said why
    plans_report.write(docs)
    return 0


def _measure(name: str, topology_name: str, strategy: str) -> dict[str, Any]:
    config, topology = CONFIGS[name].get_config(), parse_topology(topology_name)
    width, _ = build.text_width(config)
    state, frozen = build.shapes(config, text_width=width)
    batch = build.batch_shapes(config, text_width=width)
    work = build.work(config, text_width=width)
    compiled = compile_step(strategy, build.step(config, platform="tpu"), topology, state, frozen, batch)
    return {
        "config": name,
        "topology": topology.name,
        "strategy": strategy,
        "num_steps": config.train.num_steps,
        "work": work._asdict(),
        "compiled": compiled._asdict(),
    }


if __name__ == "__main__":
    cli.run(main)
