"""Training runs to which something happens at random moments, again and again, beside one that nothing happens to.

python -m benchmarks.mishaps [--kills=30] [--full_disks=20] [--damages=20] [--hosts=1]

The demo's base stage, made small. A kill (-9) comes after a time that chance chooses, up to twice what start-up takes:
while the run starts, trains, or writes a checkpoint. A full disk is a small file system in memory that is filled at
such a moment (which takes the right to mount one). A damage is done to the newest checkpoint of a killed run: a file of
it is cut, changed, emptied or deleted. After each the same command goes on.

Prints what each mishap cost, and what the command said about it besides its usual log; at the end, whether the last
checkpoints, which hold a digest of every array, and the losses are those of the run that nothing happened to. Exit
code 0 if they are, and nothing was said in more than one line.
"""

import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import flags

from imagen_jax import cli
from imagen_jax.errors import EXIT_STORAGE
from imagen_jax.training.metrics import read_metrics
from launch.processes import host_environments

_KILLS = flags.DEFINE_integer("kills", 30, "How many kills.", lower_bound=0)
_FULL_DISKS = flags.DEFINE_integer("full_disks", 20, "How many full disks.", lower_bound=0)
_DAMAGES = flags.DEFINE_integer("damages", 20, "How many damages of the newest checkpoint.", lower_bound=0)
_HOSTS = flags.DEFINE_integer("hosts", 1, "Processes of the run; each kill takes one of them.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the moments and of the damages.")
_STEPS = flags.DEFINE_integer("steps", 800, "Steps of the whole run.", lower_bound=1)

_DISK_MB = 64
_DEADLINE_S = 1800.0
# Lines of the usual log, and what the mishap before has damaged.
_USUAL = re.compile(
    r"step \d|Going on from|A base stage|A super|Done\.|\d+ steps of|\d+ images of|[\d.]+M parameters|/|\[Gloo\]"
    r"|warning: .* is damaged, and now called|warning: \S*metrics.jsonl: \d+ lines? (is|are) damaged"
)
_OURS = re.compile(r"error: |warning: |Traceback|Fatal Python error")
_DAMAGED = "is damaged, and now called"


