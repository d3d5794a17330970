"""What launch/ reads of gcloud and of workers, and what is read of a config's file before it is run."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from imagen_jax.config_flag import defines_get_config
from launch.answers import count_workers, inside, parse_object, parse_status
from tests.readers.reader import Reader

QUEUED = {
    "name": "projects/p/locations/z/queuedResources/base",
    "state": {"state": "FAILED", "failedData": {"error": {}}},
}
NODE = {"state": "READY", "networkEndpoints": [{"ipAddress": "10.0.0.1"}] * 4, "networkConfigs": [{}]}
WORKERS = [
    {"worker": f"w-{number}", "state": "exited", "exit_code": 137, "age_s": 5, "tries": 1} for number in range(4)
]


def _described(folder: Path) -> Any:
    value = parse_object((folder / "answer").read_text("utf-8", errors="replace"))
    return value and (inside(value, "state", "failedData", "error", "message"), count_workers(value))


CONFIG = """
from imagen_jax.config import base_config

def get_config(arg="demo"):
    config = base_config()
    config.model.update(name="unet", channel_mults=(1, 2), text="\u00e9")
    return config
"""


def _answering(text: str) -> Callable[[Path], None]:
    def prepare(folder: Path) -> None:
        (folder / "answer").write_text(text, encoding="utf-8")

    return prepare


def _status(folder: Path) -> Any:
    return parse_status((folder / "answer").read_text("utf-8", errors="replace"))


READERS: dict[str, Reader] = {
    "a queued resource": Reader(_answering(f"WARNING: x\n{json.dumps(QUEUED, indent=2)}\n"), "answer", _described),
    "a node": Reader(_answering(json.dumps(NODE)), "answer", _described),
    "a config's file": Reader(_answering(CONFIG), "answer", lambda folder: defines_get_config(folder / "answer")),
    "workers' status": Reader(_answering("".join(f"{json.dumps(line)}\n" for line in WORKERS)), "answer", _status),
}
