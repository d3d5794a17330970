import ast
import re
from importlib import metadata
from pathlib import Path

import pytest

import imagen_jax

REPO = Path(__file__).parents[1]


def test_the_installed_version_is_the_package_s():
    try:
        installed = metadata.version("imagen_jax")
    except metadata.PackageNotFoundError:
        pytest.skip("runs from the source tree, not installed")
    assert installed == imagen_jax.__version__


def test_every_requirement_has_a_tested_lower_and_an_upper_bound():
    requirements = re.findall(r'^ +"([^"]+)",$', (REPO / "setup.py").read_text("utf-8"), re.M)
    assert len(requirements) > 15
    for requirement in requirements:
        assert re.fullmatch(r"[\w\[\]-]+(>=[\d.]+,<[\d.]+|==[\d.]+)", requirement), requirement


def test_every_folder_of_code_is_a_package():
    for folder in {path.parent for path in (REPO / "imagen_jax").rglob("*.py")}:
        assert (folder / "__init__.py").exists(), folder


def test_every_file_that_is_no_code_is_installed():
    found = re.search(r"^ +package_data=(.+),$", (REPO / "setup.py").read_text("utf-8"), re.M)
    assert found
    patterns = ast.literal_eval(found.group(1))
    installed = {
        path for name, some in patterns.items() for one in some for path in REPO.glob(f"{name.replace('.', '/')}/{one}")
    }
    files = {path for path in (REPO / "imagen_jax").rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert files == installed and files
