"""The sampling settings that command lines offer, in place of a stage's own: see sampling.settings.SamplingSettings."""

from collections.abc import Callable, Mapping
from typing import Any

from imagen_jax.diffusion.samplers import SAMPLERS
from imagen_jax.diffusion.spacings import SPACINGS
from imagen_jax.diffusion.threshold import THRESHOLDS
from imagen_jax.shared_flags import interval, levels

# Name -> how one value is parsed, and what it is.
SETTINGS: Mapping[str, tuple[Callable[[str], Any], str]] = {
    "guidance": (float, "Weight of classifier-free guidance; 1 is none."),
    "guidance_interval": (
        interval,
        "FROM:TO, times from 0 (clean) to 1 (noise) between which there is guidance.",
    ),
    "guidance_rescale": (float, "How far the contrast is brought back to the unguided image's, 0 to 1."),
    "sampler": (str, f"The sampler, one of {', '.join(SAMPLERS)}."),
    "steps": (int, "The number of sampling steps."),
    "spacing": (str, f"How the steps are spaced, one of {', '.join(SPACINGS)}."),
    "times": (levels, "1:T:...:T, explicit noise levels in place of steps and spacing."),
    "gamma": (float, "Stochasticity of the sampler ddpm, 0 to 1."),
    "eta": (float, "Stochasticity of the sampler ddim, 0 to 1."),
    "threshold": (str, f"Thresholding of the predicted image, one of {', '.join(THRESHOLDS)}."),
    "threshold_percentile": (float, "Percentile of dynamic thresholding, 0 to 100."),
    "threshold_cap": (float, "Bound of what dynamic thresholding divides by, at least 1; 0: none."),
    "aug_level": (float, "Noise level of the low-resolution input, 0 to 1."),
}
