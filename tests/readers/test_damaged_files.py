"""No damage to a file ends in a traceback, takes long, or takes much memory: benchmarks/damaged_files.py does more."""

import importlib
import random
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imagen_jax.errors import InputError
from tests.readers.reader import Reader, damage

# Times on a shared machine say nothing.
QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large]
# Each area of the package has a module here with READERS, by name.
AREAS = sorted(path.stem for path in Path(__file__).parent.glob("*_readers.py"))
READERS: dict[str, Reader] = {
    f"{area.removesuffix('_readers')}: {name}": reader
    for area in AREAS
    for name, reader in importlib.import_module(f"tests.readers.{area}").READERS.items()
}


@pytest.mark.parametrize("name", READERS)
def test_a_valid_file_is_read(name: str, tmp_path: Path):
    READERS[name].prepare(tmp_path)
    READERS[name].read(tmp_path)


@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_is_read_or_is_one_clear_error(name: str, tmp_path_factory: pytest.TempPathFactory):
    reader, folder = READERS[name], tmp_path_factory.mktemp("damaged")
    reader.prepare(folder)
    path = folder / reader.file
    valid = path.read_bytes()

    @settings(max_examples=15, deadline=None, database=None, derandomize=True, suppress_health_check=QUIET)
    @given(st.integers(0, 2**32))
    def try_one(seed: int) -> None:
        path.write_bytes(damage(valid, random.Random(seed)))
        started, message = time.monotonic(), "read"
        try:
            reader.read(folder)
        except InputError as error:
            message = str(error)
        assert message.strip() and len(message) < 3000
        assert time.monotonic() - started < 10

    try_one()
