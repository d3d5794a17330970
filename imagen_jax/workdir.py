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
    """Leaves beside the checkpoints what a stranger needs: the config, the stage, the revision of the code.

    Raises:
      StorageError: the disk is full, read-only or gone.
    """
    write_text(workdir / _RUN_CONFIG, config_lib.to_json(config))
    write_json(workdir / STAGE_FILE, dataclasses.asdict(stage))
    write_text(workdir / "revision.txt", revision() + "\n")


def revision() -> str:
    """Returns the revision of this code: what git says or, without its history, what was sent with it or installed.

    Git is only asked about a repository that tracks this code: another that holds the environment in which it is
    installed knows nothing about it.
    """
    sent = Path(__file__).parents[1] / "revision.txt"
    if sent.is_file():  # launch.setup sends the code without its history, and this instead
        return sent.read_text(encoding="utf-8").strip()
    try:
        _git("ls-files", "--error-unmatch", Path(__file__).name)
        return _git("describe", "--always", "--dirty")
    except (OSError, subprocess.CalledProcessError):  # no git, or not the code's own
        return f"imagen_jax {imagen_jax.__version__}"


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.strip()


def check_resumes(workdir: Path, config: Any, stage: StageConfig) -> None:
    """Checks that the run in `workdir` can go on with this config and these texts; warns where it uses other data.

    Raises:
      InputError: it can't, or what it has written about itself is damaged.
    """
    before = _read(workdir, _RUN_CONFIG)
    if before is not None:
        # Written since there are these fields.
        before.setdefault("conditions", [])
        for group, name, value in (("data", "held_out", 0), ("train", "init_from", ""), ("train", "trainable", ["*"])):
            if isinstance(before.get(group), dict):
                before[group].setdefault(name, value)
        config_lib.check_resumes(config, before, where=str(workdir))
    before = _read(workdir, STAGE_FILE)
    if before is None:
        return
    _check_types(workdir / STAGE_FILE, before)
    if before["encoder_fingerprint"] != stage.encoder_fingerprint:
        raise InputError(
            f'"{workdir}" was trained with texts by {before["encoder_name"]}, {describe_width(before["text_width"])} '
            f'({before["encoder_fingerprint"][:12]}), and "{config.data.text_store}" is by {stage.encoder_name}, '
            f"{describe_width(stage.text_width)} ({stage.encoder_fingerprint[:12]}); use another --workdir, or that "
            "encoder's store"
        )
    source_before = before.get("source_fingerprint")
    if source_before and source_before != stage.source_fingerprint:
        logging.warning(
            "the data set %s has changed since this run was started (it was %s, and is %s): from here on the run "
            "trains on other examples, or on the same in another order",
            stage.source, source_before[:12], stage.source_fingerprint[:12],
        )  # fmt: skip


def read_run_config(workdir: Path) -> Any:
    """Reads the config, resolved, of the run in `workdir`.

    Raises:
      InputError: it is missing or damaged.
    """
    expected = "what a training run has written; put back a copy"
    return config_lib.from_json(read_json(workdir / _RUN_CONFIG, expected=expected))


def _read(workdir: Path, name: str) -> dict[str, Any] | None:
    """What a run has written about itself; None, with a warning, where it is missing."""
    path = workdir / name
    if not path.exists():
        logging.warning("%s is missing, so that nothing checks whether this config fits the run's checkpoints", path)
        return None
    return read_json(path, expected=f"what a training run has written; {_remedy(path)}")


def _check_types(path: Path, stage: dict[str, Any]) -> None:
    texts = ("encoder_name", "encoder_fingerprint", "source_fingerprint")
    wrong = [name for name in texts if not isinstance(stage.get(name, "" if name == texts[-1] else None), str)]
    if not isinstance(stage.get("text_width"), int):
        wrong.append("text_width")
    if wrong:
        raise InputError(f'"{path}" is damaged (no valid {", ".join(wrong)}); {_remedy(path)}')


def _remedy(path: Path) -> str:
    return f"put back a copy, or remove it ({path.name}) to go on without its check: the same command writes it again"
