"""What a training may begin with, and what is refused before anything is compiled."""

import logging
from pathlib import Path

import jax
import numpy as np
import pytest

from imagen_jax import build
from imagen_jax.errors import InputError
from imagen_jax.trained import open_start, open_trained, say_what_differs
from tests import tiny_config
from tests.sampling import tiny_cascade


@pytest.fixture(scope="module")
def cascade(tmp_path_factory) -> Path:
    return tiny_cascade.write(tmp_path_factory.mktemp("trained"))


def config_of(cascade: Path, stage: str = "stage_8"):
    """Of a run with the network of the cascade's first stage."""
    config = tiny_config.get_config("base")
    config.model = type(config.model)(tiny_cascade.MODELS[8] | {"dtype": "float32", "remat": False})
    config.train.init_from = str(cascade / stage)
    return config


def start(config, width: int = tiny_cascade.WIDTH):
    state, frozen = build.shapes(config, text_width=width)
    network = build.task(config).merge(state.params, frozen)
    return open_start(config, network, some_frozen=bool(frozen), text_width=width)


def test_a_stage_of_a_cascade_gives_its_parameters(cascade):
    found = start(config_of(cascade))
    assert found is not None and found.stage.image_size == 8
    params = found.load()
    jax.tree.map(np.testing.assert_array_equal, params, tiny_cascade.params_of(8, cascade.parent / "encoder"))
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(params))


def test_without_it_parameters_are_random_and_none_may_be_frozen(cascade):
    config = config_of(cascade)
    config.train.init_from = ""
    assert start(config) is None
    config.train.trainable = ("*conv*",)
    with pytest.raises(InputError, match=r"trainable = \('\*conv\*',\) freezes parameters that are random; give"):
        start(config)


def test_trainable_patterns_that_fit_nothing_name_the_field(cascade):
    config = config_of(cascade)
    config.train.trainable = ("*atention*",)
    with pytest.raises(InputError, match=r"config.train.trainable: no parameter's path fits .*nearest of"):
        start(config)


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("absent", "neither a stage of a cascade, CASCADE/STAGE, nor a workdir of a training$"),
        ("", "it is a cascade: name one of its stages, .*/cascade/stage_16"),
        ("text_encoder", 'has no stage "text_encoder"; it has: stage_8, stage_16'),
    ],
)
def test_what_is_no_stage_is_one_clear_error(cascade, folder, message):
    with pytest.raises(InputError, match=message):
        open_trained(cascade / folder)


def test_another_network_is_refused_with_every_field_and_array_that_differs(cascade):
    config = config_of(cascade)
    config.model.update(channels=16, num_blocks=2, remat=True)
    with pytest.raises(InputError) as caught:
        start(config, width=32)
    message = str(caught.value)
    assert message.startswith(f'config.train.init_from: "{cascade}/stage_8" holds another network')
    for row in (
        "config.model.channels: 8 there, 16 here",
        "config.model.num_blocks: 1 there, 2 here",
        "the text's width: 16 there, 32 here",
        "conditioning/logsnr/hidden/kernel: (8, 32) there, (16, 64) here",
        "more arrays",
    ):
        assert row in message, message
    assert "remat" not in message and "dtype" not in message


def test_fields_alone_are_enough_to_be_another_network(cascade):
    config = config_of(cascade)
    config.model.head_channels = 32  # of attention, which this network has at no level: the arrays are the same
    with pytest.raises(InputError, match=r"config.model.head_channels: 64 there, 32 here$"):
        start(config)


def test_a_stage_of_another_kind_is_refused(cascade):
    config = config_of(cascade, "stage_16")
    with pytest.raises(InputError) as caught:
        start(config)
    assert "config.model.name: 'efficient_unet' there, 'unet' here" in str(caught.value)
    assert "config.data.low_res_size: 8 there, 0 here" in str(caught.value)


def test_what_may_differ_is_said(cascade, caplog):
    found = start(config_of(cascade))
    assert found is not None
    encoder = cascade.parent / "encoder"
    stage = tiny_cascade.stage_config(8, encoder, prediction="eps", sampling={"num_steps": 9})
    with caplog.at_level(logging.WARNING, logger="absl"):
        say_what_differs(found, stage)
    assert [record.getMessage() for record in caplog.records] == [
        f"not as in {cascade}/stage_8, which this run begins with: prediction: 'v' there, 'eps' here"
    ]
