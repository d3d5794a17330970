import json
import logging
import re
import shutil
import subprocess
import sys

import grain
import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from imagen_jax import storage
from imagen_jax.errors import EXIT_STORAGE, InputError, StorageError
from imagen_jax.training import parallel
from imagen_jax.training.checkpoint import Checkpointer, NoCheckpointError, load_ema_params
from imagen_jax.training.digest import digest
from imagen_jax.training.selection import select
from imagen_jax.training.state import Frozen
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
    params, step, _ = load_ema_params(tmp_path)
    assert step == 5
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(params))
    jax.tree.map(np.testing.assert_array_equal, params, jax.device_get(state.ema_params))


def test_a_folder_without_checkpoints_is_a_clear_error(tmp_path):
    with pytest.raises(InputError, match="no checkpoints"):
        load_ema_params(tmp_path)


def arrays(folder):
    """The files that hold the arrays' bytes, the largest first."""
    files = [path for path in (folder / "state").rglob("d/*") if path.is_file()]
    return sorted(files, key=lambda path: -path.stat().st_size)


def truncate(folder):
    path = arrays(folder)[0]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_bit(folder):
    path = arrays(folder)[0]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def empty(folder):
    shutil.rmtree(folder)
    folder.mkdir()


def lose(name):
    def damage(folder):
        path = next(folder.rglob(name))
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return damage


def garble(name):
    def damage(folder):
        next(folder.rglob(name)).write_bytes(b"{")

    return damage


def move_the_data(folder):
    path = next((folder / "meta").rglob("metadata"))
    meta = json.loads(path.read_text())
    meta["position"]["next_index"] -= 1
    path.write_text(json.dumps(meta))


