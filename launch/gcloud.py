"""Argument lists for gcloud, as pure functions: nothing here runs anything, and no shell is between list and gcloud."""

import shlex
from collections.abc import Sequence

from launch.pod import Pod

# Never a question that nobody is there to answer.
_QUIET = "--quiet"


def create_queued_resource(pod: Pod) -> list[str]:
    """Asks for the pod. Returns as soon as the request is in the queue."""
    capacity = ["--spot"] if pod.spot else ["--reserved"] if pod.reserved else []
    return [
        *_queued_resource("create", pod),
        f"--node-id={pod.name}",
        f"--accelerator-type={pod.accelerator}",
        f"--runtime-version={pod.runtime}",
        *capacity,
    ]


def describe_queued_resource(pod: Pod) -> list[str]:
    """JSON; the state is at state.state."""
    return [*_queued_resource("describe", pod), "--format=json"]


def delete_queued_resource(pod: Pod) -> list[str]:
    """Deletes the request and, by --force, its node. Returns when both are gone."""
    return [*_queued_resource("delete", pod), "--force"]


def describe_node(pod: Pod) -> list[str]:
    """JSON; the state is at state, and networkEndpoints has one entry a worker."""
    return [*_tpu_vm("describe", pod, pod.name), "--format=json"]


def ssh(pod: Pod, command: Sequence[str], *, worker: str = "all") -> list[str]:
    """Runs a program with its arguments on the workers. `worker`: all, 0, 1, ..."""
    return [*_tpu_vm("ssh", pod, pod.name), f"--worker={worker}", f"--command={shlex.join(command)}"]


def scp(pod: Pod, folder: str, *, worker: str = "all") -> list[str]:
    """Copies a local folder into the home of each worker."""
    return [*_tpu_vm("scp", pod, folder, f"{pod.name}:"), f"--worker={worker}", "--recurse"]


def create_bucket(pod: Pod) -> list[str]:
    """A bucket beside the TPUs on which a folder is renamed in one step, as checkpoints need it.

    That takes the hierarchical namespace, which takes uniform access. Without soft deletion, which would keep, and
    bill, every old checkpoint for another week.
    """
    return [
        *_bucket("create", pod),
        f"--location={pod.region}",
        "--uniform-bucket-level-access",
        "--enable-hierarchical-namespace",
        "--public-access-prevention",
        "--soft-delete-duration=0",
    ]


def describe_bucket(pod: Pod) -> list[str]:
    """JSON, with the names that the API has; hierarchicalNamespace.enabled is what counts."""
    return [*_bucket("describe", pod), "--raw", "--format=json"]


def _queued_resource(action: str, pod: Pod) -> list[str]:
    return ["gcloud", "compute", "tpus", "queued-resources", action, pod.name, *_place(pod)]


def _tpu_vm(action: str, pod: Pod, *what: str) -> list[str]:
    return ["gcloud", "compute", "tpus", "tpu-vm", action, *what, *_place(pod)]


def _bucket(action: str, pod: Pod) -> list[str]:
    return ["gcloud", "storage", "buckets", action, f"gs://{pod.bucket}", f"--project={pod.project}", _QUIET]


def _place(pod: Pod) -> list[str]:
    return [f"--project={pod.project}", f"--zone={pod.zone}", _QUIET]
