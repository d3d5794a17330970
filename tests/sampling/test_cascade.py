"""Sampling from Python: what each argument changes, on a cascade that nobody has trained."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest

from imagen_jax.errors import InputError
from imagen_jax.sampling import load_cascade
from imagen_jax.sampling.cascade import Cascade
from tests.sampling import tiny_cascade

PROMPTS = tiny_cascade.CAPTIONS[:3]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tiny_cascade.write(tmp_path_factory.mktemp("cascade"), scale=1.0)


@pytest.fixture(scope="module")
def cascade(folder) -> Cascade:
    return load_cascade(folder)


def test_the_same_seed_gives_the_same_images_for_any_batch_size(cascade):
    whole = cascade.sample(PROMPTS, seed=3, batch_size=8)
    # The second batch is filled up.
    pairs = cascade.sample(PROMPTS, seed=3, batch_size=2)
    assert list(whole) == [8, 16]
    for size in whole:
        assert np.abs(whole[size].astype(int) - pairs[size]).max() <= 1


def test_seed_and_prompt_and_guidance_change_the_image(cascade):
    def changes(prompts, **changed):
        return np.abs(cascade(prompts, **{"seed": 0, "stop_at": 8} | changed) - first).max(axis=(1, 2, 3))

    first = cascade(PROMPTS, seed=0, stop_at=8).astype(int)
    assert (changes(PROMPTS) == 0).all()
    assert (changes(PROMPTS, seed=1) > 1).all()
    assert (changes([*PROMPTS[1:], PROMPTS[0]]) > 1).all()
    assert (changes(PROMPTS, guidance=8.0) > 1).all()


def test_stop_at_and_steps_are_obeyed(cascade):
    images = cascade.sample(PROMPTS, stop_at=16, steps=[4, 2])
    assert {size: batch.shape for size, batch in images.items()} == {8: (3, 8, 8, 3), 16: (3, 16, 16, 3)}
    assert (images[8] != cascade(PROMPTS, stop_at=8)).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stop_at": 64}, "8, 16"),
        ({"steps": 0}, "a whole number from 1"),
        ({"steps": [4, 4, 4]}, "one for each of the 2"),
        ({"guidance": -1.0}, "guidance_weight must be a number from 0"),
        ({"sampler": "ddimm"}, 'Did you mean "ddim"'),
        ({"aug_level": 2.0}, "from 0 to 1"),
        ({"batch_size": 0}, "at least 1"),
        ({"guidance_interval": (0.8, 0.2)}, "0 <= from < to <= 1"),
        ({"guidance_interval": [(0.2, 0.8)]}, "one for each of the 2"),
        ({"guidence_interval": (0.2, 0.8)}, 'Did you mean "guidance_interval"'),
        ({"sampler": "dpmpp_2m", "steps": 1}, "needs at least 2 sampling steps"),
        ({"spacing": ["uniform", "if_fast27"]}, "stage of 16 px: this step spacing is a list of 27 steps"),
        ({"sampler": "heun"}, 'stage of 8 px: .*take the step spacing "karras"'),
        ({"negative_prompts": ["a", "b"]}, r"one for each of 1 \(got 2\)"),
        ({"negative_prompts": "a", "guidance": 1.0}, "does nothing without guidance"),
    ],
)
def test_a_bad_setting_is_one_clear_error(cascade, arguments, message):
    with pytest.raises(InputError, match=message):
        cascade(PROMPTS[:1], **arguments)


def test_a_setting_for_each_stage_reaches_that_stage(cascade):
    settings = cascade.settings(guidance_interval=[(0.0, 1.0), (0.2, 0.8)], sampler=["ddpm", "unipc"], steps=7)
    assert [each.guidance_interval for each in settings] == [(0.0, 1.0), (0.2, 0.8)]
    assert [each.sampler for each in settings] == ["ddpm", "unipc"]
    assert {each.num_steps for each in settings} == {7}
    # An interval is two numbers, and one value for all.
    assert {each.guidance_interval for each in cascade.settings(guidance_interval=(0.1, 0.9))} == {(0.1, 0.9)}
    assert {each.times for each in cascade.settings(times=(1.0, 0.5))} == {(1.0, 0.5)}


def test_steps_take_the_place_of_a_stages_own_times(cascade):
    config = dataclasses.replace(cascade.configs[0], sampling={"times": (1.0, 0.5), "threshold": "static"})
    own = Cascade([config], [cascade.params(8)], encoder=cascade._encoder)
    assert [(each.times, each.num_steps) for each in own.settings()] == [((1.0, 0.5), 256)]
    assert [(each.times, each.num_steps) for each in own.settings(steps=5)] == [((), 5)]


def test_negative_prompts_change_the_image_each_its_own(cascade):
    plain = cascade(PROMPTS, stop_at=8, guidance=4.0).astype(int)
    negative = cascade(PROMPTS, stop_at=8, guidance=4.0, negative_prompts=PROMPTS[1])
    assert (np.abs(negative - plain).max(axis=(1, 2, 3)) > 1).all()
    # w x + (1 - w) x: away from itself is the unguided image.
    itself = cascade(PROMPTS, stop_at=8, guidance=4.0, negative_prompts=PROMPTS)
    assert np.abs(itself.astype(int) - cascade(PROMPTS, stop_at=8, guidance=1.0)).max() <= 1


def test_autoguidance_by_the_same_parameters_is_no_guidance_and_by_others_is(folder, cascade):
    same = cascade(PROMPTS, stop_at=8, guidance=4.0, weak=cascade)
    assert np.abs(same.astype(int) - cascade(PROMPTS, stop_at=8, guidance=1.0)).max() <= 1
    weaker = load_cascade(folder)
    weaker._loaded_params[8] = jax.tree.map(lambda leaf: 0.9 * leaf, weaker.params(8))
    assert np.abs(cascade(PROMPTS, stop_at=8, guidance=4.0, weak=weaker).astype(int) - same).max() > 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prediction": "x"}, "stage of 8 px has another prediction: 'x' in place of 'v'"),
        ({"schedule": "linear"}, "another schedule"),
    ],
)
def test_autoguidance_by_another_network_is_refused(cascade, changes, message):
    other = Cascade([dataclasses.replace(cascade.configs[0], **changes)], [cascade.params(8)], encoder=cascade._encoder)
    with pytest.raises(InputError, match=message):
        cascade(PROMPTS, guidance=2.0, weak=other)


def test_autoguidance_asks_only_for_the_stages_that_it_guides(cascade):
    model = {**cascade.configs[0].model, "remat": True}
    base = Cascade(
        [dataclasses.replace(cascade.configs[0], model=model)], [cascade.params(8)], encoder=cascade._encoder
    )
    assert cascade(PROMPTS[:1], stop_at=8, guidance=2.0, weak=base).shape == (1, 8, 8, 3)
    with pytest.raises(InputError, match="no stage of 16 px"):
        cascade(PROMPTS[:1], guidance=2.0, weak=base)


def test_an_augmentation_level_above_training_is_refused(cascade):
    configs = [dataclasses.replace(config, max_aug_level=0.3) for config in cascade.configs]
    trained_to = Cascade(configs, [cascade.params(size) for size in cascade.stages], encoder=cascade._encoder)
    trained_to.settings(aug_level=0.3)
    with pytest.raises(InputError, match=r"stage of 16 px: .*up to 0.3, and aug_level = 0.5 is above"):
        trained_to.settings(aug_level=0.5)


def test_no_prompts_is_an_error(cascade):
    with pytest.raises(InputError):
        cascade([])
