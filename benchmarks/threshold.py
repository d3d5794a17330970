"""Dynamic thresholding's percentile by halving (`diffusion.threshold.quantile`) beside a sort (`jnp.quantile`).

python -m benchmarks.threshold

Side by side in one process; prints the median of 15 runs each, their ratio, and the largest difference.
"""

import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from imagen_jax import cli
from imagen_jax.diffusion.threshold import quantile

Q = 0.995


def main() -> None:
    """Prints a line for each size."""
    halving = jax.jit(lambda x: quantile(x, Q))
    sort = jax.jit(lambda x: jnp.quantile(x.reshape(len(x), -1), Q, axis=1))
    print(f"{jax.devices()[0].device_kind}, median of 15 runs")
    for batch, size in ((8, 16), (8, 64), (1, 256), (8, 256), (1, 1024)):
        x_hat = jnp.abs(jax.random.normal(jax.random.key(0), (batch, size, size, 3)))
        ours, theirs = _seconds(halving, x_hat), _seconds(sort, x_hat)
        difference = float(jnp.abs(halving(x_hat) - sort(x_hat)).max())
        print(
            f"{batch} x {size} px: halving {1e3 * ours:.2f} ms, sort {1e3 * theirs:.2f} ms, "
            f"{theirs / ours:.1f} times faster, difference {difference:.0e}"
        )


def _seconds(function: Callable[[jax.Array], jax.Array], x: jax.Array) -> float:
    function(x).block_until_ready()
    times = []
    for _ in range(15):
        start = time.perf_counter()
        function(x).block_until_ready()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


if __name__ == "__main__":
    cli.run(main)
