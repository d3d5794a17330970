"""What a worker is sent: the code as it is here, as one archive, and the scripts that set it up and run it."""

import gzip
import io
import shutil
import subprocess
import tarfile
from pathlib import Path

from imagen_jax.errors import InputError

REPOSITORY = Path(__file__).parents[1]
# The folder's name, here and in the home of each worker.
PAYLOAD = "imagen_launch"
_SCRIPTS = Path(__file__).parent / "scripts"
# This repository has 2 MB; more than this is a forgotten data set, sent to every worker.
_MAX_CODE_MB = 100


def pack(out: Path, *, revision: str = "", repository: Path = REPOSITORY) -> Path:
    """Writes the folder `out`/imagen_launch and returns it: code.tar.gz, with the revision in a file, and scripts.

    An archive rather than a clone on the workers: they need no access to the repository. The same code gives the same
    bytes, by which a worker knows it.

    Args:
      revision: of git; "" is the working tree, with its local changes and new files, without what git ignores.

    Raises:
      InputError: no git checkout, no such revision, or too much for every worker.
    """
    payload = out / PAYLOAD
    shutil.copytree(_SCRIPTS, payload)
    archive = io.BytesIO()
    if revision:
        archive.write(_git(repository, "archive", "--format=tar", revision))
        name = _git(repository, "describe", "--always", revision).decode().strip()
    else:
        _add_working_tree(archive, repository)
        name = _git(repository, "describe", "--always").decode().strip()
        # As `git describe --dirty`, which passes over new files.
        name += "-dirty" if _git(repository, "status", "--porcelain") else ""
    archive.seek(0)
    with tarfile.open(fileobj=archive, mode="a") as tar:
        note = tarfile.TarInfo("revision.txt")
        note.size = len(name) + 1
        tar.addfile(note, io.BytesIO(f"{name}\n".encode()))
    (payload / "code.tar.gz").write_bytes(gzip.compress(archive.getvalue(), mtime=0))
    return payload


def _add_working_tree(archive: io.BytesIO, repository: Path) -> None:
    listed = _git(repository, "ls-files", "--cached", "--others", "--exclude-standard", "-z").decode()
    # A file that was deleted, but not yet in git, is listed still.
    names = [name for name in sorted(listed.split("\0")) if name and (repository / name).exists()]
    size_mb = sum((repository / name).stat().st_size for name in names) / 1e6
    if size_mb > _MAX_CODE_MB:
        raise InputError(f"{size_mb:.0f} MB of code in {repository}: move data out, or name it in .gitignore")
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name in names:
            tar.add(repository / name, arcname=name, recursive=False, filter=_anonymous)


def _anonymous(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.mtime, info.uid, info.gid, info.uname, info.gname = 0, 0, 0, "", ""
    return info


def _git(repository: Path, *arguments: str) -> bytes:
    try:
        return subprocess.run(["git", *arguments], cwd=repository, capture_output=True, check=True).stdout
    except FileNotFoundError:
        raise InputError("git is not installed") from None
    except subprocess.CalledProcessError as error:
        reason = error.stderr.decode(errors="replace").strip().splitlines()
        raise InputError(f"git {arguments[0]} in {repository}: {reason[-1] if reason else 'failed'}") from None
