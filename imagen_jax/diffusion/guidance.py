"""Guidance: a weighted sum of what several branches predict."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from imagen_jax.errors import InputError
from imagen_jax.types import Array, Conditions, DenoiseFn, Params, Prediction

# Of the sum of the weights: rounding of float32.
_TOLERANCE = 1e-4


class Branch(NamedTuple):
    """One of the predictions that guidance adds up.

    Attributes:
      weight: scalar. The weights of all branches have the sum 1.
      conditions: what the network sees, by name.
      params: of the network.
    """

    weight: Array | np.floating | float
    conditions: Conditions | None
    params: Params | None = None


def guide(
    evaluate: Callable[[Params | None, Conditions], DenoiseFn], branches: Sequence[Branch], *, rescale: float = 0.0
) -> DenoiseFn:
    """x_hat = sum of weight * x_hat of each branch.

    Classifier-free guidance (Imagen, Eq. 2) is two branches: w with the text, and 1 - w with the null text, so that
    w = 1 is no guidance. The paper writes it for eps; x_hat is affine in eps at a given z, so the two are the same.
    With a negative prompt in place of the null text it leads away from that prompt. With the same text and weaker
    parameters it is autoguidance (arXiv 2406.02507, Eq. 3), which leads away from the errors that training mends. With
    three branches, weights 1 - v, v - w and w, it is InstructPix2Pix's (arXiv 2211.09800, Eq. 3).

    Args:
      evaluate: parameters, conditions -> denoise_fn.
      branches: the first is the one that the others correct: its variance and its contrast are those of the result.
        Those of the same parameters are evaluated as one batch.
      rescale: phi in [0, 1]: an image's standard deviation becomes phi * that of the first branch + (1 - phi) * its own
        (Lin et al., arXiv 2305.08891, Eq. 15 and 16); 0 leaves it.
    """
    groups = _by_params(branches)
    denoise_fns = [_batched(evaluate, [branches[number] for number in group]) for group in groups]

    def guided(z: jax.Array, logsnr: jax.Array) -> Prediction:
        found: dict[int, Prediction] = {}
        for group, denoise_fn in zip(groups, denoise_fns, strict=True):
            found |= dict(zip(group, denoise_fn(z, logsnr), strict=True))
        terms = [jnp.asarray(branch.weight * found[number].x) for number, branch in enumerate(branches)]
        return found[0]._replace(x=_rescaled(sum(terms[1:], terms[0]), like=found[0].x, phi=rescale))

    return guided


def check_weights(branches: Sequence[Branch]) -> None:
    """Raises InputError unless the branches' weights, concrete numbers, have the sum 1."""
    weights = [float(np.asarray(branch.weight)) for branch in branches]
    largest = max([1.0, *map(abs, weights)])
    if not math.isfinite(sum(weights)) or abs(sum(weights) - 1.0) > _TOLERANCE * largest:
        raise InputError(
            f"the weights of guidance's branches must have the sum 1 (got {' + '.join(f'{w:g}' for w in weights)} = "
            f"{sum(weights):g}); give what is left to the branch that guidance leads away from"
        )


def interleave(*arrays: jax.Array) -> jax.Array:
    """[B,...] n times -> [nB,...]: a[0], b[0], ..., a[1], b[1], ...

    Rather than all of a before all of b, so that nothing moves where the batch is divided among devices.
    """
    return jnp.stack(arrays, axis=1).reshape(-1, *arrays[0].shape[1:])


def _by_params(branches: Sequence[Branch]) -> list[list[int]]:
    """The numbers of the branches, those of the same parameters together."""
    groups: dict[int, list[int]] = {}
    for number, branch in enumerate(branches):
        groups.setdefault(id(branch.params), []).append(number)
    return list(groups.values())


def _batched(
    evaluate: Callable[[Params | None, Conditions], DenoiseFn], branches: Sequence[Branch]
) -> Callable[[jax.Array, jax.Array], list[Prediction]]:
    """What branches of the same parameters predict, by one evaluation."""
    seen: list[Conditions] = [branch.conditions or {} for branch in branches]
    count = len(seen)
    if count == 1:
        alone = evaluate(branches[0].params, seen[0])
        return lambda z, logsnr: [alone(z, logsnr)]
    together = {name: interleave(*(jnp.asarray(each[name]) for each in seen)) for name in seen[0]}
    denoise_fn = evaluate(branches[0].params, together)

    def each(z: jax.Array, logsnr: jax.Array) -> list[Prediction]:
        prediction = denoise_fn(interleave(*[z] * count), interleave(*[logsnr] * count))
        parts = jax.tree.map(lambda x: x.reshape(-1, count, *z.shape[1:]), prediction)
        return [jax.tree.map(lambda part, number=number: part[:, number], parts) for number in range(count)]

    return each


def _rescaled(guided: jax.Array, *, like: jax.Array, phi: float) -> jax.Array:
    if not phi:
        return guided
    axes = tuple(range(1, guided.ndim))
    ratio = jnp.std(like, axis=axes, keepdims=True) / jnp.maximum(jnp.std(guided, axis=axes, keepdims=True), 1e-6)
    return guided * (phi * ratio + (1.0 - phi))


class ByLevel(NamedTuple):
    """Another denoise_fn for noise levels in an interval: for guidance there alone, or for experts of some levels.

    A sampler asks before it compiles a step, so that what a level doesn't use isn't computed: guidance in the middle
    half of the levels costs a quarter fewer network evaluations than everywhere (arXiv 2404.07724).

    Attributes:
      intervals: (logsnr from, logsnr to, both included, denoise_fn); the first that holds a level is taken.
      otherwise: of the levels that none holds.
    """

    intervals: Sequence[tuple[float, float, DenoiseFn]]
    otherwise: DenoiseFn

    def at(self, logsnr: float) -> DenoiseFn:
        """The denoise_fn of a level."""
        inside = (denoise_fn for low, high, denoise_fn in self.intervals if low <= logsnr <= high)
        return next(inside, self.otherwise)
