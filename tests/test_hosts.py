import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from imagen_jax import hosts, storage
from imagen_jax.errors import EXIT_CRASH, HostLostError, InputError
from imagen_jax.training import parallel
from imagen_jax.training.checkpoint import Checkpointer
from imagen_jax.training.selection import union
from launch.processes import host_environments, run_processes
from tests.training import host, tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where two hosts of four devices have left their results."""
    folder, out = tmp_path_factory.mktemp("hosts"), io.StringIO()
    code = run_processes([sys.executable, "-m", "tests.training.host", str(folder)], host_environments(2, 4), out=out)
    assert code == 0, out.getvalue()
    return folder


@pytest.fixture(scope="module")
def results(folder):
    return [np.load(folder / f"results.{number}.npz") for number in (0, 1)]


@pytest.fixture(scope="module")
def alone():
    """State and losses of this process's eight devices, by number of steps."""
    return {num_steps: host.run("pmap", num_steps)[:2] for num_steps in set(host.NUM_STEPS.values())}


@pytest.mark.parametrize("strategy", parallel.STRATEGIES)
def test_two_hosts_train_as_one_does(results, alone, strategy):
    state, losses = alone[host.NUM_STEPS[strategy]]
    for result in results:
        np.testing.assert_allclose(result[f"{strategy}/losses"], losses, rtol=1e-5)
        np.testing.assert_allclose(result[f"{strategy}/params"], host.flat(state.params), rtol=1e-5, atol=1e-6)


def test_two_hosts_freeze_what_one_does(results):
    state, losses, frozen = host.run("pmap", 2, host.TRAINABLE)
    params = host.flat(union(state.ema_params, frozen))
    for result in results:
        for strategy in host.PARTLY_FROZEN:
            np.testing.assert_allclose(result[f"{strategy}/partly_frozen/losses"], losses, rtol=1e-5)
            np.testing.assert_allclose(result[f"{strategy}/partly_frozen/params"], params, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("strategy", parallel.STRATEGIES)
def test_what_two_hosts_have_saved_one_goes_on_from(folder, alone, strategy):
    saved, _ = alone[host.NUM_STEPS[strategy]]
    checkpointer, batches = Checkpointer(folder / strategy, keep=3), tiny.positions()
    fresh = parallel.replicate(tiny.state_of(tiny.state(seed=3).params, tiny.sgd()), jax.devices())
    restored = checkpointer.restore(fresh, batches)
    checkpointer.close()
    assert int(restored.step) == next(batches) == (1 if strategy == "zero1" else 2)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        jax.device_get(restored.params),
        jax.device_get(saved.params),
    )


def test_a_checkpoint_that_one_host_cant_read_is_set_aside_by_all(folder, results):
    for result in results:
        assert [list(result[f"{strategy}/restored"]) for strategy in parallel.STRATEGIES] == [[2, 2], [1, 1], [2, 2]]
    assert sorted(path.name for path in (folder / "zero1" / "checkpoints").iterdir()) == ["1", "corrupt-2"]


def test_hosts_exchange_texts_and_find_the_slowest(results):
    for result in results:
        assert list(result["texts"]) == ["ä", "ää"]
        assert list(result["slowest"]) == [2.0, 0]


def test_all_hosts_name_what_differs(results):
    for result in results:
        assert str(result["differs"]) == (
            "the hosts differ: seed is 1 on host 1 and 0 on host 0; start all of them with the same command"
        )


def test_a_host_alone_needs_no_others(monkeypatch):
    monkeypatch.delenv("IMAGEN_COORDINATOR", raising=False)
    hosts.connect()
    assert not jax.distributed.is_initialized()
    assert hosts.is_first()
    assert hosts.gather("text") == ["text"]
    assert hosts.slowest(1.0) == {}
    hosts.check_equal({"a": 1})
    tree = {"a": jax.numpy.ones(3)}
    assert hosts.on_this_host(tree) is tree
    hosts.disconnect()


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"IMAGEN_NUM_PROCESSES": "2"}, "IMAGEN_PROCESS_ID must be a whole number, not ''"),
        ({"IMAGEN_NUM_PROCESSES": "two", "IMAGEN_PROCESS_ID": "0"}, "IMAGEN_NUM_PROCESSES must be .*, not 'two'"),
        ({"IMAGEN_NUM_PROCESSES": "2", "IMAGEN_PROCESS_ID": "2"}, "IMAGEN_PROCESS_ID=2 is not one of .*=2 processes"),
    ],
)
def test_an_incomplete_environment_is_a_clear_error(monkeypatch, environment, message):
    for name in ("IMAGEN_NUM_PROCESSES", "IMAGEN_PROCESS_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ({"IMAGEN_COORDINATOR": "127.0.0.1:1"} | environment).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=message):
        hosts.connect()


@pytest.fixture
def one_of_two(monkeypatch):
    monkeypatch.setenv("IMAGEN_COORDINATOR", "127.0.0.1:1")


RESET = jax.errors.JaxRuntimeError("FAILED_PRECONDITION: Gloo all-reduce failed: Connection reset by peer")


def raises_in_a_library():
    try:
        raise RESET
    except RuntimeError as error:
        raise ValueError("a library's words") from error


def test_the_end_of_another_host_is_told_from_a_disks_failure_and_from_a_bug(one_of_two):
    assert storage.describe_failure(RESET) is None
    message = r"another host of this run has ended \(.*reset by peer\); the same command"
    with pytest.raises(HostLostError, match=message), hosts.noticing_the_lost():
        raises_in_a_library()
    with pytest.raises(ZeroDivisionError), hosts.noticing_the_lost():
        raise ZeroDivisionError
    assert storage.describe_failure(OSError(errno.ECONNRESET, "Connection reset by peer")) is not None
    # Words of people's own are neither.
    assert hosts.describe_lost(InputError('prompt "Gloomy sky": Connection reset')) is None
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/data/Gloomhaven")
    assert storage.describe_failure(full) is not None


def test_a_host_that_is_alone_has_lost_none():
    assert hosts.describe_lost(RESET) is None


def test_a_checkpoint_that_another_hosts_end_interrupts_is_no_mistake_in_the_command(one_of_two, tmp_path):
    checkpointer = Checkpointer.__new__(Checkpointer)
    checkpointer._folder = tmp_path
    # A collective of jax's may raise either.
    for error in (RESET, ValueError("UNKNOWN: Gloo AllGather failed: Connection closed by peer [127.0.0.1]:11650")):
        assert storage.describe_failure(error) is None
        # Said once, however often it is caught.
        with pytest.raises(HostLostError) as caught, hosts.noticing_the_lost(), checkpointer._writing():
            raise error
        assert str(caught.value).count("another host") == 1


def test_a_host_whose_others_never_come_ends_in_one_line():
    code = "from imagen_jax import hosts; hosts._CONNECT_TIMEOUT_S = 1; hosts.connect()"
    host = host_environments(2, 1)[0]
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | host, capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == EXIT_CRASH
    met = f"error: not all hosts of this run have met within 1 s (IMAGEN_COORDINATOR={host['IMAGEN_COORDINATOR']})"
    assert done.stderr == f"{met}; start the same command on all of them\n"
