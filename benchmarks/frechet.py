"""Time and memory of a Frechet distance between two sets of stored features.

python -m benchmarks.frechet [--images=50000] [--width=2048]

Writes random features (float32, correlated) to a temporary folder and measures in a process of its own: both sets are
read in pieces and streamed into moments. Asked of it: 30 s and 1 GB on two cores.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from absl import flags

from imagen_jax import cli

_IMAGES = flags.DEFINE_integer("images", 50_000, "Features of each set.", lower_bound=2)
_WIDTH = flags.DEFINE_integer("width", 2048, "Numbers of a feature.", lower_bound=1)

_MEASURE = """
import json, sys, time
import numpy as np
from imagen_jax.evaluation.frechet import frechet_of_gaussians
from imagen_jax.evaluation.statistics import stream_moments

def pieces(path, width, rows=1000):
    with open(path, "rb") as file:
        while len(x := np.fromfile(file, np.float32, rows * width)):
            yield x.reshape(-1, width)

start, cpu = time.perf_counter(), time.process_time()
a, b = (stream_moments(pieces(path, int(sys.argv[1]))) for path in sys.argv[2:])
streamed = time.perf_counter()
distance = frechet_of_gaussians(mean_a=a.mean, cov_a=a.covariance, mean_b=b.mean, cov_b=b.covariance)
end, cpu_end = time.perf_counter(), time.process_time()
with open("/proc/self/status") as lines:
    peak = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
print(json.dumps([distance, streamed - start, end - streamed, cpu_end - cpu, peak]))
"""


def main() -> None:
    """Writes, measures and prints a table."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [_write(Path(folder) / f"{seed}.f32", seed) for seed in (0, 1)]
        command = [sys.executable, "-c", _MEASURE, str(_WIDTH.value), *map(str, paths)]
        start = time.perf_counter()
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        whole = time.perf_counter() - start
    distance, streaming, solving, cpu, peak = json.loads(done.stdout)
    print("| features | distance | statistics | distance itself | with start-up | CPU time | peak memory |")
    print("|---|---|---|---|---|---|---|")
    print(
        f"| 2 x {_IMAGES.value} x {_WIDTH.value} | {distance:.6g} | {streaming:.1f} s | {solving:.1f} s | "
        f"{whole:.1f} s | {cpu:.1f} s | {peak / 1e9:.2f} GB |"
    )


def _write(path: Path, seed: int) -> Path:
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((_WIDTH.value, _WIDTH.value), np.float32) / np.float32(np.sqrt(_WIDTH.value))
    with open(path, "wb") as file:
        for start in range(0, _IMAGES.value, 1000):
            count = min(1000, _IMAGES.value - start)
            np.maximum(rng.standard_normal((count, _WIDTH.value), np.float32) @ mixing, 0.0).tofile(file)
    return path


if __name__ == "__main__":
    cli.run(main)
