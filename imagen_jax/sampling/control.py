"""Control of a network's layers while it samples: reading and changing what is computed in them.

It is an argument of the compiled program and entered inside it. `flax.linen.intercept_methods` around a program that is
already compiled does nothing, without a word: interceptors are no part of what jax knows a program by.
"""

import contextlib
import difflib
import fnmatch
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax
from flax import linen as nn

from imagen_jax.errors import InputError


class Control(Protocol):
    """What is done to some layers. Hashable: a program is compiled for each that isn't equal to one before.

    Attributes:
      layers: paths of modules, such as "down1_attention0/attend" or, with wildcards, "*/attend"
        (`models.attention.Attend`). Only the `__call__` of these is intercepted.
    """

    layers: tuple[str, ...]

    def __call__(self, call: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], path: str, /) -> Any:
        """Returns what takes the place of the layer's output, which `call(*args, **kwargs)` is."""
        ...

    def __hash__(self) -> int: ...


def entered(control: Control | None) -> contextlib.AbstractContextManager[None]:
    """Controls what is traced inside; None: nothing."""
    if control is None:
        return contextlib.nullcontext()

    def intercept(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        path = "/".join(context.module.path)
        chosen = context.method_name == "__call__" and any(fnmatch.fnmatch(path, glob) for glob in control.layers)
        return control(call, args, kwargs, path) if chosen else call(*args, **kwargs)

    return nn.intercept_methods(intercept)


def check_layers(control: Control | None, network: nn.Module, shapes: Mapping[str, Any]) -> None:
    """Checks that each of a control's layers is in the network.

    Args:
      control: None: nothing to check.
      shapes: what the network is called with (`conditions.inputs.network_shapes`).

    Raises:
      InputError: a path that fits no layer; the message lists the nearest.
    """
    if control is None:
        return
    paths = layer_paths(network, shapes)
    for glob in control.layers:
        if not any(fnmatch.fnmatch(path, glob) for path in paths):
            near = difflib.get_close_matches(glob, paths, n=3, cutoff=0.0)
            raise InputError(
                f'the network {type(network).__name__} has no layer "{glob}" to control; the nearest: {", ".join(near)}'
            )


def layer_paths(network: nn.Module, shapes: Mapping[str, Any]) -> list[str]:
    """Returns the paths of all modules inside a network, in the order in which they are called."""
    paths: dict[str, None] = {}

    def record(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        if context.method_name == "__call__" and context.module.path:
            paths["/".join(context.module.path)] = None
        return call(*args, **kwargs)

    with nn.intercept_methods(record):
        jax.eval_shape(lambda **given: network.init(jax.random.key(0), **given), **shapes)
    return list(paths)
