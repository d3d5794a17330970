"""What a run leaves in its workdir about itself, and whether another start may go on there."""

import dataclasses
import subprocess
from pathlib import Path
from typing import Any

import imagen_jax
from imagen_jax import config as config_lib
from imagen_jax.errors import InputError
from imagen_jax.files import read_json, write_json, write_text
from imagen_jax.sampling.cascade import StageConfig
from imagen_jax.sampling.folder import STAGE_FILE
from imagen_jax.text.t5_config import describe_width

_RUN_CONFIG = "config.json"


def describe(workdir: Path, config: Any, stage: StageConfig) -> None:
    """Leaves beside the checkpoints what a stranger needs: the config, the stage, the revision of the code."""
    write_text(workdir / _RUN_CONFIG, config_lib.to_json(config))
    write_json(workdir / STAGE_FILE, dataclasses.asdict(stage))
    write_text(workdir / "revision.txt", revision() + "\n")


def revision() -> str:
    """Of this code: what git says or, without git, what was sent with it or installed."""
    sent = Path(__file__).parents[1] / "revision.txt"
    if sent.is_file():  # launch.setup sends the code without its history, and this instead
        return sent.read_text(encoding="utf-8").strip()
    command = ["git", "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):  # no git, or installed from a wheel
        return f"imagen_jax {imagen_jax.__version__}"
    return done.stdout.strip()


def check_resumes(workdir: Path, config: Any, stage: StageConfig) -> None:
    """Raises InputError where the run in `workdir` can't go on with this config or these texts."""
    run = "the workdir of a training run"
    config_lib.check_resumes(config, read_json(workdir / _RUN_CONFIG, expected=run), where=str(workdir))
    before = read_json(workdir / STAGE_FILE, expected=run)
    if before["encoder_fingerprint"] != stage.encoder_fingerprint:
        raise InputError(
            f'"{workdir}" was trained with texts by {before["encoder_name"]}, {describe_width(before["text_width"])} '
            f'({before["encoder_fingerprint"][:12]}), and "{config.data.text_store}" is by {stage.encoder_name}, '
            f"{describe_width(stage.text_width)} ({stage.encoder_fingerprint[:12]}); use another --workdir, or that "
            "encoder's store"
        )
