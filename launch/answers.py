"""Reading what gcloud and the workers answer, as pure functions: JSON among warnings, errors, lines of status."""

import dataclasses
import json
import re
from typing import Any

from launch.states import Worker

# What a worker says that has no scripts yet.
NOT_SET_UP = "imagen_launch: not set up"
_MOST_DIGITS = 15  # of a number in a worker's line
_STATES = ("absent", "running", "exited")


def parse_object(text: str) -> dict[str, Any] | None:
    """Returns the JSON object in an answer; None where there is none that can be read.

    Some versions of gcloud print warnings or news of an update before or after it, on the same stream.
    """
    decoder = json.JSONDecoder()
    for start in re.finditer(r"^[ \t]*(?=\{)", text, re.MULTILINE):
        try:
            value, _ = decoder.raw_decode(text, start.end())
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            return value
    return None


def inside(value: Any, *keys: str) -> Any:
    """Returns `value[key][key]...`; None where something on the way is missing or no object."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def count_workers(node: dict[str, Any]) -> int:
    """Returns how many workers a described node has; 0 where it doesn't say."""
    endpoints, networks = node.get("networkEndpoints"), node.get("networkConfigs")
    # One entry for each worker and network.
    per_worker = max(1, len(networks)) if isinstance(networks, list) else 1
    return len(endpoints) // per_worker if isinstance(endpoints, list) else 0


def is_absent(error: str, resource: str) -> bool:
    """Whether what gcloud wrote to stderr says that exactly this resource doesn't exist.

    That the command, the project, the zone or the credentials weren't found says nothing of the resource.

    Args:
      error: all that gcloud wrote to stderr.
      resource: "gs://BUCKET", or the end of a resource's path: "locations/ZONE/queuedResources/NAME".
    """
    if resource.startswith("gs://"):
        return bool(re.search(rf"(^|\s){re.escape(resource)}/? not found: 404\b", error))
    return bool(re.search(rf"\bNOT_FOUND: Resource '([^'\s]*/)?{re.escape(resource)}' was not found", error))


def parse_status(text: str) -> list[Worker]:
    """Returns the workers' lines, each worker once, from among whatever else ssh prints."""
    workers: dict[str, Worker] = {}
    for line in text.splitlines():
        if line == NOT_SET_UP:
            workers[f"not set up, {len(workers)}"] = Worker("?", "absent", 0, 0, 0)
        elif line.startswith('{"worker"') and (worker := _parse_worker(line)):
            workers[worker.worker] = worker
    return list(workers.values())


def _parse_worker(line: str) -> Worker | None:
    """None for a line that isn't whole, as where two workers' lines are in one: it is asked for again later."""
    value = parse_object(line)
    names = {field.name for field in dataclasses.fields(Worker)}
    if value is None or set(value) != names or not line.rstrip().endswith("}") or line.count("{") > 1:
        return None
    numbers = [value[name] for name in ("exit_code", "age_s", "tries")]
    if not (isinstance(value["worker"], str) and value["state"] in _STATES):
        return None
    if not all(type(number) is int and abs(number) < 10**_MOST_DIGITS for number in numbers):
        return None
    return Worker(**value)
