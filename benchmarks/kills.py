"""A training run that is killed (-9) at random moments, again and again, beside one that isn't.

python -m benchmarks.kills [--kills=30] [--hosts=1]

The demo's base stage, made small. Each kill comes after a time that chance chooses, up to twice what
start-up takes: while it starts, trains, or writes a checkpoint. The same command then goes on. Prints where the kills
fell, and whether the two runs' last checkpoints, which hold a digest of every array, and their losses are equal.
"""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from absl import flags

from imagen_jax import cli
from imagen_jax.training.metrics import read_metrics
from launch.processes import host_environments

_KILLS = flags.DEFINE_integer("kills", 30, "How often.", lower_bound=1)
_HOSTS = flags.DEFINE_integer("hosts", 1, "Processes of the run; each kill takes one of them.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "Of the moments.")
_STEPS = flags.DEFINE_integer("steps", 200, "Of the whole run.", lower_bound=1)


def main() -> int:
    """Prints a line for each kill and the result; 0 if nothing differs."""
    with tempfile.TemporaryDirectory() as folder:
        return _compare(Path(folder))


def _compare(folder: Path) -> int:
    data = ["--data=emoji/32/food:train", f"--data_dir={folder}/data"]
    _run("untrained_encoder", *data, f"--out={folder}/encoder", "--width=16", "--num_heads=2")
    _run("precompute_text", *data, f"--encoder={folder}/encoder", f"--out={folder}/text", "--max_length=24")
    assert _wait(_start(folder, "straight")) == 0, _output(folder, "straight")

    chance, start_up_s = random.Random(_SEED.value), 0.0
    for number in range(1, _KILLS.value + 1):
        started, processes = time.monotonic(), _start(folder, "killed")
        if number == 1:  # at its first step
            while not _steps(folder / "killed"):
                time.sleep(0.02)
            moment = start_up_s = time.monotonic() - started
            print(f"start-up takes {start_up_s:.1f} s", flush=True)
        else:
            moment = chance.uniform(0, 2 * start_up_s)
            time.sleep(moment)
        victim = chance.choice(processes)
        if victim.poll() is not None:
            print(f"kill {number}: too late, the run had ended; take more --steps", flush=True)
            break
        victim.kill()
        _wait(processes)
        print(f"kill {number}: after {moment:.1f} s, at step {_steps(folder / 'killed')}", flush=True)
    assert _wait(_start(folder, "killed")) == 0, _output(folder, "killed")

    straight, killed = (_last_checkpoint(folder / name) for name in ("straight", "killed"))
    losses = [
        [(line["step"], line["train/loss"]) for line in read_metrics(folder / name)] for name in ("straight", "killed")
    ]
    damaged = list((folder / "killed" / "checkpoints").glob("corrupt-*"))
    same = straight == killed and losses[0] == losses[1]
    print(
        f"{len(damaged)} damaged checkpoints; the last checkpoints' {len(straight['digests'])} arrays are "
        f"{'equal' if straight == killed else 'DIFFERENT'}, the {len(losses[0])} lines of losses "
        f"{'equal' if losses[0] == losses[1] else 'DIFFERENT'}"
    )
    return 0 if same and not damaged else 1


def _command(main: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", f"imagen_jax.{main}", *arguments]


def _run(main: str, *arguments: str) -> None:
    subprocess.run(_command(main, *arguments), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _start(folder: Path, name: str) -> list[subprocess.Popen[Any]]:
    arguments = [
        "--config=configs/emoji_base.py:demo",
        f"--workdir={folder}/{name}",
        "--config.data.source=emoji/32/food:train",
        f"--config.data.data_dir={folder}/data",
        f"--config.data.text_store={folder}/text",
        "--config.data.batch_size=8",
        "--config.model.channels=8",
        "--config.prompts=()",
        f"--config.train.num_steps={_STEPS.value}",
        "--config.train.checkpoint_every=4",
        "--config.train.log_every=1",
    ]
    alone = _HOSTS.value == 1
    environments = [{}] if alone else host_environments(_HOSTS.value, 1)
    with (folder / f"{name}.log").open("ab") as log:
        return [
            subprocess.Popen(_command("train", *arguments), env=os.environ | host, stdout=log, stderr=log)
            for host in environments
        ]


def _wait(processes: list[subprocess.Popen[Any]]) -> int:
    """The first exit code that isn't 0; a host that has lost the others ends by itself."""
    codes = [process.wait() for process in processes]
    assert not any(code in (-signal.SIGSEGV, -signal.SIGBUS) for code in codes)
    return next((code for code in codes if code), 0)


def _output(folder: Path, name: str) -> str:
    return (folder / f"{name}.log").read_text(errors="replace")


def _steps(workdir: Path) -> int:
    lines = read_metrics(workdir) if (workdir / "metrics.jsonl").exists() else []
    return int(lines[-1]["step"]) if lines else 0


def _last_checkpoint(workdir: Path) -> dict[str, Any]:
    """Its digests and the position of the data."""
    steps = [int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdecimal()]
    meta = workdir / "checkpoints" / str(max(steps)) / "meta" / "metadata"
    return {"step": max(steps), **json.loads(meta.read_text(encoding="utf-8"))}


if __name__ == "__main__":
    cli.run(main)
