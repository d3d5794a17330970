import subprocess
import tarfile
from pathlib import Path

import pytest

from imagen_jax.errors import InputError
from launch import package
from launch.package import pack
from tests.launch.world import needs_git


def git(repository: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b")
    done = subprocess.run(["git", *identity, *arguments], cwd=repository, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    (folder / "configs").mkdir(parents=True)
    (folder / ".gitignore").write_text("/data/\n")
    (folder / "configs" / "old.py").write_text("1")
    (folder / "gone.py").write_text("1")
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "first")
    (folder / "data").mkdir()
    (folder / "data" / "big").write_text("not code")
    return folder


def unpack(payload: Path) -> dict[str, str]:
    with tarfile.open(payload / "code.tar.gz") as tar:
        members = {info.name: tar.extractfile(info) for info in tar.getmembers() if info.isfile()}
        return {name: file.read().decode(errors="replace") for name, file in members.items() if file}


def test_local_changes_are_sent_and_ignored_files_are_not(repository: Path, tmp_path: Path):
    (repository / "configs" / "old.py").write_text("2")
    (repository / "configs" / "new.py").write_text("3")
    (repository / "gone.py").unlink()
    files = unpack(pack(tmp_path, repository=repository))
    revision = files.pop("revision.txt")
    assert files == {".gitignore": "/data/\n", "configs/old.py": "2", "configs/new.py": "3"}
    assert revision == f"{git(repository, 'rev-parse', '--short', 'HEAD')}-dirty\n"


def test_the_revision_says_whether_anything_was_changed(repository: Path, tmp_path: Path):
    revision = git(repository, "rev-parse", "--short", "HEAD")
    assert unpack(pack(tmp_path / "clean", repository=repository))["revision.txt"] == f"{revision}\n"
    (repository / "configs" / "new.py").write_text("3")
    assert unpack(pack(tmp_path / "new", repository=repository))["revision.txt"] == f"{revision}-dirty\n"


def test_a_revision_is_sent_as_it_was(repository: Path, tmp_path: Path):
    (repository / "configs" / "old.py").write_text("2")
    files = unpack(pack(tmp_path, repository=repository, revision="HEAD"))
    assert files["configs/old.py"] == files["gone.py"] == "1"
    assert files["revision.txt"] == f"{git(repository, 'rev-parse', '--short', 'HEAD')}\n"


@pytest.mark.parametrize("revision", ["", "HEAD"])
def test_the_same_code_gives_the_same_bytes(repository: Path, tmp_path: Path, revision: str):
    first = pack(tmp_path / "1", repository=repository, revision=revision) / "code.tar.gz"
    (repository / "configs" / "old.py").touch()
    second = pack(tmp_path / "2", repository=repository, revision=revision) / "code.tar.gz"
    assert first.read_bytes() == second.read_bytes()


def test_the_scripts_go_with_it(repository: Path, tmp_path: Path):
    payload = pack(tmp_path, repository=repository)
    assert {path.stem for path in payload.glob("*.sh")} == {"setup", "start", "status", "stop", "supervise"}


def test_what_cannot_be_sent_is_one_line(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(InputError, match=r"git archive in .*nowhere"):
        pack(tmp_path / "1", repository=repository, revision="nowhere")
    with pytest.raises(InputError, match=r"git ls-files in .*not a git repository"):
        pack(tmp_path / "2", repository=tmp_path)
    monkeypatch.setattr(package, "_MAX_CODE_MB", 0)
    with pytest.raises(InputError, match=r"move data out, or name it in \.gitignore"):
        pack(tmp_path / "3", repository=repository)


@needs_git
def test_this_repository_is_small_enough(tmp_path: Path):
    files = unpack(pack(tmp_path))
    assert {"setup.py", "imagen_jax/train.py", "configs/imagen_base64.py", "launch/scripts/setup.sh"} <= {*files}
