import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import imagen_jax
from imagen_jax import workdir as workdir_lib
from imagen_jax.errors import InputError
from imagen_jax.sampling.cascade import StageConfig
from imagen_jax.sampling.folder import STAGE_FILE
from tests.tiny_config import get_config

STAGE = StageConfig(
    name="stage_8",
    model={"name": "unet"},
    image_size=8,
    low_res_size=None,
    schedule="cosine",
    prediction="v",
    max_tokens=8,
    text_width=16,
    encoder_name="an encoder",
    encoder_fingerprint="e" * 64,
    text_encoder="",
    source="folder/pictures",
    source_fingerprint="a" * 64,
    sampling={},
)


def test_another_data_set_of_the_same_name_is_said(tmp_path, caplog):
    config = get_config()
    workdir_lib.describe(tmp_path, config, STAGE)
    workdir_lib.check_resumes(tmp_path, config, STAGE)
    assert not caplog.text
    workdir_lib.check_resumes(tmp_path, config, dataclasses.replace(STAGE, source_fingerprint="b" * 64))
    assert "the data set folder/pictures has changed since this run was started (it was aaaaaaaaaaaa" in caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is damaged"),
        ("{}", r"is damaged \(no valid encoder_name"),
        (
            '{"encoder_name": 1, "encoder_fingerprint": "", "text_width": 1}',
            r"is damaged \(no valid encoder_name\); put back a copy",
        ),
    ],
)
def test_a_damaged_record_of_the_run_is_one_error(tmp_path, text, message):
    config = get_config()
    workdir_lib.describe(tmp_path, config, STAGE)
    (tmp_path / STAGE_FILE).write_text(text)
    with pytest.raises(InputError, match=message):
        workdir_lib.check_resumes(tmp_path, config, STAGE)


def test_a_workdir_of_an_earlier_version_goes_on(tmp_path, caplog):
    config = get_config()
    workdir_lib.describe(tmp_path, config, STAGE)
    record = json.loads((tmp_path / STAGE_FILE).read_text())
    del record["source_fingerprint"]
    (tmp_path / STAGE_FILE).write_text(json.dumps(record))
    workdir_lib.check_resumes(tmp_path, config, STAGE)
    assert not caplog.text


def test_the_revision_is_of_this_code_and_not_of_the_repository_that_it_is_installed_in(tmp_path):
    site = tmp_path / "venv" / "site-packages"
    site.mkdir(parents=True)
    shutil.copytree(Path(imagen_jax.__file__).parent, site / "imagen_jax", ignore=shutil.ignore_patterns("__pycache__"))
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "theirs"], check=True)
    program = "from imagen_jax.workdir import revision; print(revision())"
    done = subprocess.run([sys.executable, "-c", program], cwd=site, capture_output=True, text=True, check=True)
    assert done.stdout == f"imagen_jax {imagen_jax.__version__}\n"
