"""A network's inputs, put together from its conditions: the one place for training, sampling and planning."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from imagen_jax.conditions.base import Condition, Shape
from imagen_jax.errors import InputError
from imagen_jax.types import Array, Conditions


def network_shapes(conditions: Sequence[Condition], shape: Shape, *, batch_size: int = 1) -> dict[str, Any]:
    """Returns shapes and types of what a network is called with: z, logsnr and conditions.

    Args:
      conditions: of the network.
      shape: of a sample: (H, W, C).
      batch_size: B.
    """
    seen = {name: array for condition in conditions for name, array in condition.seen(shape).items()}
    one = {"z": jax.ShapeDtypeStruct(shape, jnp.float32), "logsnr": jax.ShapeDtypeStruct((), jnp.float32)}
    return _batched(one | {"conditions": seen}, batch_size)


def batch_shapes(conditions: Sequence[Condition], shape: Shape, *, batch_size: int) -> dict[str, Any]:
    """Returns shapes and types of a training batch: image, and what the conditions are given."""
    given = {name: array for condition in conditions for name, array in condition.given(shape).items()}
    return _batched({"image": jax.ShapeDtypeStruct(shape, jnp.float32), **given}, batch_size)


def for_training(
    conditions: Sequence[Condition], batch: Mapping[str, Array], keys: jax.Array, *, shape: Shape
) -> dict[str, Array]:
    """Makes what a network sees in training: see `Condition.for_training`.

    Raises:
      InputError: the batch lacks what a condition is made of.
    """
    _check_given(conditions, batch, shape)
    return _merged(condition.for_training(batch, keys, shape=shape) for condition in conditions)


def for_sampling(
    conditions: Sequence[Condition], given: Conditions, keys: jax.Array, *, shape: Shape, settings: Any
) -> dict[str, Array]:
    """Makes what a network sees in sampling: see `Condition.for_sampling`."""
    return _merged(condition.for_sampling(given, keys, shape=shape, settings=settings) for condition in conditions)


def null(conditions: Sequence[Condition], seen: Conditions) -> dict[str, Array]:
    """Returns what is `seen` with each condition's null in its place."""
    return {**seen, **_merged(condition.null(seen) for condition in conditions)}


def check_given(conditions: Sequence[Condition], given: Conditions, *, shape: Shape) -> None:
    """Checks what is given to sample from: exactly the conditions' arrays, of their shapes.

    Raises:
      InputError: an array is missing, of another shape, or of no condition.
    """
    _check_given(conditions, given, shape)
    expected = {name: array for condition in conditions for name, array in condition.given(shape).items()}
    if unknown := sorted(given.keys() - expected.keys()):
        raise InputError(
            f'"{unknown[0]}" is of no condition of this stage; it is given {", ".join(sorted(expected)) or "nothing"}'
        )
    for name, array in expected.items():
        if tuple(given[name].shape[1:]) != tuple(array.shape):
            raise InputError(
                f'the condition "{name}" must be [B,{",".join(map(str, array.shape))}] (got {list(given[name].shape)})'
            )


def with_defaults(conditions: Sequence[Condition], given: Conditions, *, count: int, shape: Shape) -> Conditions:
    """Returns what is given, and the defaults of conditions that have some and are given nothing; `count` of each."""
    for condition in conditions:
        default = getattr(condition, "default", None)
        if default and not condition.given(shape).keys() & given.keys():
            given = {**given, **default(count, shape=shape)}
    return given


def from_record(conditions: Sequence[Condition], record: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the arrays of one example that conditions make of a source's record."""
    makers = (getattr(condition, "from_record", None) for condition in conditions)
    return _merged(make(record) for make in makers if make)


def _check_given(conditions: Sequence[Condition], given: Conditions, shape: Shape) -> None:
    for condition in conditions:
        for name in condition.given(shape):
            if name not in given:
                raise InputError(
                    f'the condition {type(condition).__name__} needs "{name}", which isn\'t given; there are: '
                    f"{', '.join(sorted(given)) or 'none'}"
                )


def _batched(tree: Any, batch_size: int) -> Any:
    return jax.tree.map(lambda array: jax.ShapeDtypeStruct((batch_size, *array.shape), array.dtype), tree)


def _merged(parts: Any) -> dict[str, Array]:
    return {name: array for part in parts for name, array in part.items()}
