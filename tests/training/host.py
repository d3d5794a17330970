"""One of several hosts, started by test_hosts.py: `python -m tests.training.host FOLDER`."""

import contextlib
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from imagen_jax import hosts
from imagen_jax.errors import InputError
from imagen_jax.training import parallel
from imagen_jax.training.checkpoint import Checkpointer
from imagen_jax.training.selection import union
from imagen_jax.training.state import create_state
from imagen_jax.types import Params
from tests.training import tiny

# A step of two hosts on two cores takes a second, most of it in zero1's and fsdp's many messages.
NUM_STEPS = {"pmap": 10, "zero1": 4, "fsdp": 4}
# What a host keeps of its own is pmap's; test_parallel has the other strategies.
PARTLY_FROZEN, TRAINABLE = ("pmap",), ("*attention*",)


def run(strategy: str, num_steps: int, trainable: Sequence[str] = ("*",)):
    """State, losses and frozen parameters of this host's part in some steps; test_hosts.py has one host do all.

    They begin with parameters that each host has read by itself.
    """
    optimizer, devices = tiny.sgd(), parallel.all_devices()
    task = tiny.task(trainable=trainable)
    create = partial(create_state, task, optimizer, jax.random.key(0))
    initial, frozen = jax.eval_shape(create)
    on_devices = parallel.parallelise(strategy, tiny.step(optimizer, task), devices, initial, frozen)
    create = jax.jit(create, out_shardings=(on_devices.state_sharding, on_devices.frozen_sharding))
    state, frozen = create(parallel.put_start(tiny.state().params, devices))
    part = tiny.BATCH // jax.process_count()
    losses = []
    for index in range(num_steps):
        batch = {}
        for name, value in tiny.batch(index).items():
            here = value[jax.process_index() * part :][:part]
            if on_devices.device_axis:
                here = here.reshape(jax.local_device_count(), -1, *here.shape[1:])
            batch[name] = jax.make_array_from_process_local_data(on_devices.batch_sharding, here)
        state, metrics = on_devices.step(state, frozen, batch, jax.random.key(1))
        losses.append(float(metrics["loss"]))
    return on_devices.whole(state), np.array(losses), frozen


def flat(params: Params) -> np.ndarray:
    return np.concatenate([np.asarray(leaf).ravel() for leaf in jax.tree.leaves(params)])


@contextlib.contextmanager
def unreadable_here(bad_step: int):
    """As if this host's disk or network failed while it reads that step."""
    with pytest.MonkeyPatch.context() as patch:
        restore = ocp.CheckpointManager.restore

        def fail(self, step, **kwargs):
            if step == bad_step:
                raise OSError("input/output error")
            return restore(self, step, **kwargs)

        patch.setattr(ocp.CheckpointManager, "restore", fail)
        yield


def main(folder: Path) -> None:
    hosts.connect()
    parallel._SMALL = 0  # each divides what it may, however small
    results = {}
    for strategy in parallel.STRATEGIES:
        state, losses, _ = run(strategy, NUM_STEPS[strategy])
        results |= {f"{strategy}/losses": losses, f"{strategy}/params": flat(hosts.on_this_host(state).params)}
        if strategy in PARTLY_FROZEN:
            partly, losses, frozen = run(strategy, 2, TRAINABLE)
            both = union(*hosts.on_this_host((partly.ema_params, frozen)))
            results |= {f"{strategy}/partly_frozen/losses": losses, f"{strategy}/partly_frozen/params": flat(both)}

        batches = tiny.positions()
        checkpointer = Checkpointer(folder / strategy, keep=3)
        for step in (1, 2):
            next(batches)
            checkpointer.save(step, state.replace(step=0 * state.step + step), batches)
        checkpointer.close()
        checkpointer = Checkpointer(folder / strategy, keep=3)
        second_fails = strategy == "zero1" and not hosts.is_first()
        with unreadable_here(2) if second_fails else contextlib.nullcontext():
            restored = checkpointer.restore(state, batches := tiny.positions())
        checkpointer.close()
        results[f"{strategy}/restored"] = np.array([int(restored.step), next(batches)])

    results["texts"] = np.array(hosts.gather("ä" * (1 + jax.process_index())))
    wait_s = 2.0 - jax.process_index()
    results["slowest"] = np.array([hosts.slowest(wait_s)[name] for name in ("data_wait_s", "slowest_host")])
    hosts.check_equal({"same": 1})
    try:
        hosts.check_equal({"seed": jax.process_index(), "same": 1})
    except InputError as error:
        results["differs"] = np.array(str(error))
    np.savez(folder / f"results.{jax.process_index()}.npz", **results)
    hosts.disconnect()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
