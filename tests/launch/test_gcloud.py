import dataclasses
import json
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from launch import gcloud, steps
from launch.pod import GENERATIONS
from tests.launch.world import POD, needs_gcloud

FIXED = dataclasses.replace(POD, spot=False, reserved=True)
COMMANDS = {
    "create": gcloud.create_queued_resource(POD),
    "create reserved": gcloud.create_queued_resource(FIXED),
    "create on demand": gcloud.create_queued_resource(dataclasses.replace(POD, spot=False)),
    **{
        f"create {generation}": gcloud.create_queued_resource(
            dataclasses.replace(POD, accelerator=f"{generation}-32", runtime="")
        )
        for generation in GENERATIONS
    },
    "describe": gcloud.describe_queued_resource(POD),
    "delete": gcloud.delete_queued_resource(POD),
    "describe node": gcloud.describe_node(POD),
    "ssh": gcloud.ssh(POD, ["tail", "-F", "a file's name"], worker="0"),
    "scp": gcloud.scp(POD, "/tmp/imagen_launch"),
    "status": steps.status_command(POD),
    "create bucket": gcloud.create_bucket(POD),
    "describe bucket": gcloud.describe_bucket(POD),
}


def lint(commands: Sequence[str], folder: Path) -> list[str]:
    """What gcloud itself, which needs no network for it, finds wrong with each of the commands."""
    file = folder / "commands.json"
    file.write_text(json.dumps([{"command_string": command} for command in commands]))
    done = subprocess.run(
        ["gcloud", "meta", "lint-gcloud-commands", f"--commands-file={file}"],
        capture_output=True,
        text=True,
        check=True,
    )
    results = json.loads(done.stdout)
    assert len(results) == len(set(commands))
    return [f"{result['command_string']}: {result['error_message']}" for result in results if not result["success"]]


def test_a_pod_is_asked_for_by_its_names():
    assert gcloud.create_queued_resource(POD) == [
        *("gcloud", "compute", "tpus", "queued-resources", "create", "base"),
        *("--project=my-project", "--zone=us-central2-b", "--quiet", "--node-id=base", "--accelerator-type=v4-512"),
        *("--runtime-version=tpu-ubuntu2204-base", "--spot"),
    ]


def test_a_remote_command_reaches_the_worker_as_it_is():
    arguments = ["echo", "two words", "$HOME", "it's", 'a "quote"', "a;b", ""]
    (command,) = [arg for arg in gcloud.ssh(POD, arguments) if arg.startswith("--command=")]
    assert shlex.split(command.removeprefix("--command=")) == arguments


def test_a_bucket_renames_folders_in_one_step_and_is_private():
    command = gcloud.create_bucket(POD)
    assert {"--enable-hierarchical-namespace", "--uniform-bucket-level-access", "--public-access-prevention"} < {
        *command
    }
    assert "--location=us-central2" in command


@pytest.mark.parametrize("name", COMMANDS)
def test_no_command_asks_a_question_or_carries_a_secret(name: str):
    assert "--quiet" in COMMANDS[name]
    # Whoever may see the pod sees its metadata, and whoever is on this machine its arguments.
    assert not any(word in " ".join(COMMANDS[name]) for word in ("metadata", "token", "key-file", "account"))


@needs_gcloud
def test_gcloud_itself_takes_every_command(tmp_path: Path):
    assert lint([shlex.join(command) for command in COMMANDS.values()], tmp_path) == []


@needs_gcloud
def test_a_wrong_flag_would_be_found(tmp_path: Path):
    assert len(lint([shlex.join([*COMMANDS["create"], "--spott"])], tmp_path)) == 1
