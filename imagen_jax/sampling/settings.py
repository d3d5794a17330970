"""How a stage samples: one value for each choice, checked when it is made."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from imagen_jax.diffusion.samplers import SAMPLERS
from imagen_jax.diffusion.spacings import SPACINGS, check_times
from imagen_jax.diffusion.threshold import THRESHOLDS
from imagen_jax.errors import InputError
from imagen_jax.registry import lookup


@dataclasses.dataclass(frozen=True)
class SamplingSettings:
    """Settings of one stage. Raises InputError where one is unknown or out of range.

    Attributes:
      sampler: key of SAMPLERS.
      num_steps: noise levels at which the network is evaluated (Heun's method: twice but at the last).
      spacing: key of SPACINGS.
      times: explicit levels, falling within [0, 1], in place of `num_steps` and `spacing`; (): none.
      gamma: of "ddpm", in [0, 1].
      eta: of "ddim", in [0, 1].
      guidance_weight: w; 1 is no guidance, and costs half.
      guidance_interval: (from, to), times in [0, 1] between which there is guidance.
      guidance_rescale: in [0, 1], see `diffusion.guidance.extrapolate`.
      threshold: key of THRESHOLDS.
      threshold_percentile: of "dynamic", in [0, 100].
      threshold_cap: of "dynamic", at least 1; 0: none.
      aug_level: noise level of the low-resolution input, in [0, 1] (super-resolution only).
    """

    sampler: str = "ddpm"
    num_steps: int = 256
    spacing: str = "uniform"
    times: tuple[float, ...] = ()
    gamma: float = 0.3
    eta: float = 0.0
    guidance_weight: float = 1.0
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    guidance_rescale: float = 0.0
    threshold: str = "dynamic"
    threshold_percentile: float = 99.5
    threshold_cap: float = 0.0
    aug_level: float = 0.0

    def __post_init__(self) -> None:
        lookup(SAMPLERS, self.sampler, what="sampler")
        lookup(SPACINGS, self.spacing, what="step spacing")
        lookup(THRESHOLDS, self.threshold, what="threshold")
        for name in ("times", "guidance_interval"):
            # Lists out of JSON; hashable, because a program is compiled for each value.
            object.__setattr__(self, name, _numbers(name, getattr(self, name)))
        check_times(self.times)
        if self.num_steps < 1:
            raise InputError(f"sampling steps must be at least 1 (got {self.num_steps})")
        if len(self.guidance_interval) != 2 or not 0 <= self.guidance_interval[0] < self.guidance_interval[1] <= 1:
            raise InputError(
                f"guidance_interval must be two times, 0 <= from < to <= 1, such as (0.2, 0.8); (0, 1) is everywhere "
                f"(got {self.guidance_interval})"
            )
        if not 0 <= self.guidance_weight < math.inf:
            raise InputError(f"guidance weight must be >= 0 and finite; 1 is none (got {self.guidance_weight})")
        for name in ("gamma", "eta", "guidance_rescale", "aug_level"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} must be in [0, 1] (got {getattr(self, name)})")
        if not 0 <= self.threshold_percentile <= 100:
            raise InputError(f"threshold_percentile must be in [0, 100] (got {self.threshold_percentile})")
        if self.threshold_cap and not 1 <= self.threshold_cap < math.inf:
            raise InputError(f"threshold_cap must be at least 1, or 0 for none (got {self.threshold_cap})")

    @property
    def guided(self) -> bool:
        """Whether a second prediction is needed at any level."""
        return self.guidance_weight != 1.0

    def sampler_settings(self) -> dict[str, Any]:
        """The sampler's own keyword arguments."""
        return {name: getattr(self, name) for name in SAMPLERS[self.sampler].settings}


def _numbers(name: str, value: Sequence[float]) -> tuple[float, ...]:
    try:
        return tuple(float(number) for number in value)
    except (TypeError, ValueError):
        raise InputError(f"{name} must be numbers (got {value!r})") from None
