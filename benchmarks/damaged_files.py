"""Reads thousands of damaged files with every reader of the package: each is read, or is one clear error.

python -m benchmarks.damaged_files [--inputs=5000] [--seed=0] [--only=TEXT]

The readers and the kinds of damage are those of tests/readers. Prints for each reader how many damaged files were read
and how many were refused, the slowest, and how far the process's memory grew; then what went wrong: any other
exception, more than 10 s, or more than 1 GB. Exit code 1 if anything did.
"""

import collections
import faulthandler
import random
import resource
import tempfile
import time
import traceback
from pathlib import Path
from typing import NamedTuple

from absl import flags, logging

from imagen_jax import cli
from imagen_jax.errors import InputError
from tests.readers.reader import Reader, damage
from tests.readers.test_damaged_files import READERS

_INPUTS = flags.DEFINE_integer("inputs", 5000, "How many damaged files in all.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "Of the damages.")
_ONLY = flags.DEFINE_string("only", "", "Part of the names of the readers to try; default: all.")

_MAX_S, _MAX_MB = 10.0, 1000.0
# A hang in C code can only be ended from outside Python.
_HANG_S = 60.0


class Tally(NamedTuple):
    """What a reader did: damaged files read and refused, the slowest in seconds, growth in MB, and faults by text."""

    read: int
    refused: int
    slowest_s: float
    growth_mb: float
    faults: list[str]


def main() -> int:
    """Prints a line for each reader, and the faults."""
    logging.set_verbosity(logging.FATAL)  # readers warn of what they leave out
    readers = {name: reader for name, reader in READERS.items() if _ONLY.value in name}
    each = -(-_INPUTS.value // max(1, len(readers)))
    faults: list[str] = []
    totals: collections.Counter[str] = collections.Counter()
    width = max(map(len, readers), default=0)
    for name, reader in readers.items():
        with tempfile.TemporaryDirectory() as folder:
            tally = _try(reader, Path(folder), each)
        totals.update(read=tally.read, refused=tally.refused)
        print(
            f"{name:<{width}}  {tally.read:4} read {tally.refused:4} refused  slowest {tally.slowest_s:6.3f} s  "
            f"{tally.growth_mb:+6.0f} MB",
            flush=True,
        )
        faults += [f"{name}: {fault}" for fault in tally.faults]
    print(
        f"{len(readers)} readers, {sum(totals.values()) + len(faults)} damaged files: {totals['read']} read, "
        f"{totals['refused']} refused, {len(faults)} faults; {_peak_mb():.0f} MB at most, the libraries included"
    )
    print(*faults[:20], sep="\n")
    return 1 if faults or _peak_mb() > _MAX_MB else 0


def _try(reader: Reader, folder: Path, count: int) -> Tally:
    reader.prepare(folder)
    path = folder / reader.file
    valid = path.read_bytes()
    reader.read(folder)
    read = refused = 0
    slowest, before, faults = 0.0, _peak_mb(), []
    for number in range(count):
        path.write_bytes(damage(valid, random.Random(f"{_SEED.value} {number}")))
        peak, started = _peak_mb(), time.monotonic()
        faulthandler.dump_traceback_later(_HANG_S, exit=True)
        try:
            reader.read(folder)
            read += 1
        except InputError:
            refused += 1
        except BaseException as error:  # a library's panic is none of Exception
            if isinstance(error, KeyboardInterrupt):
                raise
            faults.append(f"damage {number}: {traceback.format_exception_only(error)[-1].strip()}")
        faulthandler.cancel_dump_traceback_later()
        seconds = time.monotonic() - started
        slowest = max(slowest, seconds)
        if seconds > _MAX_S:
            faults.append(f"damage {number}: {seconds:.0f} s")
        if _peak_mb() - peak > _MAX_MB:
            faults.append(f"damage {number}: {_peak_mb() - peak:.0f} MB")
    return Tally(read, refused, slowest, _peak_mb() - before, faults)


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    cli.run(main)
