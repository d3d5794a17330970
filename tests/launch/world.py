"""A pod and a gcloud for tests of launch/."""

import json
import shutil
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from launch.pod import Pod
from launch.runner import CommandError, Runner
from tests.launch import fake_gcloud

POD = Pod("base", "my-project", "us-central2-b", "v4-512", "my-bucket", spot=True)
READY = [["ACTIVE", "READY"]]
STORY: dict[str, Any] = {"lives": [READY], "runs": [["running", 0]], "workers": 2, "bucket": "hierarchical"}


class World:
    """A folder with a fake gcloud in it and the story that it plays; see fake_gcloud.py."""

    def __init__(self, folder: Path, **story: Any):
        self.folder = folder
        folder.mkdir(exist_ok=True)
        (folder / "story.json").write_text(json.dumps(STORY | story))
        script = folder / "gcloud"
        script.write_text(f"#!{sys.executable} -SE\n" + Path(fake_gcloud.__file__).read_text("utf-8"))
        script.chmod(script.stat().st_mode | stat.S_IXUSR)

    def calls(self) -> list[list[str]]:
        """The arguments of every call so far."""
        log = self.folder / "log.jsonl"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    def count(self, *words: str) -> int:
        """How many calls had all of these words in them."""
        return sum(all(word in " ".join(call) for word in words) for call in self.calls())

    def runner(self) -> Runner:
        return _InProcess(self.folder)


class _InProcess(Runner):
    """Calls the fake without starting a process for each."""

    def __init__(self, folder: Path):
        super().__init__(dry_run=False)
        self._folder = folder

    def run(self, argv: Sequence[str], *, timeout_s: float = 0) -> str:
        reply = fake_gcloud.answer(list(argv[1:]), self._folder)
        if reply.code:
            raise CommandError(argv, reply.err)
        return reply.out


needs_gcloud = pytest.mark.skipif(not shutil.which("gcloud"), reason="gcloud is not installed")
needs_git = pytest.mark.skipif(not (Path(__file__).parents[2] / ".git").exists(), reason="not a git checkout")
