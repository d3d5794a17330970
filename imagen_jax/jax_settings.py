"""Settings of jax, out of its environment variables, that would change a run's numbers without a word.

Measured with jax 0.10.2 on a step of a small base stage: of the settings below the first group changes initial
parameters, noise or gradients, or stops the program; JAX_DEFAULT_DTYPE_BITS is read no more, and
JAX_NUMPY_RANK_PROMOTION, JAX_ENABLE_CHECKS, JAX_ENABLE_CUSTOM_PRNG, JAX_SOFTMAX_CUSTOM_JVP and JAX_USE_DIRECT_LINEARIZE
change no bit.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
from absl import logging

from imagen_jax.errors import InputError


class _Setting(NamedTuple):
    """A value that leaves a run as it is, and what any other does."""

    right: Any
    effect: str


_REFUSED: Mapping[str, _Setting] = {
    "jax_enable_x64": _Setting(False, "computes in 64 bits and draws other noise"),
    "jax_default_prng_impl": _Setting("threefry2x32", "draws other parameters and noise"),
    "jax_threefry_partitionable": _Setting(True, "draws other parameters and noise"),
    "jax_random_seed_offset": _Setting(0, "draws the parameters and noise of another seed"),
    "jax_numpy_dtype_promotion": _Setting("standard", "refuses sums of numbers of two types, which there are"),
    "jax_no_execution": _Setting(False, "runs nothing"),
    "jax_no_tracing": _Setting(False, "compiles nothing"),
}
_WARNED: Mapping[str, _Setting] = {
    "jax_disable_jit": _Setting(False, "runs without compiling: many times slower, and other last digits"),
    "jax_debug_nans": _Setting(False, "is slow, and ends the process at a NaN, where training would skip the step"),
    "jax_debug_infs": _Setting(
        False, "is slow, and ends the process at an infinity, where training would skip the step"
    ),
    "jax_default_matmul_precision": _Setting(None, "changes how products are rounded, on GPUs and TPUs"),
}


def check() -> None:
    """Looks at jax's settings before a main runs; warns of those that are for finding faults.

    Raises:
      InputError: one that would change a run's numbers in silence.
    """
    for name, setting in _REFUSED.items():
        if (value := _value(name, setting)) != setting.right:
            raise InputError(f"{name.upper()}={value} {setting.effect}; unset it, or set it to {setting.right}")
    for name, setting in _WARNED.items():
        if (value := _value(name, setting)) != setting.right:
            logging.warning("%s=%s %s", name.upper(), value, setting.effect)


def _value(name: str, setting: _Setting) -> Any:
    # A jax that has no such setting any more can't be changed by it.
    return jax.config.values.get(name, setting.right)
