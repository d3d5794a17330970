"""Several hosts that train one run: meeting, agreeing, and ending together.

Every host runs the same command. What they must agree on is exchanged as text, so that any host can say what differs.
"""

import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from functools import partial
from types import FrameType
from typing import Any

import jax
import numpy as np
from absl import logging
from jax.experimental import multihost_utils

from imagen_jax.errors import EXIT_CRASH, EXIT_INTERRUPTED, HostLostError, InputError
from imagen_jax.storage import chain, is_of_runtime

_CONNECT_TIMEOUT_S = 300
_HEARTBEAT_TIMEOUT_S = 10
_SHUTDOWN_TIMEOUT_S = 10

# Of jax's coordination service, and of the transports that its collectives have.
_LOST = (
    "UNAVAILABLE",
    "DEADLINE_EXCEEDED",
    "oordination",
    "Gloo",
    "onnection reset",
    "onnection closed",
    "Broken pipe",
)

_ADDRESS, _COUNT, _NUMBER = "IMAGEN_COORDINATOR", "IMAGEN_NUM_PROCESSES", "IMAGEN_PROCESS_ID"


def connect() -> None:
    """Joins the other hosts, if the environment tells of any; before anything else that asks jax for its devices.

    IMAGEN_COORDINATOR=auto finds them by itself, on TPU pods and under Slurm. IMAGEN_COORDINATOR=ADDRESS:PORT, of host
    0, with IMAGEN_NUM_PROCESSES and IMAGEN_PROCESS_ID, says who they are. Without it this host is alone.

    Of all hosts only the first logs what isn't a warning.

    Raises:
      InputError: the environment is incomplete, or the devices are several hosts', and they have not been told.
    """
    address = os.environ.get(_ADDRESS)
    if address:
        # A host that has lost the others is ended by jax, which says so and aborts. What all of Python's threads were
        # doing, which absl has printed at an abort, are a hundred lines about something else.
        signal.signal(signal.SIGABRT, signal.SIG_DFL)
    if address == "auto":
        try:
            with _ending_when_alone():
                _initialize()
        except ValueError as error:
            raise InputError(f"{_ADDRESS}=auto, but this is no pod or cluster that jax knows: {error}") from None
    elif address:
        count, number = _whole_number(_COUNT), _whole_number(_NUMBER)
        if not 0 <= number < count:
            raise InputError(f"{_NUMBER}={number} is not one of {_COUNT}={count} processes; they count from 0")
        # Host 0 listens at this address alone, not at all that it has.
        bind_address = address if number == 0 else None
        with _ending_when_alone():
            _initialize(address, count, number, coordinator_bind_address=bind_address)
    elif jax.process_count() > 1:
        raise InputError(
            f"the devices are those of {jax.process_count()} hosts; set {_ADDRESS}=auto on all of them, as "
            "`python -m launch.run` does"
        )
    if not is_first():
        logging.set_verbosity(logging.WARNING)


@contextlib.contextmanager
def _ending_when_alone() -> Iterator[None]:
    """Ends this process, in one line, if the others have not come in time. jax would abort, in some fifty lines."""

    def end() -> None:
        _say(
            f"error: not all hosts of this run have met within {_CONNECT_TIMEOUT_S} s "
            f"({_ADDRESS}={os.environ[_ADDRESS]}); start the same command on all of them"
        )
        os._exit(EXIT_CRASH)

    timer = threading.Timer(_CONNECT_TIMEOUT_S, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def disconnect() -> None:
    """Waits until all hosts have come here, so that none is taken for dead; nothing where this host is alone."""
    if jax.distributed.is_initialized():
        jax.distributed.shutdown()


def describe_lost(error: BaseException) -> str | None:
    """A line on the end of another host, if that is what `error` is, or came from; None for other errors."""
    if not os.environ.get(_ADDRESS):
        return None
    for link in chain(error):
        message = str(link)
        if isinstance(link, HostLostError):
            return message
        if is_of_runtime(link) and any(word in message for word in _LOST):
            return (
                f"another host of this run has ended ({' '.join(message.split())[:100]}); the same command, started "
                "on all hosts, goes on from the last checkpoint"
            )
    return None


@contextlib.contextmanager
def noticing_the_lost() -> Iterator[None]:
    """Turns the end of another host inside into a `HostLostError`. Other exceptions pass."""
    try:
        yield
    except Exception as error:
        if reason := describe_lost(error):
            raise HostLostError(reason) from error
        raise


def is_first() -> bool:
    """Whether this host is the one that writes logs, metrics and samples."""
    return jax.process_index() == 0


def gather(text: str) -> list[str]:
    """The texts of all hosts, in their order. All must call it, and wait for each other here."""
    if jax.process_count() == 1:
        return [text]
    data = np.frombuffer(text.encode(), np.uint8)
    lengths = multihost_utils.process_allgather(np.int32(len(data)))
    padded = np.zeros(max(lengths), np.uint8)
    padded[: len(data)] = data
    rows = multihost_utils.process_allgather(padded)
    return [row[:length].tobytes().decode() for row, length in zip(rows, lengths, strict=True)]


def everywhere(here: bool) -> bool:
    """Whether it is so on all hosts, so that all go the same way. All must call it."""
    return set(gather(str(here))) == {"True"}


def check_equal(values: Mapping[str, Any]) -> None:
    """Checks that all hosts have these values, by name; JSON can hold them.

    Raises:
      InputError: on all hosts, with the names and values that differ from the first host's.
    """
    everywhere = [json.loads(text) for text in gather(json.dumps(values, sort_keys=True))]
    first, differences = everywhere[0], []
    for number, here in enumerate(everywhere):
        for name in sorted(first.keys() | here.keys()):
            if first.get(name) != here.get(name):
                differences.append(f"{name} is {here.get(name)!r} on host {number} and {first.get(name)!r} on host 0")
    if differences:
        raise InputError(f"the hosts differ: {'; '.join(differences[:5])}; start all of them with the same command")


def slowest(data_wait_s: float) -> dict[str, float]:
    """The longest of all hosts' times, and whose it is: data_wait_s, slowest_host. Nothing where this host is alone.

    The steps themselves take equally long, as all hosts wait for each other in them.
    """
    if jax.process_count() == 1:
        return {}
    times = multihost_utils.process_allgather(np.float32(data_wait_s))
    return {"data_wait_s": float(np.max(times)), "slowest_host": int(np.argmax(times))}


def on_this_host(tree: Any) -> Any:
    """The arrays whole, on a device of this host. All hosts must call it: each may hold a part of them."""
    if jax.process_count() == 1:
        return tree
    divided = [leaf for leaf in jax.tree.leaves(tree) if not leaf.is_fully_replicated]
    if divided:
        whole = jax.sharding.NamedSharding(divided[0].sharding.mesh, jax.sharding.PartitionSpec())
        tree = jax.jit(lambda x: x, out_shardings=whole)(tree)
    return jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)


