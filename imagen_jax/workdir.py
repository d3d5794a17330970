"""What a run leaves in its workdir about itself, and whether another start may go on there."""

import dataclasses
import subprocess
from pathlib import Path
from typing import Any

from absl import logging

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
    here = Path(__file__)

    def git(*arguments: str) -> str:
        command = ["git", *arguments]
        return subprocess.run(command, cwd=here.parent, capture_output=True, text=True, check=True).stdout.strip()

    try:
        # Installed into a virtual environment inside a repository of the user's, this file is none of its own.
        git("ls-files", "--error-unmatch", here.name)
        return git("describe", "--always", "--dirty")
    except (OSError, subprocess.CalledProcessError):  # no git, or installed from a wheel
        return f"imagen_jax {imagen_jax.__version__}"


def check_resumes(workdir: Path, config: Any, stage: StageConfig) -> None:
    """Checks that the run in `workdir` can go on with this config and these texts; warns of another data set.

    Raises:
      InputError: it can't, or what it has left about itself is damaged.
    """
    run = "the workdir of a training run"
    config_lib.check_resumes(config, read_json(workdir / _RUN_CONFIG, expected=run), where=str(workdir))
    path = workdir / STAGE_FILE
    before = read_json(path, expected=run)
    kinds = {"encoder_name": str, "encoder_fingerprint": str, "text_width": int}
    wrong = [name for name, kind in kinds.items() if not isinstance(before.get(name), kind)]
    if wrong:
        raise InputError(f'"{path}" is damaged: no {", ".join(wrong)}; restore it, or use another --workdir')
    if before["encoder_fingerprint"] != stage.encoder_fingerprint:
        raise InputError(
            f'"{workdir}" was trained with texts by {before["encoder_name"]}, {describe_width(before["text_width"])} '
            f'({before["encoder_fingerprint"][:12]}), and "{config.data.text_store}" is by {stage.encoder_name}, '
            f"{describe_width(stage.text_width)} ({stage.encoder_fingerprint[:12]}); use another --workdir, or that "
            "encoder's store"
        )
    data = before.get("source_fingerprint")  # which earlier versions didn't write
    if data and data != stage.source_fingerprint:
        logging.warning(
            "%s is another data set than this run was started with (%.12s there, %.12s here): from here on it trains "
            "on that, in another order",
            stage.source, data, stage.source_fingerprint,
        )  # fmt: skip
