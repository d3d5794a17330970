"""The flags of sampling settings, the same in every main: see `sampling.settings.SETTINGS`."""

from collections.abc import Callable
from typing import Any

from absl import flags

from imagen_jax.errors import InputError
from imagen_jax.sampling.setting_values import parse_setting
from imagen_jax.sampling.settings import SETTINGS
from imagen_jax.shared_flags import group

# A flag that a function below defines belongs to the main that calls it, whose --help lists it.
flags.disclaim_key_flags()

_TITLE = "Sampling settings"


def define_setting_flags() -> Callable[[], dict[str, Any]]:
    """Defines a flag for each setting, of a main that samples in one way.

    Returns:
      A function that returns the values of those that are given, by flag: see `parse_setting`. It raises InputError
      where one can't be read.
    """
    with group(_TITLE):
        defined = {
            name: flags.DEFINE_string(setting.flag, None, setting.field.help) for name, setting in SETTINGS.items()
        }
    return lambda: {
        flag.name: parse_setting(name, flag.value) for name, flag in defined.items() if flag.value is not None
    }


def define_point_flags() -> Callable[[], dict[str, list[str]]]:
    """As `define_setting_flags`, of a main that samples in several ways: commas separate them.

    Returns:
      A function that returns the texts of those that are given, by flag.
    """
    with group(_TITLE):
        defined = [flags.DEFINE_list(setting.flag, None, setting.field.help) for setting in SETTINGS.values()]
    return lambda: {flag.name: _texts(flag) for flag in defined if flag.value is not None}


def _texts(flag: flags.FlagHolder[Any]) -> list[str]:
    texts = ["".join(text.split()) for text in flag.value or []]
    if not texts or not all(texts):
        raise InputError(f"--{flag.name}={','.join(texts)}: expected values separated by commas, none of them empty")
    return texts