class Run:
    """A training run in a folder of its own, started again and again."""

    def __init__(self, folder: Path, name: str, chance: random.Random):
        """Prepares the run called `name`, whose data `_prepare` has put into `folder`."""
        self.folder, self.workdir, self._chance = folder, folder / name, chance
        self._logs = [folder / f"{name}_{host}.log" for host in range(_HOSTS.value)]
        self.start_up_s = 30.0

    def start(self, num_steps: int = 0) -> list[subprocess.Popen[Any]]:
        """Starts the command, on all hosts, for --steps steps; what each prints goes to a log that is emptied first."""
        command = _train(self.folder, self.workdir, num_steps or _STEPS.value)
        environments = [{}] if _HOSTS.value == 1 else host_environments(_HOSTS.value, 1)
        processes = []
        for environment, path in zip(environments, self._logs, strict=True):
            with path.open("wb") as log:
                processes.append(subprocess.Popen(command, env=os.environ | environment, stdout=log, stderr=log))
        return processes

    def wait(self, processes: list[subprocess.Popen[Any]]) -> int:
        """Returns a full disk's exit code if a host has it, or the first that isn't 0 or of a kill.

        A host that has lost the others ends by itself.
        """
        codes = [process.wait(timeout=_DEADLINE_S) for process in processes]
        codes.sort(key=lambda code: code != EXIT_STORAGE)
        return next((code for code in codes if code and code != -signal.SIGKILL), 0)

    def finish(self, num_steps: int = 0) -> None:
        """Runs the command to its end."""
        started, processes = time.monotonic(), self.start(num_steps)
        while not self.steps() and any(process.poll() is None for process in processes):
            time.sleep(0.02)
        self.start_up_s = time.monotonic() - started
        assert self.wait(processes) == 0, self.printed()

    def moment(self) -> float:
        """Sleeps for a random time, and returns it in seconds."""
        moment = self._chance.uniform(0, 2 * self.start_up_s)
        time.sleep(moment)
        return moment

    def steps(self) -> int:
        """The last step in the metrics; 0 before there is one."""
        lines = read_metrics(self.workdir) if (self.workdir / "metrics.jsonl").exists() else []
        return max((int(line["step"]) for line in lines), default=0)

    def printed(self) -> str:
        """All that the last start printed, on all hosts."""
        return "".join(path.read_text(errors="replace") for path in self._logs)

    def said(self) -> list[list[str]]:
        """The lines of the last start that aren't the usual log: a list for each host."""
        said = []
        for path in self._logs:
            lines = [line.strip() for line in path.read_text(errors="replace").splitlines() if line.strip()]
            # Where a process of several goes, jax and gloo of the others print much that is not ours to change.
            ours = lines if _HOSTS.value == 1 else [line for line in lines if _OURS.match(line)]
            said.append([line for line in ours if not _USUAL.match(line)])
        return said

    def checkpoints(self) -> list[int]:
        """Steps of the finished checkpoints, rising."""
        folder = self.workdir / "checkpoints"
        return sorted(int(path.name) for path in folder.glob("*") if path.name.isdecimal()) if folder.is_dir() else []

    def end(self) -> dict[str, Any]:
        """Returns what two equal runs share: the last checkpoint's digests and position of the data, and the losses."""
        newest = max(self.checkpoints())
        meta = self.workdir / "checkpoints" / str(newest) / "meta" / "metadata"
        losses = [(line["step"], line["train/loss"]) for line in read_metrics(self.workdir) if "train/loss" in line]
        return {"step": newest, "losses": losses, **json.loads(meta.read_text(encoding="utf-8"))}


