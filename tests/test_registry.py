import pytest

from imagen_jax.errors import InputError
from imagen_jax.registry import did_you_mean, lookup

TABLE = {"ddpm": 1, "ddim": 2, "heun": 3}


def test_lookup_returns_the_entry():
    assert lookup(TABLE, "ddim", what="sampler") == 2


def test_unknown_name_lists_the_choices_and_the_closest():
    with pytest.raises(InputError) as error:
        lookup(TABLE, "huen", what="sampler")
    assert str(error.value) == 'unknown sampler "huen"; choose from: ddim, ddpm, heun. Did you mean "heun"?'


def test_nothing_is_guessed_when_nothing_is_close():
    assert did_you_mean("euler", TABLE) == ""
