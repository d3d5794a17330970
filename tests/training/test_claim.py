import subprocess
import sys

import pytest

from imagen_jax.errors import InputError
from imagen_jax.training.claim import Claim

CLAIMS_AND_WAITS = """
import sys, time
from pathlib import Path
from imagen_jax.training.claim import Claim
claim = Claim(Path(sys.argv[1]))
print("claimed", flush=True)
time.sleep(60)
"""


def test_a_second_run_on_this_machine_is_refused_until_the_first_is_gone(tmp_path):
    program = [sys.executable, "-c", CLAIMS_AND_WAITS, str(tmp_path / "run")]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout
        assert first.stdout.readline() == "claimed\n"
        with pytest.raises(InputError, match=r'another run is training in ".*run"; use another --workdir'):
            Claim(tmp_path / "run")
        first.kill()
    claim = Claim(tmp_path / "run")
    claim.check()


def test_a_run_on_another_machine_takes_over_and_the_first_notices(tmp_path):
    first = Claim(tmp_path)
    first.check()
    first._lock.release()  # a lock of one machine is none on another
    second = Claim(tmp_path)
    with pytest.raises(InputError, match=r"another run has taken over .* give each run a --workdir of its own"):
        first.check()
    second.check()
