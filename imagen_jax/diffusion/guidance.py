"""Guidance, as wrappers of denoise_fn; and the null text it rests on."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from imagen_jax.types import DenoiseFn


def drop_text(text_emb: jax.Array, text_mask: jax.Array, *, drop: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Replaces the text of the examples where `drop` [B] bool is True by the null text: one token of zeros.

    Imagen, section 2.2 and appendix F: the condition is dropped by zeroing the text embeddings, for 10% of examples.
    One unmasked token, and not as many as the caption had, so that the null text says nothing about the caption's
    length.

    Args:
      text_emb: [B,L,D].
      text_mask: [B,L] bool.
    """
    null_mask = jnp.zeros_like(text_mask).at[:, 0].set(True)
    return (
        jnp.where(drop[:, None, None], jnp.zeros_like(text_emb), text_emb),
        jnp.where(drop[:, None], null_mask, text_mask),
    )


def classifier_free(denoise_pair: DenoiseFn, *, weight: jax.Array | float, rescale: float = 0.0) -> DenoiseFn:
    """x_hat = w * x_hat(text) + (1 - w) * x_hat(null), so that w = 1 is no guidance (Imagen, Eq. 2).

    The paper writes it for eps; x_hat is affine in eps at a given z, so the two are the same. With a negative prompt in
    place of the null text it leads away from that prompt.

    Args:
      denoise_pair: denoise_fn of a batch of 2B that is `interleave`d: with the text, and with the null text.
      weight: scalar w.
      rescale: see `extrapolate`.
    """

    def denoise_fn(z: jax.Array, logsnr: jax.Array) -> jax.Array:
        both = denoise_pair(interleave(z, z), interleave(logsnr, logsnr)).reshape(-1, 2, *z.shape[1:])
        return extrapolate(both[:, 0], both[:, 1], weight=weight, rescale=rescale)

    return denoise_fn


def interleave(a: jax.Array, b: jax.Array) -> jax.Array:
    """[B,...] twice -> [2B,...]: a[0], b[0], a[1], b[1], ...

    Rather than all of a before all of b, so that nothing moves where the batch is divided among devices.
    """
    return jnp.stack([a, b], axis=1).reshape(-1, *a.shape[1:])


def autoguidance(
    denoise_fn: DenoiseFn, weak_denoise_fn: DenoiseFn, *, weight: jax.Array | float, rescale: float = 0.0
) -> DenoiseFn:
    """x_hat = w * x_hat + (1 - w) * x_hat of a weaker network that sees the same text (arXiv 2406.02507, Eq. 3).

    The difference points away from the errors that training mends, rather than away from other captions.
    """

    def guided(z: jax.Array, logsnr: jax.Array) -> jax.Array:
        return extrapolate(denoise_fn(z, logsnr), weak_denoise_fn(z, logsnr), weight=weight, rescale=rescale)

    return guided


def extrapolate(good: jax.Array, bad: jax.Array, *, weight: jax.Array | float, rescale: float) -> jax.Array:
    """w * good + (1 - w) * bad, [B,...], its contrast then brought back towards that of `good`.

    Args:
      rescale: phi in [0, 1]: an image's standard deviation becomes phi * std(good) + (1 - phi) * its own (Lin et al.,
        arXiv 2305.08891, Eq. 15 and 16); 0 leaves it.
    """
    guided = weight * good + (1.0 - weight) * bad
    if not rescale:
        return guided
    axes = tuple(range(1, good.ndim))
    ratio = jnp.std(good, axis=axes, keepdims=True) / jnp.maximum(jnp.std(guided, axis=axes, keepdims=True), 1e-6)
    return guided * (rescale * ratio + (1.0 - rescale))


class WithinInterval(NamedTuple):
    """`inside` for noise levels from `logsnr_min` to `logsnr_max` (both included), `outside` for the others.

    A sampler asks before it compiles a step, so that what a level doesn't use isn't computed: guidance in the middle
    half of the levels costs a quarter fewer network evaluations than everywhere. Source of the idea: arXiv 2404.07724.
    """

    inside: DenoiseFn
    outside: DenoiseFn
    logsnr_min: float
    logsnr_max: float

    def at(self, logsnr: float) -> DenoiseFn:
        """The denoise_fn of a level."""
        return self.inside if self.logsnr_min <= logsnr <= self.logsnr_max else self.outside
