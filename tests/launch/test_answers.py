import json

import pytest

from launch.answers import count_workers, inside, is_absent, parse_object, parse_status
from tests.launch.world import POD

QUEUED = f"locations/{POD.zone}/queuedResources/{POD.name}"
NOT_FOUND = "ERROR: (gcloud.compute.tpus.queued-resources.describe) NOT_FOUND: Resource '{}' was not found"
WORKER = '{"worker": "w-0", "state": "exited", "exit_code": 2, "age_s": 5, "tries": 1}'


@pytest.mark.parametrize(
    ("before", "after"),
    [("", ""), ("WARNING: deprecated\n", ""), ("WARNING: {x}\n{ not json\n\n", "\n\nUpdates are available:\n  {y}\n")],
)
def test_an_object_is_found_among_warnings(before: str, after: str):
    value = {"state": {"state": "ACTIVE"}, "nodes": [{"a": 1}]}
    assert parse_object(before + json.dumps(value, indent=2) + after) == value


@pytest.mark.parametrize("text", ["", "null", "[1]", '"x"', "{", "no {} here", "[" * 10**5, '{"a":' * 10**5])
def test_an_answer_without_an_object_has_none(text: str):
    assert parse_object(text) is None


def test_what_an_answer_lacks_is_none():
    assert inside({"a": {"b": 1}}, "a", "b") == 1
    assert inside({"a": 3}, "a", "b") is inside([], "a") is inside(None, "a") is None
    assert count_workers({"networkEndpoints": [1, 2, 3, 4], "networkConfigs": [1, 2]}) == 2
    assert count_workers({}) == count_workers({"networkEndpoints": "x"}) == 0


def test_only_the_api_s_word_on_exactly_this_resource_means_that_there_is_none():
    assert is_absent(f"WARNING: x\n{NOT_FOUND.format('projects/p/' + QUEUED)}\n", QUEUED)
    assert is_absent("ERROR: (gcloud.storage.buckets.describe) gs://my-bucket not found: 404.", "gs://my-bucket")


@pytest.mark.parametrize(
    "error",
    [
        "bash: gcloud: command not found",
        "ERROR: (gcloud) The project property is set to a project that was not found",
        "ERROR: (gcloud.x) NOT_FOUND: Requested entity was not found.",
        NOT_FOUND.format("projects/p"),
        NOT_FOUND.format(f"projects/p/locations/{POD.zone}"),
        NOT_FOUND.format(f"projects/p/locations/{POD.zone}/queuedResources/{POD.name}2"),
        NOT_FOUND.format(f"projects/p/locations/europe-west4-a/queuedResources/{POD.name}"),
        NOT_FOUND.format(f"projects/p/locations/{POD.zone}/nodes/{POD.name}"),
        "ERROR: Could not find the default credentials: file not found",
        "ERROR: gs://another-bucket not found: 404.",
        "",
    ],
)
def test_anything_else_that_was_not_found_says_nothing_of_the_pod(error: str):
    assert not is_absent(error, QUEUED) and not is_absent(error, "gs://my-bucket")


@pytest.mark.parametrize(
    "line",
    [
        WORKER[:-5],
        WORKER + WORKER,
        WORKER.replace("2", '"2"'),
        WORKER.replace("2", "2.5"),
        WORKER.replace("2", "9" * 400),
        WORKER.replace("exited", "gone"),
        WORKER.replace("tries", "trials"),
        '{"worker": ' * 10**4,
    ],
)
def test_a_worker_s_line_that_is_not_whole_is_no_answer(line: str):
    assert parse_status(line) == []
    assert len(parse_status(f"noise\n{line}\n{WORKER}\n{WORKER}\n")) == 1
