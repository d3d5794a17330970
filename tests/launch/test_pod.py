import dataclasses

import pytest

from imagen_jax.errors import InputError
from launch.pod import GENERATIONS, Pod
from tests.launch.world import POD

INVALID = {
    "name": ["Base", "2nd", "base_1", "base-", "", "a" * 64, "../x", "a b", "runs/a", "-a", "a\n"],
    "project": ["My Project", "p", "12345678", ""],
    "zone": ["us-central2", "", "us-central2-b;ls", "US-CENTRAL2-B"],
    "bucket": ["gs://my-bucket", "my.bucket", "ab", "", "My-Bucket", "a/b"],
    "accelerator": ["v4", "512", "v4-0", "v4-", "", "V4-8", "v4-8 "],
    "runtime": ["tpu ubuntu", "--x"],
}


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, values in INVALID.items() for value in values])
def test_a_name_that_google_cloud_refuses_is_one_line(field: str, value: str):
    with pytest.raises(InputError) as error:
        dataclasses.replace(POD, **{field: value})
    assert str(error.value).startswith(f'--{field}="{value}": expected ')


def test_an_unknown_generation_lists_those_there_are():
    with pytest.raises(InputError, match=r'"v5lite".*choose from: .*v5litepod.*Did you mean "v5litepod"'):
        dataclasses.replace(POD, accelerator="v5lite-256")


def test_spot_and_reserved_exclude_each_other():
    with pytest.raises(InputError, match="exclude"):
        dataclasses.replace(POD, spot=True, reserved=True)


def test_the_workdir_follows_from_bucket_and_name_alone():
    other = Pod("base", "other-project", "europe-west4-a", "v5litepod-16", "my-bucket")
    assert POD.workdir == other.workdir == "/mnt/my-bucket/runs/base"


@pytest.mark.parametrize(
    ("accelerator", "devices"),
    [("v2-8", 8), ("v3-32", 32), ("v4-8", 4), ("v4-512", 256), ("v5litepod-256", 256), ("v5p-256", 128), ("v6e-1", 1)],
)
def test_devices_of_an_accelerator(accelerator: str, devices: int):
    assert dataclasses.replace(POD, accelerator=accelerator).num_devices == devices


@pytest.mark.parametrize("generation", GENERATIONS)
def test_a_runtime_is_chosen_by_generation_unless_given(generation: str):
    pod = dataclasses.replace(POD, accelerator=f"{generation}-8", runtime="")
    assert pod.runtime == GENERATIONS[generation].runtime
    assert dataclasses.replace(pod, runtime="another-image").runtime == "another-image"


def test_the_region_is_the_zone_s():
    assert POD.region == "us-central2"
