"""What launch/ reads of gcloud and of workers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

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


def _answering(text: str) -> Callable[[Path], None]:
    def prepare(folder: Path) -> None:
        (folder / "answer").write_text(text)

    return prepare


def _status(folder: Path) -> Any:
    return parse_status((folder / "answer").read_text("utf-8", errors="replace"))


READERS: dict[str, Reader] = {
    "a queued resource": Reader(_answering(f"WARNING: x\n{json.dumps(QUEUED, indent=2)}\n"), "answer", _described),
    "a node": Reader(_answering(json.dumps(NODE)), "answer", _described),
    "workers' status": Reader(_answering("".join(f"{json.dumps(line)}\n" for line in WORKERS)), "answer", _status),
}
