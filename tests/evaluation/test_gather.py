import io
import sys

import numpy as np
import pytest

from imagen_jax.evaluation import gather
from imagen_jax.evaluation.gather import from_words, gather_rows, own_rows, to_words
from launch.processes import host_environments, run_processes


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_bit_survives_as_words(dtype):
    tiny = np.finfo(dtype).smallest_subnormal
    x = np.array([[1.0, 1.0 + np.finfo(dtype).eps, -0.0], [np.pi, tiny, np.finfo(dtype).max]], dtype)
    words = to_words(x)
    assert words.dtype == np.uint32
    assert from_words(words, x.dtype).tobytes() == x.tobytes()


def test_one_process_has_its_own_rows():
    x = np.random.default_rng(0).normal(size=(4, 3))
    assert gather_rows(x) is x
    assert own_rows(4) == range(4)


def test_processes_divide_all_rows_evenly(monkeypatch):
    monkeypatch.setattr(gather.jax, "process_count", lambda: 3)
    parts = []
    for process in range(3):
        monkeypatch.setattr(gather.jax, "process_index", lambda process=process: process)
        parts.append(own_rows(11))
    assert [row for part in parts for row in part] == list(range(11))
    assert {len(part) for part in parts} == {3, 4}


HOST = """
import hashlib, os, jax, numpy as np
place = [os.environ["IMAGEN_" + name] for name in ("COORDINATOR", "NUM_PROCESSES", "PROCESS_ID")]
jax.distributed.initialize(place[0], *map(int, place[1:]))
from imagen_jax.evaluation import gather
x = np.random.default_rng(0).normal(size=(300, 7))
for split in (0, 100, 300):
    for gather._GATHER_BYTES in (1, 5000, 2**28):
        for all_rows in (x, x.astype(np.float32)):
            found = gather.gather_rows(np.split(all_rows, [split])[jax.process_index()])
            assert found.dtype == all_rows.dtype and found.tobytes() == all_rows.tobytes()
            if split != 100:
                break
        if split != 100:
            break
assert gather.gather_rows(x[:0]).shape == (0, 7)
print("all bits", flush=True)
"""


def test_two_hosts_have_every_row_bit_by_bit():
    out = io.StringIO()
    code = run_processes([sys.executable, "-Wignore", "-c", HOST], host_environments(2, 1), out=out)
    assert code == 0, out.getvalue()
    assert out.getvalue().count("all bits") == 2