def main() -> int:
    """Prints a line for each mishap and for each run; 0 if nothing differs."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _prepare(folder)
        # What is compiled in it is not compiled again, by which the start-up of all others is the same.
        Run(folder, "first", random.Random(0)).finish(num_steps=1)
        straight = Run(folder, "straight", random.Random(0))
        straight.finish()
        print(f"start-up takes {straight.start_up_s:.1f} s", flush=True)
        good = True
        kinds: dict[str, tuple[int, Callable[[Run, random.Random], str]]] = {
            "killed": (_KILLS.value, _kill),
            "filled": (_FULL_DISKS.value, _fill_the_disk),
            "damaged": (_DAMAGES.value, _damage),
        }
        for kind, (count, happen) in kinds.items():
            if count:
                good &= _compare(Run(folder, kind, random.Random(_SEED.value)), straight, kind, count, happen)
        return 0 if good else 1


def _compare(run: Run, straight: Run, kind: str, count: int, happen: Callable[[Run, random.Random], str]) -> bool:
    chance, loud = random.Random(_SEED.value + 1), 0
    run.start_up_s = straight.start_up_s
    if kind == "filled":
        run.workdir.mkdir()
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={_DISK_MB}m", "imagen_mishaps", str(run.workdir)], check=True
        )
    try:
        for number in range(1, count + 1):
            before = happen(run, chance)
            said = run.said()
            lines = [line for host in said for line in host]
            loud += any(len(host) > 1 for host in said) or any("Traceback" in line for line in lines)
            # Hosts may say the same, which is printed once.
            print(f"{kind} {number}: {before}; said: {' / '.join(dict.fromkeys(lines)) or 'nothing'}", flush=True)
            if run.steps() >= _STEPS.value:
                print(f"{kind}: the run had ended; take more --steps", flush=True)
                break
        run.finish()
        a, b = straight.end(), run.end()
        same = [name for name in a if a[name] == b[name]]
    finally:
        if kind == "filled":
            subprocess.run(["umount", "--lazy", str(run.workdir)], check=False)
    print(
        f"{kind}: {len(a['digests'])} arrays and {len(a['losses'])} losses are "
        f"{'equal' if len(same) == len(a) else f'DIFFERENT, but for {same}'}; "
        f"{loud} were said by a host in more than one line",
        flush=True,
    )
    return len(same) == len(a) and not loud


def _kill(run: Run, chance: random.Random) -> str:
    processes = run.start()
    moment = run.moment()
    chance.choice(processes).kill()
    run.wait(processes)
    return f"killed after {moment:.1f} s {_cost(run)}"


def _fill_the_disk(run: Run, chance: random.Random) -> str:
    processes = run.start()
    moment = run.moment()
    filler = run.workdir / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(b"x" * 2**16):
                pass
        except OSError:
            pass
    code = run.wait(processes)
    filler.unlink()
    if code not in (0, EXIT_STORAGE):
        sys.exit(f"{run.printed()}\nexit code {code}, where the disk was full")
    return f"full after {moment:.1f} s, exit code {code} {_cost(run)}"


def _damage(run: Run, chance: random.Random) -> str:
    processes = run.start()
    run.moment()
    chance.choice(processes).kill()
    run.wait(processes)
    restored = _DAMAGED in run.printed()
    what = "nothing to damage"
    # Where all were damaged the run would not go on, and say so.
    if len(run.checkpoints()) > 1:
        newest = run.workdir / "checkpoints" / str(run.checkpoints()[-1])
        files = sorted(path for path in newest.rglob("*") if path.is_file())
        path = chance.choice(files)
        data, kind = path.read_bytes(), chance.choice(("cut", "flipped", "emptied", "deleted", "zeroed"))
        place = chance.randrange(max(1, len(data)))
        damaged = {
            "cut": data[:place],
            "flipped": data[:place] + bytes(byte ^ 1 << chance.randrange(8) for byte in data[place : place + 1])
            + data[place + 1 :],
            "emptied": b"",
            "zeroed": data[:place] + bytes(len(data[place:])),
        }  # fmt: skip
        path.unlink() if kind == "deleted" else path.write_bytes(damaged[kind])
        what = f"{path.relative_to(newest.parent)} {kind}"
    return f"{what} ({'the last damage was found' if restored else 'no damage found at this start'}) {_cost(run)}"


def _cost(run: Run) -> str:
    """Says in words how many steps the next start repeats."""
    checkpoints, steps = run.checkpoints(), run.steps()
    kept = checkpoints[-1] if checkpoints else 0
    return f"at step {steps}, of which {max(0, steps - kept)} are repeated"


def _prepare(folder: Path) -> None:
    data = ["--data=emoji/32/food:train", f"--data_dir={folder}/data"]
    encoder = [f"--out={folder}/encoder", "--width=16", "--num_heads=2"]
    for command in (
        ["untrained_encoder", *data, *encoder],
        ["precompute_text", *data, f"--encoder={folder}/encoder", f"--out={folder}/text", "--max_length=24"],
    ):
        subprocess.run(
            [sys.executable, "-m", f"imagen_jax.{command[0]}", *command[1:]], check=True, capture_output=True
        )


def _train(folder: Path, workdir: Path, num_steps: int) -> list[str]:
    return [
        *(sys.executable, "-m", "imagen_jax.train", "--config=configs/emoji_base.py:demo", f"--workdir={workdir}"),
        "--config.data.source=emoji/32/food:train",
        f"--config.data.data_dir={folder}/data",
        f"--config.data.text_store={folder}/text",
        "--config.data.batch_size=8",
        "--config.model.channels=8",
        "--config.prompts=()",
        f"--config.train.num_steps={num_steps}",
        # Of the whole run, however long this one is: the program compiled is then the same.
        f"--config.optimizer.decay_steps={_STEPS.value}",
        "--config.train.checkpoint_every=4",
        "--config.train.log_every=1",
    ]


if __name__ == "__main__":
    cli.run(main)
