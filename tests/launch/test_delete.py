"""What is said of costs after deleting."""

from pathlib import Path

import pytest

from launch import gcloud, steps
from launch.runner import CommandError, Runner
from tests.launch.world import POD, World


def test_gone_is_what_gcloud_says_when_asked_again(tmp_path: Path):
    world = World(tmp_path)
    steps.delete(world.runner(), POD)
    steps.check_gone(world.runner(), POD)
    assert world.count("describe base") == 2


def test_what_stays_is_an_error(tmp_path: Path):
    world = World(tmp_path, lasting=True)
    steps.create(world.runner(), POD)
    steps.delete(world.runner(), POD)
    with pytest.raises(CommandError, match=r"queuedResources/base is still there \(ACTIVE\), and may cost"):
        steps.check_gone(world.runner(), POD)


@pytest.mark.parametrize("error", ["gcloud: command not found", "ERROR: project not found", "ERROR: 503"])
def test_an_error_that_says_nothing_of_the_pod_is_no_word_of_its_absence(error: str):
    class Failing(Runner):
        def run(self, argv, *, timeout_s=0.0):
            raise CommandError(argv, error)

    for step in (steps.delete, steps.check_gone, steps.observe):
        with pytest.raises(CommandError, match=error):
            step(Failing(dry_run=False), POD)
    assert gcloud.describe_node(POD)
