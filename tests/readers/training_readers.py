"""What a run leaves in its workdir, and reads again when it goes on."""

from pathlib import Path

from imagen_jax import workdir as workdir_lib
from imagen_jax.sampling.folder import STAGE_FILE
from imagen_jax.training.metrics import MetricWriter, read_metrics
from tests.readers.reader import Reader
from tests.test_workdir import STAGE
from tests.tiny_config import get_config


def _write_metrics(folder: Path) -> None:
    writer = MetricWriter(folder, first_step=0)
    for step in range(1, 6):
        writer.scalars(step, {"train/loss": 1 / step, "perf/images_per_s": 100.0})
    writer.close()


def _write_run(folder: Path) -> None:
    workdir_lib.describe(folder, get_config(), STAGE)


def _resume(folder: Path) -> None:
    workdir_lib.check_resumes(folder, get_config(), STAGE)


READERS = {
    "metrics.jsonl": Reader(_write_metrics, "metrics.jsonl", read_metrics),
    "config.json of a run": Reader(_write_run, "config.json", _resume),
    "stage.json of a run": Reader(_write_run, STAGE_FILE, _resume),
}
