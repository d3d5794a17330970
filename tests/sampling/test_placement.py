"""Images divided among devices, and their rows: the same images, in less memory, for few bytes sent."""

from functools import cache
from typing import Any, NamedTuple

import jax
import ml_dtypes
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict

from imagen_jax.errors import InputError
from imagen_jax.evaluation.sample_grid import SampleGrid
from imagen_jax.planning.collectives import Collectives, count_collectives
from imagen_jax.sampling.cascade import Cascade, StageConfig, make_stage
from imagen_jax.sampling.placement import make_mesh
from imagen_jax.sampling.stage_config import parameter_shapes
from imagen_jax.text.embeddings import Embeddings
from imagen_jax.training import parallel
from tests.randomised import randomised
from tests.training import tiny

TOKENS, WIDTH, COUNT = 4, 8, 5
SETTINGS = {"num_steps": 2, "guidance_weight": 2.0}  # "ddpm" and "dynamic": noise at each step, a statistic of an image


def stage_config(image_size: int, low_res_size: int | None, **model: Any) -> StageConfig:
    return StageConfig(
        name=f"stage_{image_size}",
        model={"dtype": "float32"} | model,
        image_size=image_size,
        low_res_size=low_res_size,
        schedule="cosine",
        prediction="v",
        max_tokens=TOKENS,
        text_width=WIDTH,
        encoder_name="test encoder",
        encoder_fingerprint="e" * 64,
        text_encoder="",
        source="",
        sampling=SETTINGS | ({"aug_level": 0.2} if low_res_size else {}),
    )


def params_of(config: StageConfig) -> Any:
    return randomised(unflatten_dict(parameter_shapes(config), sep="/"))


def texts() -> Embeddings:
    rng = np.random.default_rng(0)
    return Embeddings(
        captions=tuple("abcde"),
        tokens=tuple(rng.normal(size=(n, WIDTH)).astype(ml_dtypes.bfloat16) for n in (1, 2, 3, 4, 4)),
        max_length=TOKENS,
        encoder_name="test encoder",
        encoder_fingerprint="e" * 64,
    )


def no_encoder() -> Any:
    raise AssertionError("embeddings need no encoder")


@cache
def cascade() -> Cascade:
    """8 -> 16 px."""
    base = stage_config(
        8, None, name="unet", channels=8, channel_mults=(1,), num_blocks=1, attention_levels=(True,), head_channels=8
    )
    sr = stage_config(
        16, 8, name="efficient_unet", channels=8, channel_mults=(1,), num_blocks=(1,), attention=("cross",), num_heads=2
    )
    return Cascade([base, sr], [params_of(base), params_of(sr)], no_encoder)


@cache
def on_one_device() -> dict[int, np.ndarray]:
    return cascade().sample(texts(), devices=1, batch_size=COUNT)


@pytest.mark.parametrize(
    ("devices", "batch_size", "image_shards"),
    [(1, 2, 1), (2, 3, 1), (None, 2, 1), (4, 8, [1, 4])],
    ids=["a batch at a time", "2 devices", "more devices than images", "rows of the last stage"],
)
def test_an_image_is_the_same_on_any_devices_in_any_batch(devices, batch_size, image_shards):
    stages = cascade().stages.values()
    compiled: list[Any] = [stage._compiled for stage in stages]
    whole, before = on_one_device(), [each._cache_size() for each in compiled]
    images = cascade().sample(texts(), devices=devices, batch_size=batch_size, image_shards=image_shards)
    assert list(images) == [8, 16]
    for size, expected in whole.items():
        assert images[size].shape == (COUNT, size, size, 3)
        np.testing.assert_allclose(images[size].astype(int), expected.astype(int), atol=1)
        assert len(np.unique(expected)) > 100
    # The last batch, which is not full, is no other program.
    assert [each._cache_size() for each in compiled] == [count + 1 for count in before]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"devices": 9}, "devices = 9; expected 1 to 8: this process has 8"),
        ({"devices": 0}, "devices = 0; expected 1 to 8"),
        ({"image_shards": 3}, "stage of 8 px: image_shards = 3; .* of the 8 device.* 8 row.*: 1, 2, 4, 8$"),
        ({"devices": 6, "image_shards": [1, 3]}, "stage of 16 px: .* of the 6 device.* of the 8 row.*: 1, 2$"),
        ({"image_shards": 0}, "image_shards = 0"),
        ({"image_shards": [1, 1, 2]}, r"one for each of the 2 \(got 3\)"),
    ],
)
def test_devices_that_are_not_there_and_rows_that_do_not_divide_are_one_clear_error(arguments, message):
    with pytest.raises(InputError, match=message):
        cascade().sample(texts(), **arguments)


