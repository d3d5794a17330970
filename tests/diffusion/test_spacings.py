import numpy as np
import pytest

from imagen_jax.diffusion.schedules import SCHEDULES, cosine, discrete_cosine, make_schedule
from imagen_jax.diffusion.spacings import SPACINGS, at_times, noise_levels
from imagen_jax.errors import InputError

FREE = [name for name in SPACINGS if not name.startswith("if_")]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("spacing", FREE)
def test_levels_rise_within_the_schedules_range(spacing, schedule):
    process = make_schedule(schedule, image_size=256)
    first, last = at_times(process, [1.0, 0.0])
    for num_steps in (1, 2, 7, 64):
        logsnrs = noise_levels(process, num_steps=num_steps, spacing=spacing)
        assert logsnrs.shape == (num_steps,) and logsnrs.dtype == np.float32
        assert (np.diff(logsnrs) > 0).all()
        assert first - 1e-3 <= logsnrs[0] and logsnrs[-1] <= last + 1e-3


def test_uniform_steps_run_from_pure_noise_to_one_step_from_the_image():
    times = np.array([1.0, 0.75, 0.5, 0.25])
    np.testing.assert_allclose(noise_levels(cosine, num_steps=4), at_times(cosine, times))


def test_a_shifted_schedule_keeps_the_noisier_levels_that_it_was_shifted_for():
    shifted = make_schedule("shifted_cosine", image_size=1024)
    for spacing in ("uniform_logsnr", "karras"):
        plain, moved = (noise_levels(schedule, num_steps=9, spacing=spacing) for schedule in (cosine, shifted))
        np.testing.assert_allclose(moved, plain - 2 * np.log(16), rtol=0, atol=0.01)


def test_uniform_logsnr_and_karras_span_edms_range():
    for spacing in ("uniform_logsnr", "karras"):
        sigmas = np.exp(-0.5 * noise_levels(cosine, num_steps=10, spacing=spacing))
        # The cosine starts at an angle of 4.5e-5, so that its ends are finite: 2% of the angle whose tangent is 0.002.
        np.testing.assert_allclose(sigmas[[0, -1]], [80, 0.002], rtol=0.03)
    np.testing.assert_allclose(np.diff(sigmas ** (1 / 7)), np.diff(sigmas ** (1 / 7))[0], rtol=1e-3)
    assert np.ptp(np.diff(noise_levels(cosine, num_steps=10, spacing="uniform_logsnr"))) < 1e-4


@pytest.mark.parametrize(
    ("name", "some"), [("if_fast27", [999, 800, 799, 66, 44, 22, 0]), ("if_smart27", [999, 976, 0])]
)
def test_deepfloyds_respacings_are_lists_of_timesteps(name, some):
    logsnrs = noise_levels(discrete_cosine, num_steps=27, spacing=name)
    assert len(logsnrs) == 27
    assert set(at_times(discrete_cosine, (np.array(some) + 1) / 1000)) <= set(logsnrs)
    with pytest.raises(InputError, match=r"list of 27 steps; use that many \(got 30\)"):
        noise_levels(discrete_cosine, num_steps=30, spacing=name)


def test_explicit_times_take_the_place_of_steps_and_spacing():
    logsnrs = noise_levels(cosine, num_steps=9, times=(1.0, 0.5, 0.1))
    np.testing.assert_array_equal(logsnrs, at_times(cosine, [1.0, 0.5, 0.1]))


@pytest.mark.parametrize("times", [(0.5, 0.5), (0.1, 0.5), (1.1, 0.5), (0.5, -0.1), (float("nan"),)])
def test_times_that_do_not_fall_from_1_to_0_are_an_error(times):
    with pytest.raises(InputError, match="times must fall"):
        noise_levels(cosine, num_steps=2, times=times)


def test_an_unknown_spacing_lists_the_choices():
    with pytest.raises(InputError, match=r'unknown step spacing "karas".*uniform.*Did you mean "karras"'):
        noise_levels(cosine, num_steps=2, spacing="karas")


@pytest.mark.parametrize("num_steps", [0, -1, 4.5, 10**30, True, "8", None])
def test_a_number_of_steps_that_is_none_is_refused(num_steps):
    with pytest.raises(InputError, match="num_steps must be a whole number from 1 to 100,000"):
        noise_levels(cosine, num_steps=num_steps)


@pytest.mark.parametrize("times", ["1,0.5", ("1", "0.5"), (1, None), (1, [0.5])])
def test_times_that_are_no_numbers_are_refused(times):
    with pytest.raises(InputError, match=r"times must be a tuple of numbers, such as \(1, 0.7, 0.4, 0.1\)"):
        noise_levels(cosine, num_steps=4, times=times)
