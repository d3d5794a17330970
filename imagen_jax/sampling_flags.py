"""The sampling settings that command lines offer, in place of a stage's own: see sampling.settings.SamplingSettings."""

from collections.abc import Callable, Mapping
from typing import Any

from imagen_jax.diffusion.samplers import SAMPLERS
from imagen_jax.diffusion.spacings import SPACINGS
from imagen_jax.diffusion.threshold import THRESHOLDS
from imagen_jax.shared_flags import times

# Name -> how one value is parsed, and what it is.
SETTINGS: Mapping[str, tuple[Callable[[str], Any], str]] = {
    "guidance": (float, "Guidance weight; 1 is none."),
    "guidance_interval": (
        times,
        "FROM:TO, times in 0 (clean) to 1 (noise) between which there is guidance.",
    ),
    "guidance_rescale": (float, "0 to 1: towards the unguided image's contrast."),
    "sampler": (str, f"{', '.join(SAMPLERS)}."),
    "steps": (int, "Sampling steps."),
    "spacing": (str, f"Of the steps: {', '.join(SPACINGS)}."),
    "times": (times, "1:T:...:T, explicit levels in place of steps and spacing."),
    "gamma": (float, "Stochasticity of ddpm, 0 to 1."),
    "eta": (float, "Stochasticity of ddim, 0 to 1."),
    "threshold": (str, f"{', '.join(THRESHOLDS)}."),
    "threshold_percentile": (float, "Of dynamic, 0 to 100."),
    "threshold_cap": (float, "Of dynamic, at least 1; 0: none."),
    "aug_level": (float, "Noise level of the low-resolution input, 0 to 1."),
}
