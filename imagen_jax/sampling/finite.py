"""Pixels are finite, or there is no picture."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from imagen_jax.errors import NotFiniteError
from imagen_jax.sampling.settings import SamplingSettings
from imagen_jax.types import DenoiseFn, Prediction

# Chosen by us: from here on a message names the guidance weight first.
_HIGH_GUIDANCE = 15.0


def keep_not_finite(wrap: Callable[[DenoiseFn], DenoiseFn], denoise_fn: DenoiseFn) -> DenoiseFn:
    """Returns `wrap(denoise_fn)`, which gives NaN everywhere for an image that isn't finite before it is wrapped.

    A threshold clips an infinity to a pixel like any other, and the steps that follow hide where it was. An image of
    NaN stays one to the last step, whatever the network makes of it, because z is looked at too. Images that are finite
    are what `wrap` makes of them, to the bit, and no image depends on another.
    """

    def checked(z: jax.Array, logsnr: jax.Array) -> Prediction:
        found: list[jax.Array] = []

        def observed(z: jax.Array, logsnr: jax.Array) -> Prediction:
            prediction = denoise_fn(z, logsnr)
            found.append(prediction.x)
            return prediction

        prediction = wrap(observed)(z, logsnr)
        axes = tuple(range(1, z.ndim))
        finite = jnp.all(jnp.isfinite(found[0]) & jnp.isfinite(z), axis=axes, keepdims=True)
        return prediction._replace(x=jnp.where(finite, prediction.x, jnp.nan))

    return checked


def check_finite(
    samples: np.ndarray, *, image_size: int, labels: Sequence[str] = (), settings: SamplingSettings
) -> None:
    """Checks the samples of a stage where they leave the devices.

    Args:
      samples: [B,H,W,3].
      image_size: of the stage, for the message.
      labels: what each image is called in the message, such as 'image 3 ("red apple")'; default its row.
      settings: that they were sampled with, for the remedy.

    Raises:
      NotFiniteError: a pixel is infinite or not a number. It names the stage and the first such image.
    """
    bad = np.flatnonzero(~np.isfinite(samples).all(axis=tuple(range(1, samples.ndim))))
    if not len(bad):
        return
    # Each once: a batch is filled up with its last image.
    names = list(dict.fromkeys(labels[int(row)] if labels else f"image {row}" for row in bad))
    first = names[0]
    more = f" and {len(names) - 1} more of its batch" if len(names) > 1 else ""
    high = settings.guided and settings.guidance_weight >= _HIGH_GUIDANCE
    lower = f"a lower guidance weight than {settings.guidance_weight:g} (--guidance)"
    other = "a cascade exported from another checkpoint (python -m imagen_jax.export)"
    remedy = f"{lower}, or {other}" if high else f"{other}, or {lower}" if settings.guided else other
    raise NotFiniteError(
        f"stage of {image_size} px, {first}{more}: the network's prediction became infinite or not a number, so there "
        f"is no picture; what helps: {remedy}"
    )


def label_image(index: int, prompt: str) -> str:
    """Returns what messages call an image: its index, as in its file's name, and its prompt, shortened."""
    text = " ".join(prompt.split())
    return f'image {index} ("{text if len(text) <= 60 else text[:57] + "..."}")'