DAMAGES = {
    "truncated": truncate,
    "bit flipped": flip_a_bit,
    "empty": empty,
    "no metadata": lose("_METADATA"),
    "metadata garbled": garble("_METADATA"),
    "no state": lose("state"),
    "data moved": move_the_data,
    "no meta": lose("meta"),
    "meta garbled": garble("metadata"),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of reads that orbax gives up
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_is_used(tmp_path, caplog, damage):
    state = jax.device_put(tiny.state(seed=1))
    save(tmp_path, state, steps=[1, 2, 3])
    folder = tmp_path / "checkpoints"
    DAMAGES[damage](folder / "3")
    checkpointer, fresh = Checkpointer(tmp_path, keep=3), data()
    with caplog.at_level(logging.WARNING, logger="absl"):
        restored = checkpointer.restore(jax.device_put(tiny.state(seed=2)), fresh)
    assert int(restored.step) == 2
    jax.tree.map(np.testing.assert_array_equal, restored.params, state.params)
    assert "the checkpoint of step 3 is damaged, and now called" in caplog.text
    assert (folder / "corrupt-3").is_dir()
    # As far as the state: the third batch is next.
    expected = data()
    np.testing.assert_array_equal(next(fresh), [next(expected) for _ in range(3)][-1])
    # And on.
    checkpointer.save(3, restored.replace(step=np.int32(3)), fresh)
    checkpointer.close()
    again = Checkpointer(tmp_path, keep=3)
    assert int(again.restore(restored, data()).step) == 3
    again.close()


def test_a_checkpoint_that_is_damaged_again_is_set_aside_under_another_name(tmp_path):
    for _ in range(3):
        save(tmp_path, tiny.state(), steps=[1, 2])
        flip_a_bit(tmp_path / "checkpoints" / "2")
        checkpointer = Checkpointer(tmp_path, keep=3)
        assert int(checkpointer.restore(jax.device_put(tiny.state()), data()).step) == 1
        checkpointer.close()
    names = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert names == {"1", "corrupt-2", "corrupt-2.2", "corrupt-2.3"}


def test_two_flipped_signs_are_a_damage(tmp_path):
    # In the file of numbers that orbax writes, compressed, two signs can't be flipped: in its digests they can be told.
    state = jax.device_put(tiny.state(seed=1))
    save(tmp_path, state, steps=[1, 2])
    path = tmp_path / "checkpoints" / "2" / "meta" / "metadata"
    meta = json.loads(path.read_text())
    kernel = np.array(state.params["conv_in"]["kernel"])
    kernel.flat[:2] *= -1
    name = "params/conv_in/kernel"
    meta["digests"][name] = digest({"x": kernel})["x"]
    assert meta["digests"][name] != digest({"x": state.params["conv_in"]["kernel"]})["x"]
    path.write_text(json.dumps(meta))
    checkpointer = Checkpointer(tmp_path, keep=3)
    assert int(checkpointer.restore(jax.device_put(tiny.state()), data()).step) == 1
    checkpointer.close()


def test_a_checkpoint_with_the_first_digest_is_checked_by_it(tmp_path):
    state = jax.device_put(tiny.state(seed=1))
    save(tmp_path, state, steps=[1, 2])
    for step in (1, 2):
        path = tmp_path / "checkpoints" / str(step) / "meta" / "metadata"
        meta = json.loads(path.read_text())
        del meta["digest_version"]
        meta["digests"] = digest(state.replace(step=jax.numpy.int32(step)), version=1)
        path.write_text(json.dumps(meta))
    assert load_ema_params(tmp_path).step == 2
    flip_a_bit(tmp_path / "checkpoints" / "2")
    checkpointer = Checkpointer(tmp_path, keep=3)
    assert int(checkpointer.restore(jax.device_put(tiny.state()), data()).step) == 1
    checkpointer.close()


def test_where_all_are_damaged_nothing_starts_anew_unasked(tmp_path):
    save(tmp_path, tiny.state(), steps=[1, 2])
    for step in (1, 2):
        empty(tmp_path / "checkpoints" / str(step))
    with pytest.raises(InputError, match=r"all checkpoints in .* are damaged"):
        load_ema_params(tmp_path)
    checkpointer = Checkpointer(tmp_path, keep=3)
    with pytest.raises(NoCheckpointError, match=r"damaged checkpoints only \(corrupt-1, corrupt-2\)"):
        checkpointer.restore(tiny.state(), data())
    checkpointer.close()
    with pytest.raises(NoCheckpointError, match="to start from the beginning, delete"):
        Checkpointer(tmp_path, keep=3)


def test_export_takes_the_newest_whole_one(tmp_path):
    save(tmp_path, tiny.state(), steps=[1, 2])
    empty(tmp_path / "checkpoints" / "2")
    assert load_ema_params(tmp_path).step == 1
    assert (tmp_path / "checkpoints" / "2").is_dir()


def test_a_full_disk_is_said_clearly_and_costs_no_older_checkpoint(tmp_path):
    # Python ignores SIGXFSZ, so that a write beyond the limit is an error, as on a full disk.
    program = [sys.executable, "-m", "tests.training.full_disk", str(tmp_path), "1024"]
    done = subprocess.run(program, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == EXIT_STORAGE, done.stderr
    line = r'error: can\'t write checkpoints to "[^"]*": File too large; make space[^\n]*\n'
    assert re.fullmatch(line, done.stderr), done.stderr
    checkpointer, batches = Checkpointer(tmp_path, keep=3), tiny.positions()
    restored = checkpointer.restore(jax.device_put(tiny.state(seed=3)), batches)
    assert (checkpointer.latest_step, next(batches)) == (1, 1)
    checkpointer.close()
    jax.tree.map(np.testing.assert_array_equal, restored.params, tiny.state(seed=1).params)


def test_no_room_to_restore_is_not_the_checkpoints_fault(tmp_path, monkeypatch):
    save(tmp_path, tiny.state(), steps=[1])
    checkpointer = Checkpointer(tmp_path, keep=3)

    def full(*args, **kwargs):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")

    monkeypatch.setattr(ocp.CheckpointManager, "restore", full)
    with pytest.raises(jax.errors.JaxRuntimeError):
        checkpointer.restore(tiny.state(), data())
    checkpointer.close()
    assert (tmp_path / "checkpoints" / "1").is_dir()


def test_a_checkpoint_of_an_earlier_version_is_left_as_it_is(tmp_path):
    save(tmp_path, tiny.state(), steps=[1])
    (tmp_path / "checkpoints" / "1" / "data").mkdir()  # what held the position of the data
    checkpointer = Checkpointer(tmp_path, keep=3)
    with pytest.raises(InputError, match="is of an earlier version of this code"):
        checkpointer.restore(tiny.state(), data())
    checkpointer.close()
    assert (tmp_path / "checkpoints" / "1").is_dir()


def test_frozen_parameters_are_named_with_their_digests_and_others_are_refused(tmp_path):
    whole = tiny.state()
    params, frozen = select(whole.params, ["*attention*"])
    state = tiny.state_of(params, tiny.optimizer())
    first, batches = Checkpointer(tmp_path, keep=3, frozen=Frozen(frozen, "/a/cascade/stage_8")), tiny.positions()
    next(batches)
    first.save(1, jax.device_put(state), batches)
    first.close()

    averaged = load_ema_params(tmp_path)
    assert averaged.frozen is not None and averaged.frozen.origin == "/a/cascade/stage_8"
    assert jax.tree.structure(averaged.params) == jax.tree.structure(params)
    averaged.frozen.check(frozen)
    changed = jax.tree.map(lambda leaf: leaf, frozen)
    changed["conv_in"]["kernel"] = frozen["conv_in"]["kernel"] + 1

    for other, differing in ((changed, "conv_in/kernel"), ({}, "")):
        again = Checkpointer(tmp_path, keep=3, frozen=Frozen(other, "/another"))
        with pytest.raises(InputError, match=f'those that "/a/cascade/stage_8" held when it was started.*{differing}'):
            again.restore(jax.device_put(state), tiny.positions())
        again.close()
    # Wherever they are now.
    again = Checkpointer(tmp_path, keep=3, frozen=Frozen(frozen, "/moved"))
    assert int(again.restore(jax.device_put(state), tiny.positions()).step) == 0
    again.close()


def test_a_write_that_failed_in_the_background_ends_the_run_at_the_next_step(tmp_path, monkeypatch):
    checkpointer = Checkpointer(tmp_path, keep=3)
    checkpointer.check()
    # What orbax's thread logs is remembered: see test_storage.
    monkeypatch.setattr(storage, "_background", ["No space left on device"])
    with pytest.raises(StorageError, match=r"can't write checkpoints to .*: No space left on device; make space"):
        checkpointer.check()
    monkeypatch.setattr(checkpointer._manager, "wait_until_finished", lambda: pytest.fail("it would wait for others"))
    checkpointer.close()


def test_the_end_of_a_run_waits_for_its_last_save_only_until_that_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "_background", [])
    checkpointer = Checkpointer(tmp_path, keep=3)

    def fails_meanwhile() -> bool:
        storage._background.append("No space left on device")
        return True

    monkeypatch.setattr(checkpointer._manager, "is_saving_in_progress", fails_meanwhile)
    monkeypatch.setattr(checkpointer._manager, "wait_until_finished", lambda: pytest.fail("it would wait for others"))
    with pytest.raises(StorageError, match="can't write checkpoints"):
        checkpointer.close()
