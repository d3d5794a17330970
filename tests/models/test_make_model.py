import jax.numpy as jnp
import pytest

from imagen_jax.errors import InputError
from imagen_jax.models import MODELS, make_model
from imagen_jax.models.efficient_unet import EfficientUNet
from imagen_jax.models.unet import UNet


def test_lists_from_json_become_tuples():
    lists = {"channel_mults": [1, 2], "num_blocks": [1, 2], "attention": ["none", "cross"]}
    model = make_model("efficient_unet", dtype="float32", channels=8, **lists)
    tuples = {"channel_mults": (1, 2), "num_blocks": (1, 2), "attention": ("none", "cross")}
    assert model == EfficientUNet(channels=8, dtype=jnp.float32, **tuples)
    assert hash(model) is not None


@pytest.mark.parametrize("name", MODELS)
def test_the_compute_type_is_bfloat16_unless_named(name):
    assert make_model(name).dtype == jnp.bfloat16
    assert make_model(name, dtype="float32").dtype == jnp.float32


def test_the_default_is_the_papers_base():
    assert make_model("unet") == UNet(channels=512, channel_mults=(1, 2, 3, 4), num_blocks=3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "unnet"}, 'unknown model "unnet"; choose from: efficient_unet, unet. Did you mean "unet"?'),
        ({"name": "unet", "dtype": "float16"}, 'unknown dtype "float16"; choose from: bfloat16, float32.'),
        (
            {"name": "unet", "chanels": 8},
            'model "unet" has no "chanels"; it has: channels, .* Did you mean "channels"?',
        ),
        (
            {"name": "efficient_unet", "rsqrt2_on": "residul"},
            'unknown rsqrt2_on "residul"; choose from: residual, shortcut, skip. Did you mean "residual"?',
        ),
        ({"name": "unet", "rsqrt2_on": "skip"}, 'model "unet" has no "rsqrt2_on"'),
        ({"name": "unet", "low_res_residual": True}, 'model "unet" has no "low_res_residual"'),
        ({"name": "unet", "parent": None}, 'model "unet" has no "parent"'),
    ],
)
def test_a_wrong_name_is_refused_with_the_choices(arguments, message):
    with pytest.raises(InputError, match=message.replace("?", r"\?")):
        make_model(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "unet", "head_channels": 0}, "head_channels must be a whole number from 1 to 16,384 (got 0)"),
        ({"name": "unet", "head_channels": -1}, "head_channels must be a whole number from 1 to 16,384 (got -1)"),
        ({"name": "unet", "remat": 1}, "remat must be True or False (got 1)"),
        (
            {"name": "unet", "num_blocks": (1, 1, 1, 1)},
            "num_blocks must be a whole number from 1 to 64 (got (1, 1, 1, 1))",
        ),
        (
            {"name": "unet", "channels": 50},
            "channels = 50 makes a text vector of 200, which heads of 64 channels can't ",
        ),
        (
            {"name": "unet", "channels": 64, "head_channels": 48},
            "head_channels = 48 doesn't divide level 3's width, channels * channel_mults[3] = 256; use 32",
        ),
        ({"name": "efficient_unet", "num_heads": 0}, "num_heads must be a whole number from 1 to 1,024 (got 0)"),
        (
            {"name": "efficient_unet", "num_heads": 3},
            "num_heads = 3 doesn't divide level 3's width, channels * channel_mults[3] = 1024; use 2",
        ),
        ({"name": 3}, "model must be a text (got 3)"),
    ],
)
def test_a_value_that_no_network_has_is_refused(arguments, message):
    with pytest.raises(InputError) as error:
        make_model(**arguments)
    assert str(error.value).startswith(message)
