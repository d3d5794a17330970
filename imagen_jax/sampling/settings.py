"""How a stage samples: the one table of its settings.

From it come the fields of `config.sampling`, the flags of `sample` and `evaluate` with their help, how values are read
(`setting_values`), and what is said of one that has no effect. A new setting is one attribute of `SamplingSettings`.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from imagen_jax.diffusion.samplers import SAMPLERS, find_sampler
from imagen_jax.diffusion.spacings import SPACINGS, check_times
from imagen_jax.diffusion.threshold import THRESHOLDS
from imagen_jax.errors import InputError
from imagen_jax.fields import Field
from imagen_jax.registry import lookup
from imagen_jax.sampling.foreign_names import FOREIGN_NAMES as FOREIGN_NAMES  # for the mains

# Chosen by us. Published cascades are trained with up to 4,000 levels, and more steps than that change nothing.
_MAX_STEPS = 10_000
# Chosen by us: images are grey or burnt out long before, and far above float32 overflows (from 1e38 on at once).
_MAX_GUIDANCE, _MAX_CAP = 1_000, 1_000

_EXACT = 2**53
_Values = Mapping[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """One setting.

    Attributes:
      field: the values that it takes, and its help.
      flag: what it is called on command lines and, as well as by its own name, in Python.
      find: of a name: raises InputError where there is none such.
      written: of several numbers: how they are written on a command line.
      traced: whether it is an argument of the compiled program, which is then the same for all its values.
      super_resolution: whether it is of super-resolution stages alone.
      used: a stage's settings by name -> whether this one has an effect there.
      idle: when it has none, in words that follow "has no effect".
    """

    field: Field
    flag: str
    find: Callable[[str], Any] | None = None
    written: str = ""
    traced: bool = False
    super_resolution: bool = False
    used: Callable[[_Values], bool] = lambda values: True
    idle: str = ""


def _guided(values: _Values) -> bool:
    return values["guidance_weight"] != 1.0


def _number(default: float, help: str, lower: float, upper: float, *, also: float | None = None, **about: Any) -> Any:
    return _setting(default, Field(float, help, lower, upper, also=also), **about)


def _numbers(default: tuple[float, ...], help: str, length: tuple[int, int], example: str, **about: Any) -> Any:
    return _setting(default, Field(float, help, 0, 1, length=length, example=example), **about)


def _name(default: str, help: str, choices: Mapping[str, Any], find: Callable[[str], Any], **about: Any) -> Any:
    return _setting(default, Field(str, f"{help}: {', '.join(choices)}.", filled=True), find=find, **about)


def _setting(default: Any, field: Field, *, flag: str = "", **about: Any) -> Any:
    return dataclasses.field(default=default, metadata={"field": field, "flag": flag, **about})


_LEVELS: dict[str, Any] = {"used": lambda values: not values["times"], "idle": "where times are given"}
_OF_GUIDANCE: dict[str, Any] = {"used": _guided, "idle": "without guidance, a weight other than 1"}
_OF_DYNAMIC: dict[str, Any] = {
    "used": lambda values: values["threshold"] == "dynamic",
    "idle": 'without the threshold "dynamic"',
}


def _of_sampler(name: str, sampler: str) -> dict[str, Any]:
    return {
        "used": lambda values: name in find_sampler(values["sampler"]).settings,
        "idle": f'without a sampler that has it, such as "{sampler}"',
    }


@dataclasses.dataclass(frozen=True)
class SamplingSettings:
    """Settings of one stage. Raises InputError where one is unknown or out of range; `SETTINGS` explains each."""

    sampler: str = _name("ddpm", "The sampler", SAMPLERS, find_sampler)
    num_steps: int = _setting(
        256, Field(int, "Sampling steps: noise levels, of which heun evaluates each twice.", 1, _MAX_STEPS),
        flag="steps", **_LEVELS,
    )  # fmt: skip
    spacing: str = _name(
        "uniform", "How the steps are spaced", SPACINGS, partial(lookup, SPACINGS, what="step spacing"), **_LEVELS
    )
    times: tuple[float, ...] = _numbers(
        (), "Explicit noise levels, falling from 1 (noise), in place of steps and spacing; (): none.",
        (0, _MAX_STEPS), "(1, 0.7, 0.4, 0.1)",
        written="levels falling from 1 (noise) towards 0 (clean), separated by colons: 1:0.7:0.4:0.1",
    )  # fmt: skip
    gamma: float = _number(0.3, "Stochasticity of the sampler ddpm.", 0, 1, **_of_sampler("gamma", "ddpm"))
    eta: float = _number(0.0, "Stochasticity of the sampler ddim.", 0, 1, **_of_sampler("eta", "ddim"))
    guidance_weight: float = _number(
        1.0, "Weight of classifier-free guidance; 1: none, at half the cost.", 0, _MAX_GUIDANCE,
        flag="guidance", traced=True,
    )  # fmt: skip
    guidance_interval: tuple[float, float] = _numbers(
        (0.0, 1.0), "The times, from 0 (clean) to 1 (noise), between which there is guidance.",
        (2, 2), "(0.2, 0.8)", written="FROM:TO, two times with 0 <= FROM < TO <= 1, such as 0.2:0.8", **_OF_GUIDANCE,
    )  # fmt: skip
    guidance_rescale: float = _number(
        0.0, "How far guided images are brought to the contrast of unguided ones.", 0, 1, **_OF_GUIDANCE
    )
    threshold: str = _name(
        "dynamic", "Thresholding of the predicted image", THRESHOLDS, partial(lookup, THRESHOLDS, what="threshold")
    )
    threshold_percentile: float = _number(99.5, "Percentile of dynamic thresholding.", 0, 100, **_OF_DYNAMIC)
    threshold_cap: float = _number(
        0.0, "Bound of what dynamic thresholding divides by; 0: none.", 1, _MAX_CAP, also=0, **_OF_DYNAMIC
    )
    aug_level: float = _number(
        0.0, "Noise level of the low-resolution input.", 0, 1,
        traced=True, super_resolution=True, idle="without a super-resolution stage",
    )  # fmt: skip

    def __post_init__(self) -> None:
        for name, setting in SETTINGS.items():
            value = _plain(getattr(self, name), setting.field)
            setting.field.check(name, value)
            if setting.find is not None:
                setting.find(value)
            # Python's own numbers, as samples.json holds them; hashable, as a program is compiled for each value.
            object.__setattr__(self, name, value)
        unknown = set(find_sampler(self.sampler).settings) - SETTINGS.keys()
        if unknown:
            raise InputError(f'sampler "{self.sampler}" has the setting "{min(unknown)}", which SamplingSettings lacks')
        check_times(self.times)
        low, high = self.guidance_interval
        if not low < high:
            raise InputError(
                "guidance_interval must be two times, 0 <= from < to <= 1, such as (0.2, 0.8); (0, 1) is everywhere "
                f"(got {self.guidance_interval})"
            )

    @property
    def guided(self) -> bool:
        """Whether a second prediction is needed at any level."""
        # Inside a compiled program the weight of guidance has no value; `_flatten` leaves a weight of 1 as it is.
        return isinstance(self.guidance_weight, Tracer) or self.guidance_weight != 1.0

    def sampler_settings(self) -> dict[str, Any]:
        """The sampler's own keyword arguments."""
        return {name: getattr(self, name) for name in find_sampler(self.sampler).settings}


