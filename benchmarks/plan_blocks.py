"""What single blocks of the paper's base take on a v4 chip, by the TPU's own compiler: where docs/plans.md's time goes.

python -m benchmarks.plan_blocks            seconds each; no TPU, but the extra `tpu`

Prints the table of docs/plans.md: 8 images a chip, forward and backward, beside what three forwards' operations take
at the chip's peak. Attention is also compiled as it is not computed here, with `jax.nn.dot_product_attention`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from imagen_jax import cli
from imagen_jax.models import attention
from imagen_jax.models.flops import count_flops
from imagen_jax.models.layers import ResBlock
from imagen_jax.planning.compiled import Compiled, compile_lowered
from imagen_jax.planning.topology import Topology, abstract_devices, only_compile, parse_topology
from imagen_jax.training import ema
from imagen_jax.training.optimizer import OPTIMIZERS

_IMAGES, _TOKENS, _TEXT_WIDTH = 8, 128, 4096


def main() -> None:
    """Prints a line a block."""
    only_compile()
    topology = parse_topology("v4:2x2x1")
    print("| block | three forwards at peak | estimate | temporaries |\n|---|---:|---:|---:|")
    measure = partial(_forward_and_backward, topology)
    _print("residual block, 64 px, 512 channels", *measure(ResBlock(512, dtype=jnp.bfloat16), 64, 512))
    for size, channels in ((32, 1024), (16, 1536)):
        attend = attention.ImageTextAttention(channels // 64, dtype=jnp.bfloat16)
        name = f"attention, {size} px, {channels} channels"
        with _attending_as_jax():
            _print(f"{name}, as `jax.nn.dot_product_attention`", *measure(attend, size, channels))
        _print(f"**{name}** (`models/attention.py`)", *measure(attend, size, channels))
    for name in ("adafactor", "adamw"):
        _print(f"update of 37.7M parameters, {name} and average", None, _update(topology, name))


def _print(name: str, peak_s: float | None, compiled: Compiled) -> None:
    peak = "" if peak_s is None else f"{1e3 * peak_s:.2f} ms"
    print(f"| {name} | {peak} | {1e3 * compiled.seconds:.2f} ms | {compiled.temporaries_gib:.2f} GiB |", flush=True)


def _jax_attention(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array) -> jax.Array:
    return jax.nn.dot_product_attention(q, k, v, mask=mask[:, None, None, :])


def _attending_as_jax() -> Any:
    return mock.patch.object(attention, "dot_product_attention", _jax_attention)


def _forward_and_backward(topology: Topology, block: nn.Module, size: int, channels: int) -> tuple[float, Compiled]:
    """Seconds at the chip's peak, and what the compiler says; gradients stay on each chip, whole."""

    def shapes(images: int) -> tuple[Any, ...]:
        x = jax.ShapeDtypeStruct((images, size, size, channels), jnp.bfloat16)
        if isinstance(block, ResBlock):
            return x, jax.ShapeDtypeStruct((images, 2048), jnp.bfloat16)
        text = jax.ShapeDtypeStruct((images, _TOKENS, _TEXT_WIDTH), jnp.bfloat16)
        return x, text, jax.ShapeDtypeStruct((images, _TOKENS), bool)

    def gradient(params: Any, x: jax.Array, *conditioning: jax.Array) -> Any:
        result, backward = jax.vjp(lambda params, x: block.apply(params, x, *conditioning), params, x)
        return result, backward(x)  # x stands for the gradient of the result: it has its shape

    inputs = shapes(_IMAGES * topology.num_chips)
    params = jax.eval_shape(block.init, jax.random.key(0), *inputs)
    step = _on_each_chip(topology, gradient, (P(), *[P("chips")] * len(inputs)), (P("chips"), (P(), P("chips"))))
    with _attending_as_jax():  # it computes nothing twice
        flops = 3 * count_flops(block.apply, params, *shapes(_IMAGES))
    return flops / topology.chip.peak_flops, compile_lowered(step.lower(params, *inputs))


def _update(topology: Topology, name: str) -> Compiled:
    optimizer = OPTIMIZERS[name](lambda _: 1e-4, 0.9, 0.999, 0.0)
    params = {"kernel": jax.ShapeDtypeStruct((3, 3, 2048, 2048), jnp.float32)}
    state = jax.eval_shape(optimizer.init, params)

    def update(params: Any, state: Any, ema_params: Any, grads: Any) -> Any:
        updates, state = optimizer.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        return params, state, ema.update(ema_params, params, step=jnp.int32(0), decay=0.9999)

    step = _on_each_chip(topology, update, (P(),) * 4, (P(),) * 3, donate_argnums=(0, 1, 2))
    return compile_lowered(step.lower(params, state, params, params))


def _on_each_chip(topology: Topology, function: Callable, in_specs: Any, out_specs: Any, **options: Any) -> Any:
    mesh = Mesh(np.array(abstract_devices(topology)), ("chips",))
    mapped = jax.shard_map(function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)
    return jax.jit(mapped, **options)


if __name__ == "__main__":
    cli.run(main)
