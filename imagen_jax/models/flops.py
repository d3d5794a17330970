"""Floating point operations from shapes alone: nothing is compiled, and no array is made.

The program is walked as traced: what a compiler would drop counts too. Conventions, those of XLA's cost analysis where
nothing else is said:

  a multiply-add is two operations;
  a convolution's tap that falls on padding, or between dilated inputs, is none;
  other arithmetic is one operation for each floating point number that it makes; a sum of n numbers is n - 1;
  exponentials and their like are none: XLA has a count of their own for them;
  moving and converting data, whole numbers and truth values are none (XLA: often one each).
"""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn


def count_flops(function: Callable[..., Any], *args: Any, **kwargs: Any) -> int:
    """Floating point operations of one call `function(*args, **kwargs)`; a multiply-add counts two.

    Of a forward pass (`model.apply`), of gradients or of a whole training step, where recomputed activations
    (`nn.remat`) count again. A scan's body counts as often as it runs, a condition as its longest branch.

    Args:
      function: what `jax.jit` would take; of a step on many devices, the function of one.
      args, kwargs: arrays, or `jax.ShapeDtypeStruct`s in their place.

    Raises:
      NotImplementedError: a loop of unknown length (`jax.lax.while_loop`), or another primitive that holds a program
        and isn't known here, such as a hand-written kernel.
    """
    return _program(jax.make_jaxpr(function)(*args, **kwargs).jaxpr)


def _program(jaxpr: Jaxpr) -> int:
    return sum(map(_operation, jaxpr.eqns))


def _operation(equation: JaxprEqn) -> int:
    primitive = equation.primitive.name
    if primitive in _RULES:
        return _RULES[primitive](equation)
    if primitive in _MOVES or primitive in _TRANSCENDENTAL:
        return 0
    inner = list(_inner_programs(equation))
    if inner and primitive not in _CALLS:
        raise NotImplementedError(
            f'"{primitive}" holds a program, and how often that runs isn\'t known from shapes here. Use scan or '
            "fori_loop with constant bounds for while_loop; count one device's function for shard_map"
        )
    if inner:
        return sum(map(_program, inner))
    return sum(_size(out) for out in equation.outvars if _is_floating(out))


def _inner_programs(equation: JaxprEqn) -> Iterator[Jaxpr]:
    def is_program(x: Any) -> bool:
        return isinstance(x, Jaxpr | ClosedJaxpr)

    for value in jax.tree.leaves(list(equation.params.values()), is_leaf=is_program):
        if is_program(value):
            yield getattr(value, "jaxpr", value)


def _shape(variable: Any) -> tuple[int, ...]:
    return variable.aval.shape


def _size(variable: Any) -> int:
    return math.prod(_shape(variable))


def _is_floating(variable: Any) -> bool:
    return jnp.issubdtype(variable.aval.dtype, jnp.inexact)


def _matmul(equation: JaxprEqn) -> int:
    (contracted, _), _ = equation.params["dimension_numbers"]
    shape = _shape(equation.invars[0])
    return 2 * _size(equation.outvars[0]) * math.prod(shape[axis] for axis in contracted)


def _convolution(equation: JaxprEqn) -> int:
    params = equation.params
    image, kernel, out = (_shape(variable) for variable in (*equation.invars, *equation.outvars))
    # Axes: batch, feature, *spatial; of the kernel: output, input (of one group), *spatial.
    image_axes, kernel_axes, out_axes = params["dimension_numbers"]
    multiply_adds = out[out_axes[0]] * out[out_axes[1]] * kernel[kernel_axes[1]]
    for image_axis, kernel_axis, out_axis, stride, (low, _), image_dilation, kernel_dilation in zip(
        image_axes[2:],
        kernel_axes[2:],
        out_axes[2:],
        params["window_strides"],
        params["padding"],
        params["lhs_dilation"],
        params["rhs_dilation"],
        strict=True,
    ):
        outputs = stride * np.arange(out[out_axis])[:, None] - low
        taps = kernel_dilation * np.arange(kernel[kernel_axis])[None, :]
        index, between = np.divmod(outputs + taps, image_dilation)
        multiply_adds *= int(np.sum((between == 0) & (index >= 0) & (index < image[image_axis])))
    return 2 * multiply_adds


def _reduction(equation: JaxprEqn) -> int:
    if not _is_floating(equation.invars[0]):
        return 0
    return _size(equation.invars[0]) - _size(equation.outvars[0])


def _window_reduction(equation: JaxprEqn) -> int:
    if not _is_floating(equation.invars[0]):
        return 0
    return _size(equation.outvars[0]) * (math.prod(equation.params["window_dimensions"]) - 1)


def _scan(equation: JaxprEqn) -> int:
    return equation.params["length"] * _program(equation.params["jaxpr"].jaxpr)


def _longest_branch(equation: JaxprEqn) -> int:
    return max(_program(branch.jaxpr) for branch in equation.params["branches"])


def _scatter_add(equation: JaxprEqn) -> int:
    return _size(equation.invars[2]) if _is_floating(equation.invars[2]) else 0


_RULES: Mapping[str, Callable[[JaxprEqn], int]] = {
    "dot_general": _matmul,
    "conv_general_dilated": _convolution,
    "scan": _scan,
    "cond": _longest_branch,
    "scatter-add": _scatter_add,
    **dict.fromkeys(("reduce_sum", "reduce_prod", "reduce_max", "reduce_min"), _reduction),
    **dict.fromkeys(("reduce_window_sum", "reduce_window_max", "reduce_window_min"), _window_reduction),
}
# One that is missing here counts as arithmetic, one operation a number: little beside convolutions and products.
_MOVES = {"broadcast_in_dim", "concatenate", "pad", "reshape", "rev", "slice", "split", "squeeze", "transpose"}
_MOVES |= {"dynamic_slice", "dynamic_update_slice", "gather", "scatter", "iota", "convert_element_type"}
_MOVES |= {"bitcast_convert_type", "copy", "stop_gradient", "optimization_barrier"}
_TRANSCENDENTAL = {"exp", "exp2", "expm1", "log", "log1p", "logistic", "pow", "sqrt", "rsqrt", "cbrt"}
_TRANSCENDENTAL |= {"sin", "cos", "tan", "asin", "acos", "atan", "atan2", "sinh", "cosh", "tanh", "erf", "erf_inv"}
# They run their program once. jax has renamed some of them: jit was pjit, remat2 was checkpoint.
_CALLS = {"jit", "pjit", "closed_call", "remat2", "checkpoint", "custom_jvp_call", "custom_vjp_call"}