SETTINGS: Mapping[str, Setting] = {
    each.name: Setting(**{**each.metadata, "flag": each.metadata["flag"] or each.name})
    for each in dataclasses.fields(SamplingSettings)
}
# Flag -> attribute.
BY_FLAG: Mapping[str, str] = {setting.flag: name for name, setting in SETTINGS.items()}


def without_effect(given: Sequence[str], points: Sequence[Mapping[int, _Values]]) -> list[str]:
    """Returns a sentence for each setting that is given and changes nothing in any stage of any point.

    Args:
      given: names of settings, or of their flags.
      points: of each point all settings of the stages that run, by image size, ascending.
    """
    sentences = []
    for name in given:
        setting = SETTINGS[BY_FLAG.get(name, name)]
        stages = [
            values
            for point in points
            for number, values in enumerate(point.values())
            if number or not setting.super_resolution
        ]
        if not any(map(setting.used, stages)):
            sentences.append(f"{name} has no effect {setting.idle}; set that, or leave {name} out")
    return sentences


def _plain(value: Any, field: Field) -> Any:
    """A value as JSON or numpy may have it -> Python's own number or tuple of floats."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if field.length is not None and isinstance(value, list | tuple):
        return tuple(_plain(number, Field(float, "")) for number in value)
    # Of one type, as what is traced is compiled for each.
    return float(value) if field.kind is float and type(value) is int and abs(value) < _EXACT else value


# A pytree, whose leaves are the settings that are `traced`. All else is part of the program, and so is a guidance
# weight of 1, with which nothing is guided.
def _flatten(settings: SamplingSettings) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    traced = [
        name for name, setting in SETTINGS.items() if setting.traced and (settings.guided or name != "guidance_weight")
    ]
    static = tuple((name, getattr(settings, name)) for name in SETTINGS if name not in traced)
    return tuple(getattr(settings, name) for name in traced), (tuple(traced), static)


def _unflatten(names: tuple[Any, ...], leaves: Sequence[Any]) -> SamplingSettings:
    traced, static = names
    # Without the checks, which were made when the leaves had values.
    settings = object.__new__(SamplingSettings)
    for name, value in (*static, *zip(traced, leaves, strict=True)):
        object.__setattr__(settings, name, value)
    return settings


jax.tree_util.register_pytree_node(SamplingSettings, _flatten, _unflatten)
