import json

import pytest

from imagen_jax.errors import InputError
from imagen_jax.sampling.settings import SamplingSettings


def test_settings_read_back_from_json_are_the_same_and_hashable():
    settings = SamplingSettings(times=(1.0, 0.5), guidance_interval=(0.2, 0.8))
    read = SamplingSettings(**json.loads(json.dumps(settings.__dict__)))
    assert read == settings and hash(read) == hash(settings)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sampler": "plms"}, r'unknown sampler "plms"; choose from: ddim, ddpm, dpmpp_2m, dpmpp_2m_sde, euler, heun'),
        ({"spacing": "quadratic"}, r'unknown step spacing "quadratic"'),
        ({"threshold": "soft"}, r'unknown threshold "soft"; choose from: dynamic, none, static'),
        ({"num_steps": 0}, r"sampling steps must be at least 1 \(got 0\)"),
        ({"times": (0.2, 0.8)}, r"times must fall, from 1 \(noise\) towards 0.*\(got \(0.2, 0.8\)\)"),
        ({"times": "fast"}, r"times must be numbers \(got 'fast'\)"),
        ({"guidance_interval": (0.8, 0.2)}, r"0 <= from < to <= 1.*\(got \(0.8, 0.2\)\)"),
        ({"guidance_interval": (0.5, 0.5)}, r"0 <= from < to <= 1"),
        ({"guidance_interval": (-0.1, 0.5)}, r"0 <= from < to <= 1"),
        ({"guidance_interval": (0.2, 1.5)}, r"0 <= from < to <= 1"),
        ({"guidance_interval": (0.2,)}, r"must be two times"),
        ({"guidance_weight": -1.0}, r"guidance weight must be >= 0 and finite; 1 is none \(got -1.0\)"),
        ({"guidance_weight": float("nan")}, r"guidance weight must be >= 0"),
        ({"gamma": 1.5}, r"gamma must be in \[0, 1\] \(got 1.5\)"),
        ({"eta": -0.5}, r"eta must be in \[0, 1\] \(got -0.5\)"),
        ({"guidance_rescale": 2.0}, r"guidance_rescale must be in \[0, 1\] \(got 2.0\)"),
        ({"aug_level": 2.0}, r"aug_level must be in \[0, 1\] \(got 2.0\)"),
        ({"threshold_percentile": 101.0}, r"threshold_percentile must be in \[0, 100\] \(got 101.0\)"),
        ({"threshold_cap": 0.5}, r"threshold_cap must be at least 1, or 0 for none \(got 0.5\)"),
    ],
)
def test_a_wrong_setting_is_one_line(values, message):
    with pytest.raises(InputError, match=message):
        SamplingSettings(**values)
