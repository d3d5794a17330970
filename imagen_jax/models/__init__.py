"""Networks (flax.linen). They know tensors, not diffusion, text encoders or data."""

import inspect
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from imagen_jax.errors import InputError
from imagen_jax.fields import Field, check_fields
from imagen_jax.models.efficient_unet import EfficientUNet
from imagen_jax.models.unet import UNet
from imagen_jax.registry import did_you_mean, find, is_import_path, lookup

MODELS: Mapping[str, Any] = {"unet": UNet, "efficient_unet": EfficientUNet}
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def make_model(name: str, *, dtype: str = "bfloat16", remat: bool = False, **kwargs: Any) -> nn.Module:
    """The network called `name`; lists (from JSON) become tuples.

    Args:
      name: a key of `MODELS`, or the import path of a network of the caller's own: "my_project.nets:MyNet".
      dtype: compute type, a key of `DTYPES`; parameters are always float32. Of a network that has no such attribute,
        which computes in the type that it likes, nothing is asked.
      remat: recompute activations; of a network that can't, False.
      kwargs: the network's other attributes.

    Raises:
      InputError: an unknown network, dtype or attribute, or a value that is of another type, out of its bounds, or
        doesn't fit another.
    """
    model = find(MODELS, _text("model", name), what="model")
    if not (inspect.isclass(model) and issubclass(model, nn.Module)):
        raise InputError(f'model "{name}" is no network, a subclass of flax.linen.Module (it is {model!r:.80})')
    known = [key for key in inspect.signature(model).parameters if key not in ("parent", "name", "dtype")]
    if "remat" in known or remat:
        kwargs["remat"] = remat
    for key in kwargs:
        if key not in known:
            raise InputError(f'model "{name}" has no "{key}"; it has: {", ".join(known)}.{did_you_mean(key, known)}')
    hashable = {key: tuple(value) if isinstance(value, list) else value for key, value in kwargs.items()}
    check_fields(fields_of(name), hashable)
    compute_type = lookup(DTYPES, _text("dtype", dtype), what="dtype")
    network = model(**hashable, **({"dtype": compute_type} if "dtype" in inspect.signature(model).parameters else {}))
    check = getattr(network, "check", None)
    if check:
        check()
    return network


def fields_of(name: Any) -> Mapping[str, Field]:
    """The fields of the network called `name`, the attribute FIELDS of its class; {} where there is none."""
    if isinstance(name, str) and (name in MODELS or is_import_path(name)):
        return getattr(find(MODELS, name, what="model"), "FIELDS", {})
    return {}


def _text(what: str, value: Any) -> str:
    Field(str, "").check(what, value)
    return value
