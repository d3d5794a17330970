import configparser
import email
import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

import imagen_jax
from imagen_jax.__main__ import find_mains
from imagen_jax.__main__ import main as command

REPO = Path(__file__).parents[1]


def test_the_installed_version_is_the_package_s():
    try:
        installed = metadata.version("imagen_jax")
    except metadata.PackageNotFoundError:
        pytest.skip("runs from the source tree, not installed")
    assert installed == imagen_jax.__version__


def test_every_folder_of_code_is_a_package():
    for folder in {path.parent for path in (REPO / "imagen_jax").rglob("*.py")}:
        assert (folder / "__init__.py").exists(), folder


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    """The wheel, built from a copy of what it is made of: what a build leaves behind goes into the next one."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPO / name, folder)
    # Neither is part of it, and each would be if it were found.
    for name in ("imagen_jax", "configs", "launch"):
        shutil.copytree(REPO / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "tests").mkdir()
    (folder / "tests" / "__init__.py").touch()
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--wheel-dir", folder / "dist", folder], check=True, timeout=120)
    (path,) = (folder / "dist").glob("*.whl")
    assert path.name == f"imagen_jax-{imagen_jax.__version__}-py3-none-any.whl"
    return zipfile.ZipFile(path)


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    info = f"imagen_jax-{imagen_jax.__version__}.dist-info/"
    installed = {name for name in wheel.namelist() if not name.startswith(info)}
    files = {path.relative_to(REPO).as_posix() for path in (REPO / "imagen_jax").rglob("*") if path.is_file()}
    assert installed == {name for name in files if "__pycache__" not in name}
    assert {"imagen_jax/py.typed", "imagen_jax/evaluation/emoji_cnn_v1.safetensors"} <= installed
    assert any(name.endswith(".html") for name in installed)


def test_the_wheel_says_what_it_is(wheel):
    info = f"imagen_jax-{imagen_jax.__version__}.dist-info"
    about = email.message_from_bytes(wheel.read(f"{info}/METADATA"))
    assert (about["Name"], about["Version"]) == ("imagen_jax", imagen_jax.__version__)
    assert (about["License-Expression"], about["Requires-Python"]) == ("Apache-2.0", ">=3.11")
    assert about["Description-Content-Type"] == "text/markdown"
    assert str(about.get_payload()).startswith("# imagen_jax")
    assert "Programming Language :: Python :: 3.11" in about.get_all("Classifier", [])
    assert about["Keywords"] and about["Summary"] and about["Maintainer"]
    assert f"{info}/licenses/LICENSE" in wheel.namelist()
    scripts = configparser.ConfigParser()
    scripts.read_string(wheel.read(f"{info}/entry_points.txt").decode())
    assert dict(scripts["console_scripts"]) == {"imagen_jax": "imagen_jax.__main__:main"}


def test_every_requirement_has_a_tested_lower_and_an_upper_bound(wheel):
    info = f"imagen_jax-{imagen_jax.__version__}.dist-info"
    requirements = email.message_from_bytes(wheel.read(f"{info}/METADATA")).get_all("Requires-Dist", [])
    assert len(requirements) > 15
    for requirement in requirements:
        assert re.fullmatch(r"[\w\[\]-]+(<[\d.]+,>=[\d.]+|==[\d.]+)(; extra == .+)?", requirement), requirement


MAINS = {"compare", "evaluate", "export", "plan", "precompute_text", "sample", "train", "untrained_encoder"}


def test_the_command_lists_every_main_with_a_line_about_each(capsys):
    assert set(find_mains()) == MAINS
    assert all(line.endswith(".") for line in find_mains().values())
    assert command(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"\n  {name} " in out for name in MAINS)
    assert command([]) == 2  # nothing was asked for


def test_the_command_says_its_version_and_what_it_does_not_know(capsys):
    assert command(["--version"]) == 0
    assert capsys.readouterr().out == f"imagen_jax {imagen_jax.__version__}\n"
    assert command(["trian"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith('error: unknown command "trian"') and line.endswith('Did you mean "train"?')


def test_the_command_is_python_m(tmp_path):
    # A config that imports its neighbour, in a folder that isn't the repository's: as `python -m` runs it.
    (tmp_path / "mine.py").write_text("from neighbour import get_config\n")
    (tmp_path / "neighbour.py").write_text((REPO / "configs" / "own_data.py").read_text("utf-8"))
    script = "import sys; from imagen_jax.__main__ import main; sys.exit(main())"
    arguments = ["train", "--config=mine.py:laptop_base", "--dry_run"]
    outputs = [
        subprocess.run(
            [sys.executable, *start, *arguments],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(REPO), "PYTHONSAFEPATH": "" if "-m" in start else "1"},
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        ).stdout
        for start in (["-m", "imagen_jax"], ["-c", script])
    ]
    assert outputs[0] == outputs[1] and '"image_size": 16' in outputs[0]
