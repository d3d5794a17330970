"""Running the mains as a user does, in processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

from imagen_jax.training.metrics import read_metrics

REPO = Path(__file__).parents[1]


def command(main: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", f"imagen_jax.{main}", *arguments]


def environment(*, devices: int = 1, as_users_compile: bool = False) -> dict[str, str]:
    """Of a main's process; `as_users_compile`: without the settings that make the tests' compiling quick."""
    quick = ("JAX_DISABLE_MOST_OPTIMIZATIONS", "XLA_FLAGS") if as_users_compile else ()
    kept = {name: value for name, value in os.environ.items() if name not in quick}
    return kept | {"JAX_NUM_CPU_DEVICES": str(devices)}


def run(main: str, *arguments: str, expect: int = 0, devices: int = 1, as_users_compile: bool = False) -> str:
    """Standard output and standard error of `python -m imagen_jax.MAIN`, which must exit with `expect`."""
    done = subprocess.run(
        command(main, *arguments),
        cwd=REPO,
        env=environment(devices=devices, as_users_compile=as_users_compile),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == expect, f"{main} exited with {done.returncode}:\n{done.stdout}"
    return done.stdout


def last_step(workdir: Path) -> int:
    """The last that a run has logged; 0 before it has."""
    lines = read_metrics(workdir) if (workdir / "metrics.jsonl").exists() else []
    return int(lines[-1]["step"]) if lines else 0


def run_folder(folder: Path) -> tuple[str, ...]:
    """Overrides that point tests/tiny_config.py at what `prepare` made in `folder`."""
    return (
        f"--config.data.data_dir={folder}/datasets",
        f"--config.data.text_store={folder}/text",
        f"--config.data.text_encoder={folder}/encoder",
    )


def prepare(folder: Path) -> None:
    """Builds the data set, an untrained encoder and the text store."""
    data = ("--data=emoji/32/hearts:train", f"--data_dir={folder}/datasets")
    run("untrained_encoder", *data, f"--out={folder}/encoder", "--width=16", "--num_heads=2", "--vocab_size=80")
    run("precompute_text", *data, f"--encoder={folder}/encoder", f"--out={folder}/text", "--max_length=8")
