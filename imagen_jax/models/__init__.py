"""Networks (flax.linen). They know tensors, not diffusion, text encoders or data."""

import inspect
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from imagen_jax.errors import InputError
from imagen_jax.fields import Field, check_fields
from imagen_jax.models.efficient_unet import ATTENTION_KINDS, RSQRT2_PLACES, EfficientUNet
from imagen_jax.models.fields import NETWORK_FIELDS, check_widths
from imagen_jax.models.unet import UNet
from imagen_jax.registry import did_you_mean, lookup

MODELS: Mapping[str, Any] = {"unet": UNet, "efficient_unet": EfficientUNet}
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def make_model(name: str, *, dtype: str = "bfloat16", **kwargs: Any) -> nn.Module:
    """The network called `name`; lists (from JSON) become tuples.

    Args:
      dtype: compute type, a key of `DTYPES`; parameters are always float32.
      kwargs: the network's attributes.

    Raises:
      InputError: an unknown network, dtype or attribute, or a value that is of another type, out of its bounds, or
        doesn't fit another.
    """
    model = lookup(MODELS, _name("model", name), what="model")
    known = [key for key in inspect.signature(model).parameters if key not in ("parent", "name", "dtype")]
    for key in kwargs:
        if key not in known:
            raise InputError(f'model "{name}" has no "{key}"; it has: {", ".join(known)}.{did_you_mean(key, known)}')
    hashable = {key: tuple(value) if isinstance(value, list) else value for key, value in kwargs.items()}
    check_fields(NETWORK_FIELDS[name], hashable)
    network = model(**hashable, dtype=lookup(DTYPES, _name("dtype", dtype), what="dtype"))
    attributes = {key: getattr(network, key) for key in known}
    levels = len(network.channel_mults)
    for key in ("num_blocks", "attention", "attention_levels"):
        value = attributes.get(key)
        if isinstance(value, tuple) and len(value) != levels:
            raise InputError(f"{key} = {value} has {len(value)} entries; channel_mults has {levels}, one per level")
    for kind in attributes.get("attention", ()):
        lookup(ATTENTION_KINDS, kind, what="attention")
    if "rsqrt2_on" in attributes:
        lookup(RSQRT2_PLACES, attributes["rsqrt2_on"], what="rsqrt2_on")
    check_widths(name, attributes)
    return network


def _name(what: str, value: Any) -> str:
    Field(str, "").check(what, value)
    return value
