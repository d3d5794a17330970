"""A run whose disk fills up, started by test_checkpoint.py: `python -m tests.training.full_disk FOLDER BYTES`.

A process of its own: the limit on the size of files holds for all that a process writes, and what orbax still had to
write when it gave up fails later, in whatever runs then.
"""

import resource
import sys
from pathlib import Path

import jax

from imagen_jax import cli
from imagen_jax.training.checkpoint import Checkpointer
from tests.training import tiny


def main(folder: Path, limit: int) -> None:
    checkpointer, batches = Checkpointer(folder, keep=3), tiny.positions()
    next(batches)
    checkpointer.save(1, jax.device_put(tiny.state(seed=1)), batches)
    checkpointer._manager.wait_until_finished()
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, most))
    next(batches)
    checkpointer.save(2, jax.device_put(tiny.state(seed=2)), batches)
    checkpointer.close()


if __name__ == "__main__":
    limit, folder = int(sys.argv.pop()), Path(sys.argv.pop())  # which cli.run would refuse
    cli.run(lambda: main(folder, limit))
