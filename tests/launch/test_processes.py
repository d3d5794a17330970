"""Several processes on this machine, with tiny programs in the place of a main."""

import io
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from launch.processes import host_environments, run_processes

REPO = Path(__file__).parents[2]
START = "import os, signal, sys, time; me = int(os.environ['IMAGEN_PROCESS_ID']);"


def run(program: str, *, processes: int = 2, grace_s: float = 60.0) -> tuple[int, list[str], float]:
    """Exit code, the lines that were written, and how long it took (s)."""
    out = io.StringIO()
    began = time.monotonic()
    # -SE: half the time to start.
    command = [sys.executable, "-SEuc", START + program]
    code = run_processes(command, host_environments(processes, 4), grace_s=grace_s, out=out)
    return code, out.getvalue().splitlines(), time.monotonic() - began


def test_each_process_knows_its_place():
    names = ("IMAGEN_NUM_PROCESSES", "JAX_NUM_CPU_DEVICES", "JAX_PLATFORMS", "IMAGEN_COORDINATOR")
    code, lines, _ = run(f"print(*(os.environ[name] for name in {names}))", processes=3)
    assert code == 0
    assert sorted(line.split(":")[0] for line in lines) == [f"[{i}] 3 4 cpu 127.0.0.1" for i in range(3)]
    assert len({line.split(":")[1] for line in lines}) == 1


def test_output_is_prefixed_by_line_and_both_streams_come():
    code, lines, _ = run("print('a\\nb'); print('c', file=sys.stderr); sys.stdout.write('no end of line')")
    assert code == 0
    for number in range(2):
        own = [line for line in lines if line.startswith(f"[{number}] ")]
        assert sorted(own) == [f"[{number}] {text}" for text in ("a", "b", "c", "no end of line")]


def test_bytes_that_are_no_text_are_shown_as_well_as_can_be():
    _, lines, _ = run("sys.stdout.buffer.write(b'\\xff!\\n')", processes=1)
    assert lines == ["[0] \ufffd!"]


@pytest.mark.parametrize("code", [1, 2, 42])
def test_the_exit_code_is_that_of_the_one_that_failed(code: int):
    assert run(f"sys.exit({code} if me == 1 else 0)")[0] == code


def test_the_exit_code_is_that_of_the_first_that_failed():
    assert run("time.sleep(0 if me == 1 else 0.5); sys.exit(10 + me)")[0] == 11


def test_a_process_that_a_signal_ends_has_the_shell_s_exit_code():
    assert run("os.kill(os.getpid(), signal.SIGKILL) if me == 0 else None")[0] == 128 + signal.SIGKILL


def test_the_others_may_end_by_themselves_when_one_has_failed():
    code, lines, _ = run("sys.exit(3) if me == 0 else time.sleep(0.5); print('done')", grace_s=30)
    assert (code, lines) == (3, ["[1] done"])


def test_the_others_are_killed_when_they_do_not_with_all_that_they_started():
    child = "import time; time.sleep(60)"
    program = (
        f"import subprocess; p = subprocess.Popen([sys.executable, '-c', {child!r}]); print(p.pid); time.sleep(60)"
    )
    code, lines, seconds = run(f"me == 0 and (time.sleep(0.3), sys.exit(5));{program}", grace_s=0.5)
    assert code == 5
    assert seconds < 20
    (pid,) = [int(line.split()[1]) for line in lines]
    for _ in range(100):
        if not Path(f"/proc/{pid}").exists() or " Z " in Path(f"/proc/{pid}/stat").read_text():
            return
        time.sleep(0.05)
    raise AssertionError("the child lives on")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_them_all(number: signal.Signals):
    def send_when_ready() -> None:
        while out.getvalue().count("ready") < 2:
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    out = io.StringIO()
    threading.Thread(target=send_when_ready, daemon=True).start()
    program = f"signal.signal({int(number)}, lambda *_: sys.exit(42)); print('ready'); time.sleep(60)"
    before = signal.getsignal(number)
    command = [sys.executable, "-SEuc", START + program]
    assert run_processes(command, host_environments(2, 1), grace_s=30, out=out) == 42
    assert signal.getsignal(number) is before


def test_launch_local_runs_a_main_as_several_hosts(tmp_path: Path):
    config = (
        "def get_config():\n    from imagen_jax.errors import InputError\n    raise InputError('the config was read')\n"
    )
    (tmp_path / "config.py").write_text(config)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "launch.local", "--processes=2", "--devices=2", "--grace=30"),
            *("--", "train", f"--config={tmp_path}/config.py"),
        ],
        cwd=REPO,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 2
    assert sorted(done.stdout.splitlines()) == ["[0] error: the config was read", "[1] error: the config was read"]
