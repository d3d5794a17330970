"""How a stage samples: one value for each choice, checked when it is made."""

import dataclasses
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from imagen_jax.diffusion.samplers import SAMPLERS
from imagen_jax.diffusion.spacings import SPACINGS, check_times
from imagen_jax.diffusion.threshold import THRESHOLDS
from imagen_jax.errors import InputError
from imagen_jax.registry import lookup
from imagen_jax.sampling.arguments import is_number, is_whole
from imagen_jax.sampling.foreign_names import FOREIGN_NAMES as FOREIGN_NAMES  # for the mains

# Chosen by us. Published cascades are trained with up to 4,000 levels, and more steps than that change nothing.
MAX_STEPS = 10_000
# Chosen by us: images are grey or burnt out long before, and far above float32 overflows (from 1e38 on at once).
MAX_GUIDANCE = 1_000.0
_MAX_CAP = 1_000.0


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
        for name in (field.name for field in dataclasses.fields(self)):
            value = getattr(self, name)
            if isinstance(value, np.generic):
                # Python's own numbers, as samples.json holds them.
                object.__setattr__(self, name, value.item())
        for name, table, what in (
            ("sampler", SAMPLERS, "sampler"),
            ("spacing", SPACINGS, "step spacing"),
            ("threshold", THRESHOLDS, "threshold"),
        ):
            value = getattr(self, name)
            if not isinstance(value, str):
                raise InputError(f"{name} must be a name, one of {', '.join(sorted(table))} (got {value!r})")
            lookup(table, value, what=what)
        for name in ("times", "guidance_interval"):
            # Lists out of JSON; hashable, because a program is compiled for each value.
            object.__setattr__(self, name, _numbers(name, getattr(self, name)))
        check_times(self.times)
        if len(self.times) > MAX_STEPS:
            raise InputError(f"times may be at most {MAX_STEPS:,} levels (got {len(self.times):,})")
        if not is_whole(self.num_steps):
            raise InputError(f"sampling steps must be a whole number (got {self.num_steps!r})")
        if self.num_steps < 1:
            raise InputError(f"sampling steps must be at least 1 (got {self.num_steps})")
        if self.num_steps > MAX_STEPS:
            raise InputError(f"sampling steps must be at most {MAX_STEPS:,} (got {self.num_steps:.6g})")
        self._check_guidance()
        for name in ("gamma", "eta", "aug_level"):
            self._check_number(name, 1)
        self._check_number("threshold_percentile", 100)
        cap = self.threshold_cap
        if not is_number(cap) or (cap and cap < 1):
            raise InputError(f"threshold_cap must be at least 1, or 0 for none (got {cap!r})")
        if cap > _MAX_CAP:
            raise InputError(f"threshold_cap must be at most {_MAX_CAP:,g}; 0 is none (got {cap:g})")

    def _check_guidance(self) -> None:
        interval, weight = self.guidance_interval, self.guidance_weight
        if len(interval) != 2 or not 0 <= interval[0] < interval[1] <= 1:
            raise InputError(
                "guidance_interval must be two times, 0 <= from < to <= 1, such as (0.2, 0.8); (0, 1) is everywhere "
                f"(got {interval})"
            )
        if not is_number(weight) or weight < 0:
            raise InputError(f"guidance weight must be >= 0 and finite; 1 is none (got {weight!r:.40})")
        if weight > MAX_GUIDANCE:
            raise InputError(
                f"guidance weight must be at most {MAX_GUIDANCE:,g}, which is far above any useful one (got {weight:g})"
            )
        self._check_number("guidance_rescale", 1)

    def _check_number(self, name: str, largest: int) -> None:
        value = getattr(self, name)
        if not is_number(value) or not 0 <= value <= largest:
            raise InputError(f"{name} must be in [0, {largest}] (got {value!r})")

    @property
    def guided(self) -> bool:
        """Whether a second prediction is needed at any level."""
        # Inside a compiled program the weight of guidance has no value; `_flatten` leaves a weight of 1 as it is.
        return isinstance(self.guidance_weight, Tracer) or self.guidance_weight != 1.0

    def sampler_settings(self) -> dict[str, Any]:
        """The sampler's own keyword arguments."""
        return {name: getattr(self, name) for name in SAMPLERS[self.sampler].settings}


# A pytree, whose leaves are the numbers that are arguments of a compiled program, the same one for all their values.
# All else is part of the program, and so is a guidance weight of 1, with which nothing is guided.
def _flatten(settings: SamplingSettings) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    traced = ("guidance_weight", "aug_level") if settings.guided else ("aug_level",)
    names = [field.name for field in dataclasses.fields(settings) if field.name not in traced]
    static = tuple((name, getattr(settings, name)) for name in names)
    return tuple(getattr(settings, name) for name in traced), (traced, static)


def _unflatten(names: tuple[Any, ...], leaves: tuple[Any, ...]) -> SamplingSettings:
    traced, static = names
    # Without the checks, which were made when the leaves had values.
    settings = object.__new__(SamplingSettings)
    for name, value in (*static, *zip(traced, leaves, strict=True)):
        object.__setattr__(settings, name, value)
    return settings


jax.tree_util.register_pytree_node(SamplingSettings, _flatten, _unflatten)


def _numbers(name: str, value: Any) -> tuple[float, ...]:
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if not isinstance(value, list | tuple) or not all(is_number(number) for number in value):
        raise InputError(f"{name} must be numbers (got {value!r:.80})")
    return tuple(float(number) for number in value)
