"""What a training may begin with, and what is refused before anything is compiled."""

import dataclasses
import logging
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from imagen_jax import build
from imagen_jax.config import to_json
from imagen_jax.errors import InputError, NotFiniteError
from imagen_jax.files import write_json
from imagen_jax.trained import load_run_params, open_start, open_trained, say_what_differs
from imagen_jax.training.checkpoint import Checkpointer
from imagen_jax.training.selection import select, union
from imagen_jax.training.state import NOTHING_FROZEN, Frozen
from tests import tiny_config
from tests.sampling import tiny_cascade
from tests.training import tiny


@pytest.fixture(scope="module")
def cascade(tmp_path_factory) -> Path:
    return tiny_cascade.write(tmp_path_factory.mktemp("trained"))


def config_of(cascade: Path, stage: str = "stage_8"):
    """Of a run with the network of the cascade's first stage."""
    config = tiny_config.get_config("base")
    config.model = type(config.model)(tiny_cascade.MODELS[8] | {"dtype": "float32", "remat": False})
    config.train.init_from = str(cascade / stage)
    return config


def start(config, width: int = tiny_cascade.WIDTH, workdir: Path | None = None):
    state, frozen = build.shapes(config, text_width=width)
    network = build.task(config).merge(state.params, frozen)
    return open_start(config, network, some_frozen=bool(frozen), text_width=width, workdir=workdir)


def test_a_stage_of_a_cascade_gives_its_parameters(cascade):
    found = start(config_of(cascade))
    assert found is not None and found.stage.image_size == 8
    params, step = found.load()
    assert step == 0
    jax.tree.map(np.testing.assert_array_equal, params, tiny_cascade.params_of(8, cascade.parent / "encoder"))
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(params))


def write_run(workdir: Path, config, params, *, frozen: Frozen = NOTHING_FROZEN, steps=(3,)) -> Path:
    """The workdir of a run of `config`, as far as others read it."""
    encoder = Path(config.train.init_from).parents[1] / "encoder"
    stage = tiny_cascade.stage_config(8, encoder, model=config.model.to_dict())
    workdir.mkdir()
    write_json(workdir / "stage.json", dataclasses.asdict(stage))
    (workdir / "config.json").write_text(to_json(config))
    checkpointer, batches = Checkpointer(workdir, keep=3, frozen=frozen), tiny.positions()
    for step in steps:
        next(batches)
        checkpointer.save(step, jax.device_put(tiny.state_of(params, tiny.optimizer(), step=step)), batches)
    checkpointer.close()
    return workdir


@pytest.fixture
def frozen_run(cascade, tmp_path):
    """A run whose convolutions alone were trained, and moved from what they were; all its parameters; its config."""
    origin = shutil.copytree(cascade, tmp_path / "moved" / "cascade")
    config = config_of(cascade)
    config.train.trainable = ("*conv*",)
    params, frozen = select(tiny_cascade.params_of(8, cascade.parent / "encoder"), config.train.trainable)
    params = jax.tree.map(lambda leaf: leaf + 1, params)
    reference = Frozen(frozen, str(origin / "stage_8"))
    return write_run(tmp_path / "run", config, params, frozen=reference), union(params, frozen), config


def test_a_run_gives_the_average_of_its_newest_checkpoint_that_is_whole(cascade, tmp_path, caplog):
    config = config_of(cascade)
    params = tiny_cascade.params_of(8, cascade.parent / "encoder")
    workdir = write_run(tmp_path / "run", config, params, steps=(2, 3))
    config.train.init_from = str(workdir)
    with pytest.raises(InputError, match="is this run's own --workdir; name another run"):
        start(config, workdir=workdir)
    found = start(config)
    assert found is not None and found.folder == workdir
    assert found.load()[1] == 3
    next((workdir / "checkpoints/3").rglob("_METADATA")).unlink()
    again, step = found.load()
    assert step == 2 and "the checkpoint of step 3" in caplog.text
    jax.tree.map(np.testing.assert_array_equal, again, params)


def test_a_run_that_cant_be_begun_with_is_one_clear_error(cascade, tmp_path):
    config = config_of(cascade)
    params = tiny_cascade.params_of(8, cascade.parent / "encoder")
    empty = write_run(tmp_path / "empty", config, params, steps=())
    with pytest.raises(InputError, match="is a run that has no checkpoint yet; train it longer"):
        open_trained(empty)
    params["conv_in"]["kernel"] = params["conv_in"]["kernel"] * np.nan
    broken = write_run(tmp_path / "broken", config, params)
    with pytest.raises(NotFiniteError, match=r'broken", step 3, .*parameter conv_in/kernel holds infinities or NaN'):
        open_trained(broken).load()
    other = write_run(tmp_path / "other", config, {"conv_out": params["conv_out"]})
    with pytest.raises(InputError, match=r"stage\.json describes another network than the checkpoint holds"):
        open_trained(other).load()


def test_frozen_parameters_are_put_back_wherever_they_are_now(frozen_run, cascade):
    workdir, whole, _ = frozen_run
    stage = open_trained(workdir).stage
    jax.tree.map(np.testing.assert_array_equal, load_run_params(workdir, stage)[0], whole)
    (workdir.parent / "moved").rename(workdir.parent / "gone")
    with pytest.raises(
        InputError, match=r"needed now: .*moved/cascade/stage_8.* is no folder.*of export, --frozen_from"
    ):
        load_run_params(workdir, stage)
    found, _ = load_run_params(workdir, stage, frozen_from=[cascade / "stage_8"])
    jax.tree.map(np.testing.assert_array_equal, found, whole)


def test_other_frozen_parameters_and_a_run_that_begins_with_itself_are_refused(frozen_run, tmp_path):
    workdir, whole, config = frozen_run
    stage = open_trained(workdir).stage
    (workdir.parent / "moved").rename(workdir.parent / "gone")
    other = write_run(tmp_path / "other", config_of(Path(config.train.init_from).parent), jax.tree.map(abs, whole))
    with pytest.raises(InputError, match="arrays are others now, among them "):
        load_run_params(workdir, stage, frozen_from=[other])
    with pytest.raises(InputError, match="begins with itself"):
        load_run_params(workdir, stage, frozen_from=[workdir])


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
        ("absent", "is no folder; expected a stage of a cascade, CASCADE/STAGE, or the workdir of a training$"),
        ("..", "holds no network; expected a stage"),
        ("", "is a whole cascade; name one of its stages: stage_16, stage_8$"),
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