def test_parameters_are_copied_to_the_devices_once():
    mesh = make_mesh(2)
    first, second = (jax.tree.leaves(cascade().params(8, mesh))[0] for _ in range(2))
    pointers = [[shard.data.unsafe_buffer_pointer() for shard in leaf.addressable_shards] for leaf in (first, second)]
    assert pointers[0] == pointers[1] and len(pointers[0]) == 2


@pytest.mark.parametrize("strategy", parallel.STRATEGIES)
def test_a_sample_grid_takes_parameters_as_training_divides_them(strategy, monkeypatch):
    monkeypatch.setattr(parallel, "_SMALL", 0)
    config = cascade().configs[0]
    params = params_of(config)
    grid = SampleGrid(make_stage(config), given=texts().padded(), captions=texts().captions)
    ((_, expected),) = grid.run(params, step=1)
    state = tiny.state_of(params, tiny.optimizer())
    sharding = parallel.parallelise(strategy, tiny.step(), jax.devices(), state).state_sharding
    divided = jax.device_put(state, sharding).ema_params
    whole = [leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(divided)]
    assert all(whole) == (strategy == "pmap")
    ((_, image),) = grid.run(divided, step=2)
    np.testing.assert_array_equal(image, expected)


class Run(NamedTuple):
    samples: np.ndarray
    collectives: dict[str, Collectives]
    temp_bytes: int


SIZE, CHANNELS = 64, 8
# float32, of the two predictions of one image.
FULL_RESOLUTION_BYTES = 2 * SIZE * SIZE * CHANNELS * 4


@cache
def run(attention: str, *, devices: int, image_shards: int) -> Run:
    """One image a `image_shards` devices, 16 -> 64 px, with attention at 16 px."""
    config = stage_config(
        SIZE, 16,
        name="efficient_unet", channels=CHANNELS, channel_mults=(1, 2), num_blocks=(1, 1),
        attention=("none", attention), num_heads=2,
    )  # fmt: skip
    stage = make_stage(config)
    jitted: Any = stage._compiled
    programs = []

    def compiled(*args: Any, **kwargs: Any) -> Any:
        programs.append(jitted.lower(*args, **kwargs).compile())
        return jitted(*args, **kwargs)

    stage._compiled = compiled  # pyright: ignore[reportAttributeAccessIssue]
    count = devices // image_shards
    low_res = np.random.default_rng(1).uniform(-1, 1, (count, 16, 16, 3)).astype(np.float32)
    samples = stage.sample(
        params_of(config),
        texts().padded(range(count)) | {"low_res": low_res},
        keys=jax.random.split(jax.random.key(0), count),
        mesh=make_mesh(devices, image_shards=image_shards, coarsest_rows=stage.coarsest_rows),
    )
    (program,) = programs
    return Run(samples, count_collectives(program.as_text()), program.memory_analysis().temp_size_in_bytes)


def test_devices_that_divide_a_batch_send_each_other_nothing():
    assert run("cross", devices=2, image_shards=1).collectives == {}


@pytest.mark.parametrize("attention", ["cross", "joint"])
def test_an_image_whose_rows_are_divided_is_the_same(attention):
    whole = run(attention, devices=1, image_shards=1)
    np.testing.assert_allclose(run(attention, devices=4, image_shards=4).samples, whole.samples, atol=1e-5)
    assert whole.samples.std() > 0.1


def test_devices_that_share_an_image_send_the_rows_at_their_borders_and_sums():
    sent = run("cross", devices=4, image_shards=4).collectives
    assert sent.keys() == {"collective-permute", "all-reduce"}
    # 12 convolutions that see their neighbours' rows, at all resolutions.
    assert sent["collective-permute"].num_bytes < FULL_RESOLUTION_BYTES
    assert sent["all-reduce"].num_bytes < 0.01 * FULL_RESOLUTION_BYTES


def test_attention_over_the_image_gathers_no_more_than_its_coarse_level():
    sent = run("joint", devices=4, image_shards=4).collectives
    coarse = 2 * 16 * 16 * 2 * CHANNELS * 4
    # Each of two attentions: keys and values, and what they are made of.
    assert 0 < sent["all-gather"].num_bytes <= 2 * 4 * coarse
    assert sent["all-gather"].num_bytes < FULL_RESOLUTION_BYTES


def test_devices_that_share_an_image_share_its_memory():
    whole, quarter = (run("cross", devices=n, image_shards=n).temp_bytes for n in (1, 4))
    assert quarter < 0.4 * whole
