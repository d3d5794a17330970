import re
import subprocess
import sys
import textwrap

import pytest

from imagen_jax.training.watchdog import Watchdog

# Fed for longer than its time, then no more.
STALLS = """
    import time
    from imagen_jax.training.watchdog import Watchdog

    def work():
        for _ in range(4):
            time.sleep(1.0)
            watchdog.feed()

    def wait_for_another_host():
        time.sleep(60)

    watchdog = Watchdog(3.0)
    watchdog.feed()
    work()
    print("worked", flush=True)
    wait_for_another_host()
"""


def test_a_standstill_ends_the_process_with_the_line_it_stands_at():
    program = [sys.executable, "-c", textwrap.dedent(STALLS)]
    done = subprocess.run(program, capture_output=True, text=True, check=False, timeout=50)
    assert done.returncode == 1
    assert done.stdout == "worked\n"
    assert re.search(r"Timeout .*\n.*Thread .*\n.*in wait_for_another_host", done.stderr), done.stderr


def test_zero_and_close_mean_never(monkeypatch):
    armed = []
    monkeypatch.setattr("faulthandler.dump_traceback_later", lambda *_, **__: armed.append(True))
    monkeypatch.setattr("faulthandler.cancel_dump_traceback_later", lambda: armed.append(False))
    Watchdog(0).feed()
    assert armed == []
    watchdog = Watchdog(5)
    watchdog.feed()
    watchdog.close()
    assert armed == [True, False]


@pytest.fixture(autouse=True)
def _no_watchdog_is_left():
    yield
    Watchdog(1).close()
