"""Options that are given and change nothing: said, because whoever gives one expects it to."""

from collections.abc import Mapping, Sequence
from typing import Any

from imagen_jax.sampling.settings import SamplingSettings


def find_remarks(
    given: Mapping[str, Any], settings: Sequence[SamplingSettings], *, super_resolution: bool
) -> list[str]:
    """Returns one sentence for each option that has no effect on any stage that runs.

    Args:
      given: names, as in `Cascade.sample`, and values of the overrides; those that are None weren't given.
      settings: what the stages that run sample with, these overrides included.
      super_resolution: whether a super-resolution stage is among them.
    """
    names = {name for name, value in given.items() if value is not None}
    samplers = ", ".join(dict.fromkeys(f'"{each.sampler}"' for each in settings))
    thresholds = ", ".join(dict.fromkeys(f'"{each.threshold}"' for each in settings))
    guided = any(each.guided for each in settings)
    remarks = []
    for name, sampler in (("eta", "ddim"), ("gamma", "ddpm")):
        if name in names and all(each.sampler != sampler for each in settings):
            remarks.append(f'{name} has no effect: it is of the sampler "{sampler}", and {samplers} is used')
    for name in ("threshold_percentile", "threshold_cap"):
        if name in names and all(each.threshold != "dynamic" for each in settings):
            remarks.append(f'{name} has no effect: it is of the threshold "dynamic", and {thresholds} is used')
    for name in ("guidance_interval", "guidance_rescale"):
        if name in names and not guided:
            remarks.append(f"{name} has no effect: there is no guidance; set a weight other than 1 (guidance)")
    if "aug_level" in names and not super_resolution:
        remarks.append("aug_level has no effect: it is of super-resolution stages, and none runs")
    if "times" in names:
        for name in ("steps", "num_steps", "spacing"):
            if name in names and all(each.times for each in settings):
                remarks.append(f"{name} has no effect: times are given, and are the levels")
    return remarks
