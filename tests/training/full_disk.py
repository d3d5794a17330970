"""A run whose disk fills up, started by test_checkpoint.py: `python -m tests.training.full_disk FOLDER`.

A process of its own: the limit on the size of files holds for all that a process writes, and what orbax still had to
write when it gave up fails later, in whatever runs then.
"""

import resource
import sys
from pathlib import Path

import grain
import jax

from imagen_jax import cli
from imagen_jax.training.checkpoint import Checkpointer
from tests.training import tiny


def positions():
    return iter(grain.MapDataset.range(100).to_iter_dataset())


def main(folder: Path) -> None:
    checkpointer, batches = Checkpointer(folder, keep=3), positions()
    state = jax.device_put(tiny.state())
    checkpointer.save(1, state, batches)
    checkpointer._manager.wait_until_finished()
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, most))
    checkpointer.save(2, state, batches)
    checkpointer.close()


if __name__ == "__main__":
    folder = Path(sys.argv.pop())
    cli.run(lambda: main(folder))
