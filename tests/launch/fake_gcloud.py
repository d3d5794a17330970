"""A gcloud that plays a story, for tests: what it is told happens to the pods, it says when asked.

A folder holds it: story.json (below), log.jsonl (the arguments of every call) and state.json. A story has

- lives: for each pod that is created, in order, what describing shows, look by look: [queued state, VM state]; the last
  look stays, and so does the last life.
- runs: for each start on a worker where nothing runs, what status shows, look by look: "running" or an exit code.
- workers: how many.
- bucket: "absent", "flat" or "hierarchical".
- lasting: true: what is deleted stays for all that.
- failing: [words of a command, how often it fails before it works].
"""

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

# What some versions print around the JSON, on the same stream.
NEWS = "WARNING: {x} is deprecated\n\nUpdates are available: run\n  $ gcloud components update\n"
NEW = {"life": -1, "alive": False, "look": 0, "run": -1, "started": False, "shown": 0, "bucket": None, "failed": 0}


class Answer(NamedTuple):
    """What a call returns and prints."""

    code: int
    out: str = ""
    err: str = ""


def _not_found(argv: list[str], kind: str) -> Answer:
    """As gcloud says that a resource doesn't exist, after a warning."""
    project, zone = (
        next((arg.partition("=")[2] for arg in argv if arg.startswith(f"--{flag}=")), "?")
        for flag in ("project", "zone")
    )
    path = f"projects/{project}/locations/{zone}/{kind}/{argv[4]}"
    words = ".".join(argv[:4])
    return Answer(
        1, err=f"WARNING: a word before\nERROR: (gcloud.{words}) NOT_FOUND: Resource '{path}' was not found\n"
    )


def answer(argv: list[str], folder: Path) -> Answer:
    """Logs a call, `argv` without the word gcloud, and answers it."""
    with (folder / "log.jsonl").open("a") as log:
        log.write(json.dumps(argv) + "\n")
    story = json.loads((folder / "story.json").read_text())
    file = folder / "state.json"
    state = json.loads(file.read_text()) if file.exists() else NEW | {"bucket": story["bucket"]}
    reply = _play(argv, story, state)
    file.write_text(json.dumps(state))
    return reply


def _play(argv: list[str], story: dict[str, Any], state: dict[str, Any]) -> Answer:
    call = " ".join(argv)
    failing, times = story.get("failing", ["", 0])
    if failing and failing in call and state["failed"] < times:
        state["failed"] += 1
        return Answer(1, err=f"WARNING: a word before\nERROR: (gcloud) {failing} does not work today\n")
    if "storage buckets" in call:
        return _bucket(call, state)
    if "queued-resources" in call:
        return _queued_resource(argv, story, state)
    if not state["alive"]:
        return _not_found(argv, "nodes")
    if "tpu-vm describe" in call:
        vm = _look(story["lives"], state["life"], max(state["look"] - 1, 0))[1]
        endpoints = [{"ipAddress": f"10.0.0.{i}"} for i in range(story["workers"])]
        return Answer(0, json.dumps({"state": vm, "networkEndpoints": endpoints})) if vm else _not_found(argv, "nodes")
    if "tpu-vm ssh" in call:
        return _ssh(call, story, state)
    return Answer(0)


def _bucket(call: str, state: dict[str, Any]) -> Answer:
    if "create" in call:
        state["bucket"] = "hierarchical"
        return Answer(0)
    if state["bucket"] == "absent":
        return Answer(1, err=f"ERROR: (gcloud.storage.buckets.describe) {call.split()[3]} not found: 404.\n")
    return Answer(0, json.dumps({"hierarchicalNamespace": {"enabled": state["bucket"] == "hierarchical"}}))


def _queued_resource(argv: list[str], story: dict[str, Any], state: dict[str, Any]) -> Answer:
    call = " ".join(argv)
    if "create" in call:
        if state["alive"]:
            return Answer(1, err="ERROR: ALREADY_EXISTS")
        state.update(alive=True, life=state["life"] + 1, look=0, started=False)
        return Answer(0)
    if not state["alive"]:
        return _not_found(argv, "queuedResources")
    if "delete" in call:
        state["alive"] = bool(story.get("lasting"))
        return Answer(0)
    state["look"] += 1
    now = _look(story["lives"], state["life"], state["look"] - 1)[0]
    return Answer(0, f"{NEWS}{json.dumps({'state': {'state': now}}, indent=2)}\n{NEWS}")


def _ssh(call: str, story: dict[str, Any], state: dict[str, Any]) -> Answer:
    now = _look(story["runs"], state["run"], max(state["shown"] - 1, 0)) if state["started"] else "absent"
    if "start.sh" in call:
        if now == "running":
            return Answer(0, "already running\n")
        state.update(run=state["run"] + 1, started=True, shown=0)
        return Answer(0, "started\n")
    if "status.sh" not in call:
        return Answer(0)
    if state["started"]:
        now = _look(story["runs"], state["run"], state["shown"])
        state["shown"] += 1
    line = {"state": now if isinstance(now, str) else "exited", "exit_code": 0 if isinstance(now, str) else now}
    lines = [{"worker": f"w-{i}", **line, "age_s": 5, "tries": 0} for i in range(story["workers"])]
    return Answer(0, "".join(json.dumps(line) + "\n" for line in lines))


def _look(script: list[list[Any]], which: int, look: int) -> Any:
    looks = script[min(which, len(script) - 1)]
    return looks[min(look, len(looks) - 1)]


if __name__ == "__main__":
    reply = answer(sys.argv[1:], Path(__file__).parent)
    sys.stdout.write(reply.out)
    sys.stderr.write(reply.err)
    sys.exit(reply.code)
