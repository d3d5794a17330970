"""Step spacings: at which noise levels a sampler evaluates the network.

A spacing is (schedule, num_steps) -> logsnr, rising from noise to image. After the last level comes the clean image, so
N levels are N steps.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from imagen_jax.diffusion.schedules import Schedule
from imagen_jax.errors import InputError
from imagen_jax.fields import Field, show
from imagen_jax.registry import lookup

Spacing = Callable[[Schedule, int], np.ndarray]

# EDM's range (arXiv 2206.00364, table 1): above it an image of 64 px is invisible in the noise, and below it the noise
# in the image, so that steps there would be lost. For us it is a range of times, those of the cosine schedule: one that
# is shifted for larger images keeps the noisier levels that it was shifted for.
SIGMA_MIN, SIGMA_MAX = 0.002, 80.0
_EDM_TIMES = 2.0 / np.pi * np.arctan([SIGMA_MAX, SIGMA_MIN])
RHO = 7.0
_NUM_STEPS = Field(int, "Noise levels at which the network is evaluated.", 1, 100_000)


def at_times(schedule: Schedule, times: Sequence[float] | np.ndarray) -> np.ndarray:
    """logsnr [N] float32 of times t, which a user gives in falling order."""
    with jax.ensure_compile_time_eval():
        return np.asarray(schedule(jnp.asarray(times, jnp.float32)), np.float32)


def uniform(schedule: Schedule, num_steps: int) -> np.ndarray:
    """t = 1, 1 - 1/N, ..., 1/N."""
    return at_times(schedule, np.arange(num_steps, 0, -1) / num_steps)


def uniform_logsnr(schedule: Schedule, num_steps: int) -> np.ndarray:
    """Equal steps in logsnr over EDM's range (DPM-Solver, arXiv 2206.00927)."""
    low, high = at_times(schedule, _EDM_TIMES)
    return np.linspace(low, high, num_steps).astype(np.float32)


def karras(schedule: Schedule, num_steps: int) -> np.ndarray:
    """sigma^(1/rho) in equal steps, with sigma = exp(-logsnr / 2) and rho = 7 (EDM, Eq. 5)."""
    sigma_max, sigma_min = np.exp(-0.5 * at_times(schedule, _EDM_TIMES).astype(np.float64)) ** (1 / RHO)
    return (-2.0 * RHO * np.log(np.linspace(sigma_max, sigma_min, num_steps))).astype(np.float32)


def respaced(section_counts: Sequence[int], num_timesteps: int = 1000) -> Spacing:
    """So many of the discrete timesteps from each of several equal sections of them, the first the least noisy.

    Timestep i is t = (i + 1) / num_timesteps. Source: iDDPM (arXiv 2102.09672), section 4, in whose code sections of
    unequal counts are a string such as "10,10,3,2,2".
    """
    sections = np.array_split(np.arange(num_timesteps), len(section_counts))
    timesteps = [
        np.rint(np.linspace(section[0], section[-1], count))
        for section, count in zip(sections, section_counts, strict=True)
    ]
    times = (np.concatenate(timesteps)[::-1] + 1) / num_timesteps

    def spacing(schedule: Schedule, num_steps: int) -> np.ndarray:
        if num_steps != len(times):
            raise InputError(f"this step spacing is a list of {len(times)} steps; use that many (got {num_steps})")
        return at_times(schedule, times)

    return spacing


SPACINGS: Mapping[str, Spacing] = {
    "uniform": uniform,
    "uniform_logsnr": uniform_logsnr,
    "karras": karras,
    # DeepFloyd IF's.
    "if_fast27": respaced((10, 10, 3, 2, 2)),
    "if_smart27": respaced((7, 4, 2, 1, 2, 4, 7)),
    "if_smart50": respaced((10, 6, 4, 3, 2, 2, 3, 4, 6, 10)),
}


def noise_levels(
    schedule: Schedule, *, num_steps: int, spacing: str = "uniform", times: Sequence[float] = ()
) -> np.ndarray:
    """The levels of a spacing, or of `times` where there are any: logsnr [N] float32, rising.

    Raises:
      InputError: no such spacing, or it has another number of steps; a number of steps out of bounds; `times` that are
        no numbers, don't fall, or leave [0, 1].
    """
    if len(times) == 0:
        _NUM_STEPS.check("num_steps", num_steps)
        return lookup(SPACINGS, spacing, what="step spacing")(schedule, num_steps)
    check_times(times)
    return at_times(schedule, times)


def check_times(times: Sequence[float]) -> None:
    """Raises InputError where explicit times are no numbers, or don't fall within [0, 1]."""
    if isinstance(times, str) or not all(isinstance(t, int | float | np.floating | np.integer) for t in times):
        raise InputError(f"times must be a tuple of numbers, such as (1, 0.7, 0.4, 0.1) (got {show(times)})")
    if not all(0 <= t <= 1 for t in times) or not all(a > b for a, b in itertools.pairwise(times)):
        raise InputError(
            f"times must fall, from 1 (noise) towards 0 (clean), such as (1, 0.7, 0.4, 0.1) (got {tuple(times)})"
        )
