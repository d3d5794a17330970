import grain
import jax
import numpy as np
import pytest

from imagen_jax.errors import InputError
from imagen_jax.training import parallel
from imagen_jax.training.checkpoint import Checkpointer, load_ema_params
from tests.training import tiny


def data():
    return iter(grain.MapDataset.range(100).seed(0).shuffle().repeat().batch(4).to_iter_dataset())


def save(folder, state, *, steps, keep=3):
    checkpointer, batches = Checkpointer(folder, keep=keep), data()
    for step in steps:
        next(batches)
        checkpointer.save(step, state.replace(step=np.int32(step)), batches)
    checkpointer.close()
    return batches


def test_state_and_data_come_back_bit_for_bit(tmp_path):
    state = jax.device_put(tiny.state(seed=1))
    batches = save(tmp_path, state, steps=[1, 2, 3])
    checkpointer, fresh = Checkpointer(tmp_path, keep=3), data()
    restored = checkpointer.restore(jax.device_put(tiny.state(seed=2)), fresh)
    checkpointer.close()
    assert int(restored.step) == 3
    assert restored.step.dtype == np.int32
    jax.tree.map(np.testing.assert_array_equal, restored.replace(step=state.step), state)
    np.testing.assert_array_equal(next(fresh), next(batches))


def test_it_restores_onto_other_devices(tmp_path):
    save(tmp_path, tiny.state(), steps=[1])
    checkpointer = Checkpointer(tmp_path, keep=3)
    restored = checkpointer.restore(parallel.replicate(tiny.state(seed=3), jax.devices()), data())
    checkpointer.close()
    leaf = jax.tree.leaves(restored.params)[0]
    assert len(leaf.addressable_shards) == 8
    jax.tree.map(np.testing.assert_array_equal, restored.params, tiny.state().params)


def test_only_the_newest_are_kept(tmp_path):
    save(tmp_path, tiny.state(), steps=[1, 2, 3, 4], keep=2)
    kept = {path.name for path in (tmp_path / "checkpoints").iterdir() if path.name.isdecimal()}
    assert kept == {"3", "4"}


def test_other_parameters_are_named(tmp_path):
    save(tmp_path, tiny.state(), steps=[1])
    other = tiny.state()
    other = other.replace(params={**other.params, "conv_in": {"kernel": np.zeros((3, 3, 3, 99), np.float32)}})
    checkpointer = Checkpointer(tmp_path, keep=3)
    with pytest.raises(InputError, match="conv_in/kernel: \\(3, 3, 3, 8\\) in the checkpoint, \\(3, 3, 3, 99\\) here"):
        checkpointer.restore(jax.device_put(other), data())
    checkpointer.close()


def test_the_average_is_read_alone_for_export(tmp_path):
    state = tiny.state()
    state = state.replace(ema_params=jax.tree.map(lambda x: x + 1, state.params))
    # On eight devices; they are read as numpy arrays, on however many there are.
    save(tmp_path, parallel.replicate(state, jax.devices()), steps=[5])
    params, step = load_ema_params(tmp_path)
    assert step == 5
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(params))
    jax.tree.map(np.testing.assert_array_equal, params, jax.device_get(state.ema_params))


def test_a_folder_without_checkpoints_is_a_clear_error(tmp_path):
    with pytest.raises(InputError, match="no checkpoints"):
        load_ema_params(tmp_path)
