import numpy as np
import pytest

from imagen_jax import build
from imagen_jax.config import base_config, to_json, validate
from imagen_jax.errors import InputError
from imagen_jax.resolve import draw_distinct, resolve
from tests import tiny_config

CAPTIONS = [f"picture {k % 20}" for k in range(100)]


def make_config(*, num_steps=400, num_epochs=0.0, decay_steps=-1, warmup_steps=50, batch_size=8):
    config = tiny_config.get_config()
    config.prompts = ("auto",)
    config.train.update(num_steps=num_steps, num_epochs=num_epochs)
    config.optimizer.update(decay_steps=decay_steps, warmup_steps=warmup_steps)
    config.data.batch_size = batch_size
    return config.lock()


@pytest.mark.parametrize(("num_steps", "warmup_steps"), [(400, 50), (100, 50), (99, 49), (10, 5), (1, 0)])
def test_the_decay_ends_with_the_run_and_the_warm_up_takes_at_most_half(num_steps, warmup_steps):
    optimizer = resolve(make_config(num_steps=num_steps)).optimizer
    assert (optimizer.decay_steps, optimizer.warmup_steps) == (num_steps, warmup_steps)


@pytest.mark.parametrize("decay_steps", [0, 60, 500])
def test_a_decay_that_is_given_stays_and_so_does_its_warm_up(decay_steps):
    optimizer = resolve(make_config(num_steps=10, decay_steps=decay_steps)).optimizer
    assert (optimizer.decay_steps, optimizer.warmup_steps) == (decay_steps, 50)


@pytest.mark.parametrize(
    ("num_epochs", "batch_size", "num_steps"), [(1.0, 8, 13), (2, 8, 25), (0.5, 100, 1), (50.0, 10, 500)]
)
def test_epochs_become_steps_when_the_data_set_is_there(num_epochs, batch_size, num_steps):
    config = make_config(num_epochs=num_epochs, batch_size=batch_size)
    validate(config, num_devices=1)
    resolved = resolve(config, captions=CAPTIONS)
    assert resolved.train.num_steps == resolved.optimizer.decay_steps == num_steps
    assert config.train.num_steps == 400


@pytest.mark.parametrize("num_epochs", [-1.0, float("nan"), float("inf")])
def test_a_number_of_epochs_that_is_none_is_named(num_epochs):
    with pytest.raises(InputError, match=r"config\.train\.num_epochs must be a number from 0 to 1,000,000"):
        validate(make_config(num_epochs=num_epochs), num_devices=1)


@pytest.mark.parametrize("num_epochs", [0.0, 3.0])
def test_a_resolved_config_is_its_own(num_epochs):
    once = resolve(make_config(num_epochs=num_epochs, num_steps=60), captions=CAPTIONS)
    for again in (resolve(once), resolve(once, captions=CAPTIONS)):
        assert to_json(again) == to_json(once)
    with pytest.raises(AttributeError):
        once.no_such_field = 1  # locked, as the config was


def test_a_bad_number_of_decay_steps_is_named():
    with pytest.raises(InputError, match=r"config\.optimizer\.decay_steps must be a whole number from -1"):
        validate(make_config(decay_steps=-2), num_devices=1)


def test_the_optimizer_of_a_config_decays_as_the_resolved_one():
    params = np.ones((2, 2), np.float32)
    for config in (make_config(num_steps=4, warmup_steps=0), resolve(make_config(num_steps=4, warmup_steps=0))):
        optimizer = build.optimizer(config)
        state, sizes = optimizer.init(params), []
        for _ in range(5):
            updates, state = optimizer.update(params, state, params)
            sizes.append(float(np.abs(np.asarray(updates)).max()))
        assert sizes[0] > sizes[1] > sizes[2] > sizes[3] > sizes[4] == 0


def test_prompts_are_captions_of_the_data_set_drawn_with_the_seed():
    config = make_config()
    prompts = resolve(config, captions=CAPTIONS).prompts
    assert len(set(prompts)) == len(prompts) == 8 and set(prompts) <= set(CAPTIONS)
    assert resolve(config, captions=CAPTIONS).prompts == prompts
    config.seed = 1
    assert resolve(config, captions=CAPTIONS).prompts != prompts
    assert resolve(config).prompts == ("auto",)  # before there is a data set
    assert draw_distinct(["a", "b", "a"], 8, seed=0) in (("a", "b"), ("b", "a"))


@pytest.mark.parametrize("prompts", [(), ("a red heart",), ("auto", "a red heart")])
def test_prompts_that_are_given_stay(prompts):
    config = make_config()
    config.prompts = prompts
    assert resolve(config, captions=CAPTIONS).prompts == prompts


def test_a_config_that_says_nothing_has_the_papers_length_and_prompts_of_its_data():
    config = resolve(base_config())
    assert (config.train.num_steps, config.optimizer.decay_steps) == (2_500_000, 2_500_000)
    assert config.prompts == ("auto",)