class StopRequest:
    """Notes SIGTERM and Ctrl-C while it is entered, so that a loop can end between two steps, all hosts at the same.

    The first Ctrl-C says on the terminal that the run is being saved; a second one ends this process at once, whatever
    it is doing, with exit code `EXIT_INTERRUPTED`.

    Attributes:
      interrupted: whether this host has had a Ctrl-C.
    """

    def __enter__(self) -> "StopRequest":
        self.interrupted = False
        self._terminated = False
        self._alone = jax.process_count() == 1
        self._previous: dict[signal.Signals, Any] = {}
        if threading.current_thread() is not threading.main_thread():
            return self  # where Python takes no signals
        self._previous[signal.SIGINT] = signal.signal(signal.SIGINT, self._on_interrupt)
        if self._alone:
            self._previous[signal.SIGTERM] = signal.signal(signal.SIGTERM, self._on_terminate)
        # A handler of Python's runs when the main thread is back from compiled code, which may take minutes. The system
        # writes the signal's number here at once, and a thread that waits for it can speak, and end the process.
        read_end, self._write_end = os.pipe()
        os.set_blocking(self._write_end, False)
        self._previous_write_end = signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
        self._listener = threading.Thread(target=_listen, args=(read_end,), daemon=True)
        self._listener.start()
        return self

    def __exit__(self, *_: object) -> None:
        if not self._previous:
            return
        signal.set_wakeup_fd(self._previous_write_end)
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        os.close(self._write_end)
        self._listener.join()

    def received(self, step: int) -> bool:
        """Tells whether to stop after this step. All hosts must ask, at every step."""
        # jax has taken SIGTERM for itself when it connected: a handler of ours would disable that.
        if self._alone:
            return self._terminated or self.interrupted
        return multihost_utils.reached_preemption_sync_point(step)

    def _on_interrupt(self, _signum: int, _frame: FrameType | None) -> None:
        if not (self.interrupted or self._alone):
            # jax tells the other hosts of a SIGTERM, and of nothing else.
            os.kill(os.getpid(), signal.SIGTERM)
        self.interrupted = True

    def _on_terminate(self, _signum: int, _frame: FrameType | None) -> None:
        self._terminated = True


def _listen(read_end: int) -> None:
    """Says what a Ctrl-C does, and ends the process at the second, until the other end of the pipe is closed."""
    interrupts = 0
    while numbers := os.read(read_end, 64):
        interrupts += numbers.count(int(signal.SIGINT))
        if interrupts > 1:
            _say("Interrupted again: leaving at once. The same command goes on from the last finished checkpoint.")
            os._exit(EXIT_INTERRUPTED)
        if signal.SIGINT in numbers:
            _say("Interrupted: saving after this step. Ctrl-C again leaves at once, without saving.")
    os.close(read_end)


def _say(line: str) -> None:
    """Writes a line to stderr from any thread, without the locks of logging, which the main thread may hold."""
    clear = "\r\x1b[K" if sys.stderr.isatty() else ""  # a progress bar
    with contextlib.suppress(OSError):
        os.write(2, f"{clear}{line}\n".encode())


# With jax's own timeouts, a host that is killed holds up the others for 100 s, and one that raises for 300 s.
_initialize = partial(
    jax.distributed.initialize,
    initialization_timeout=2 * _CONNECT_TIMEOUT_S,  # after ours
    heartbeat_timeout_seconds=_HEARTBEAT_TIMEOUT_S,
    shutdown_timeout_seconds=_SHUTDOWN_TIMEOUT_S,
)


def _whole_number(name: str) -> int:
    value = os.environ.get(name, "")
    if not value.isdecimal():
        raise InputError(f"{_ADDRESS} is set, so {name} must be a whole number, not {value!r}; or set {_ADDRESS}=auto")
    return int(value)
