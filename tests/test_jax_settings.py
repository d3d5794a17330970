import contextlib
from collections.abc import Iterator
from typing import Any

import jax
import pytest

from imagen_jax import jax_settings
from imagen_jax.errors import InputError


@contextlib.contextmanager
def setting(name: str, value: Any) -> Iterator[None]:
    before = jax.config.values[name]
    jax.config.update(name, value)
    try:
        yield
    finally:
        jax.config.update(name, before)


def test_plain_settings_pass_in_silence(caplog: pytest.LogCaptureFixture):
    jax_settings.check()
    assert not caplog.records


@pytest.mark.parametrize("name", [*jax_settings._REFUSED, *jax_settings._WARNED])
def test_every_setting_is_one_of_jax_s_and_has_its_default(name: str):
    assert name in jax.config.values
    assert jax.config.values[name] == {**jax_settings._REFUSED, **jax_settings._WARNED}[name].right


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "jax_enable_x64",
            True,
            "JAX_ENABLE_X64=True computes in 64 bits and draws other noise; unset it, or set it to F",
        ),
        ("jax_default_prng_impl", "rbg", "JAX_DEFAULT_PRNG_IMPL=rbg draws other parameters and noise; unset it"),
        ("jax_threefry_partitionable", False, "JAX_THREEFRY_PARTITIONABLE=False draws other parameters and noise"),
        ("jax_random_seed_offset", 1, "JAX_RANDOM_SEED_OFFSET=1 draws the parameters and noise of another seed"),
        ("jax_numpy_dtype_promotion", "strict", "JAX_NUMPY_DTYPE_PROMOTION=strict refuses sums"),
    ],
)
def test_what_changes_a_run_s_numbers_is_refused(name: str, value: Any, message: str):
    with setting(name, value), pytest.raises(InputError) as error:
        jax_settings.check()
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("name", "value", "word"),
    [
        ("jax_disable_jit", True, "slower"),
        ("jax_debug_nans", True, "skip"),
        ("jax_default_matmul_precision", "high", "TPU"),
    ],
)
def test_what_is_for_finding_faults_is_warned_of(name: str, value: Any, word: str, caplog: pytest.LogCaptureFixture):
    with setting(name, value):
        jax_settings.check()
    (record,) = caplog.records
    assert record.levelname == "WARNING" and name.upper() in record.getMessage() and word in record.getMessage()
