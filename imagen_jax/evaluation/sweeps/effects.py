"""Sampling settings that are given but change nothing, because of another setting: an error, not a silent sweep."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from imagen_jax.diffusion.samplers import SAMPLERS
from imagen_jax.errors import InputError

_Settings = Mapping[str, Any]

_GUIDED = (
    lambda own: own["guidance_weight"] != 1.0,
    "without guidance, and all weights are 1: set --guidance above it",
)
_DYNAMIC = (lambda own: own["threshold"] == "dynamic", "with --threshold=dynamic only")
# Setting -> whether a stage with these settings uses it, and when it does nothing.
_USED: Mapping[str, tuple[Callable[[_Settings], bool], str]] = {
    "guidance_interval": _GUIDED,
    "guidance_rescale": _GUIDED,
    "gamma": (lambda own: "gamma" in SAMPLERS[own["sampler"]].settings, "with --sampler=ddpm only"),
    "eta": (lambda own: "eta" in SAMPLERS[own["sampler"]].settings, "with --sampler=ddim only"),
    "threshold_percentile": _DYNAMIC,
    "threshold_cap": _DYNAMIC,
}


def check_effects(given: Sequence[str], points: Sequence[Mapping[int, _Settings]]) -> None:
    """Checks that each setting that was given does something in some stage of some point.

    Args:
      given: names of settings, as the command line has them.
      points: of each point all settings of its stages, by image size.

    Raises:
      InputError: one does nothing; the message says what it needs.
    """
    for name in given:
        if name == "aug_level" and all(len(stages) == 1 for stages in points):
            raise InputError("--aug_level does nothing in a base stage, and no other one runs; leave it out")
        used, when = _USED.get(name, (lambda own: True, ""))
        if not any(used(own) for stages in points for own in stages.values()):
            if when.startswith("with "):
                raise InputError(f"--{name} does something {when}; leave it out, or set that")
            raise InputError(f"--{name} does nothing {when}, or leave it out")
