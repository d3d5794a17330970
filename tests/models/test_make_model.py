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
