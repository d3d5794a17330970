"""Several processes of one run on this machine: their output together, their signals, their one exit code."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, TextIO

_POLL_S = 0.02
_PASSED_ON = (signal.SIGTERM, signal.SIGINT)


def host_environments(num_processes: int, num_devices: int) -> list[dict[str, str]]:
    """What each process needs in its environment to be one of `num_processes` hosts with `num_devices` CPU devices."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return [
        {
            "IMAGEN_COORDINATOR": f"127.0.0.1:{port}",
            "IMAGEN_NUM_PROCESSES": str(num_processes),
            "IMAGEN_PROCESS_ID": str(number),
            "JAX_NUM_CPU_DEVICES": str(num_devices),
            "JAX_PLATFORMS": "cpu",
        }
        for number in range(num_processes)
    ]


def run_processes(
    command: Sequence[str],
    environments: Sequence[Mapping[str, str]],
    *,
    grace_s: float = 60.0,
    out: TextIO | None = None,
) -> int:
    """Runs `command` once for each environment (on top of this process's own) until all have ended.

    SIGTERM and SIGINT of this process go to all of them, if it is called in the main thread.

    Args:
      grace_s: seconds that the others get to end by themselves after one has failed; SIGKILL then ends them and all
        they have started.
      out: where their output goes, both streams, each line after its process's number: "[0] "; default: stdout.

    Returns:
      0, or the exit code of the first that failed; 128 + the signal's number where a signal ended it.
    """
    processes: list[subprocess.Popen[str]] = []
    with _passing_signals_on(processes):
        for environment in environments:
            processes.append(
                subprocess.Popen(
                    command,
                    env=os.environ | environment,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    encoding="utf-8",
                    errors="replace",
                    start_new_session=True,  # Ctrl-C reaches this process only, which passes it on, once
                )
            )
        lock = threading.Lock()
        readers = [
            threading.Thread(target=_copy, args=(process.stdout, f"[{number}] ", out or sys.stdout, lock), daemon=True)
            for number, process in enumerate(processes)
        ]
        for reader in readers:
            reader.start()
        code = _wait(processes, grace_s)
        for reader in readers:
            reader.join(timeout=grace_s)
    return code


def _wait(processes: Sequence[subprocess.Popen[str]], grace_s: float) -> int:
    first_failed: int | None = None
    deadline = float("inf")
    while any(process.poll() is None for process in processes):
        if first_failed is None:
            first_failed = _failed(processes)
            deadline = time.monotonic() + grace_s if first_failed is not None else deadline
        elif time.monotonic() > deadline:
            for process in processes:
                _kill(process)
        time.sleep(_POLL_S)
    code = _failed(processes) if first_failed is None else first_failed
    return 0 if code is None else code


def _failed(processes: Sequence[subprocess.Popen[str]]) -> int | None:
    codes = [process.returncode for process in processes if process.poll()]
    return (128 - codes[0] if codes[0] < 0 else codes[0]) if codes else None


def _kill(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


@contextlib.contextmanager
def _passing_signals_on(processes: Sequence[subprocess.Popen[str]]) -> Iterator[None]:
    """While it lasts; whatever leaves it by an exception kills the processes."""

    def pass_on(number: int, _: object) -> None:
        for process in processes:
            process.send_signal(number)

    here = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, pass_on) for number in _PASSED_ON} if here else {}
    try:
        yield
    except BaseException:
        for process in processes:
            _kill(process)
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _copy(lines: IO[str], prefix: str, out: TextIO, lock: threading.Lock) -> None:
    with lines:
        for line in lines:
            with lock:
                out.write(f"{prefix}{line.removesuffix(chr(10))}\n")
                out.flush()
