import errno
import logging
import os
import subprocess
import sys
import textwrap

import pytest

from imagen_jax import storage
from imagen_jax.errors import EXIT_BAD_INPUT, EXIT_STORAGE, StorageError


def raised_from(cause: BaseException) -> Exception:
    try:
        try:
            raise cause
        except type(cause):
            raise ValueError("a library's words")  # noqa: B904 (the context is what is tested)
    except ValueError as error:
        return error


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/a/b"), 'No space left on device: "/a/b"'),
        (OSError(errno.EROFS, "Read-only file system"), "Read-only file system"),
        (raised_from(OSError(errno.EIO, "Input/output error")), "Input/output error"),
        (RuntimeError("UNKNOWN: Failed to write: No space left on device [/a/b]"), "No space left on device"),
        (OSError("Not enough disk space. Needed: Unknown size"), "No space left on device"),
        (ExceptionGroup("two", [KeyError("a"), OSError(errno.EDQUOT, "Disk quota exceeded")]), "Disk quota exceeded"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "/a/b"), None),
        (PermissionError(errno.EACCES, "Permission denied", "/a/b"), None),
        (ValueError("space"), None),
    ],
)
def test_a_disks_failure_is_told_from_a_mistake(error, reason):
    assert storage.describe_failure(error) == reason


def test_what_was_being_written_is_named_and_other_errors_pass():
    message = 'can\'t write "a file": No space left on device: "/x"; make space'
    with pytest.raises(StorageError, match=message), storage.writing("a file"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/x")
    with pytest.raises(KeyError), storage.writing("a file"):
        raise KeyError("a bug")


@pytest.mark.parametrize(
    ("body", "code", "line"),
    [
        ("print('x' * 100_000, file=open('/dev/full', 'w'))", EXIT_STORAGE, "error: No space left on device; make"),
        ("open('/no/such/file')", EXIT_BAD_INPUT, "error: No such file or directory: /no/such/file"),
        # As TensorFlow's and orbax's threads do.
        (
            "thread = threading.Thread(target=full); thread.start(); thread.join()",
            EXIT_STORAGE,
            "error: No space left on device; make",
        ),
        ("logging.getLogger('asyncio').error('never retrieved', exc_info=caught())", EXIT_STORAGE, "error: No space"),
        # As tensorstore does: PyErr_Print in a thread of its own, which this calls.
        (
            "printed(b'raise RuntimeError(\\'Event loop is closed\\')'); full()",
            EXIT_STORAGE,
            "error: No space left on device; make",
        ),
    ],
)
def test_a_failing_disk_is_one_line_and_its_own_exit_code(tmp_path, body, code, line):
    main = tmp_path / "main.py"
    main.write_text(
        textwrap.dedent(f"""
            import ctypes, logging, threading
            from imagen_jax import cli

            def printed(statement):
                thread = threading.Thread(target=ctypes.pythonapi.PyRun_SimpleString, args=(statement,))
                thread.start()
                thread.join()

            def full():
                with open("/dev/full", "w") as file:
                    file.write("x" * 100_000)

            def caught():
                try:
                    full()
                except OSError as error:
                    return error

            def main():
                {body}

            cli.run(main)
            """)
    )
    done = subprocess.run([sys.executable, main], capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith(line) and done.stderr.count("\n") == 1, done.stderr


def test_other_errors_in_threads_of_libraries_are_printed_as_before():
    code = (
        "import ctypes, threading; from imagen_jax import storage; storage.quiet_libraries();"
        "run = threading.Thread(target=ctypes.pythonapi.PyRun_SimpleString, args=(b'1 / 0',)); run.start(); run.join()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=100)
    assert "ZeroDivisionError" in done.stderr


def test_what_a_thread_of_orbax_meets_is_one_line_without_its_traceback():
    error = RuntimeError("UNAVAILABLE: the coordination service is gone\nand more")
    record = logging.LogRecord(
        "absl", logging.ERROR, "/x/orbax/y.py", 1, "Failed to run %d\noperations", (4,), (RuntimeError, error, None)
    )
    assert storage._is_no_storage_failure(record)
    line = logging.Formatter().format(record)
    assert line == "Failed to run 4 operations: UNAVAILABLE: the coordination service is gone and more"


def test_other_errors_of_libraries_are_logged_as_before(caplog):
    storage_filter = storage._is_no_storage_failure
    record = logging.LogRecord("asyncio", logging.ERROR, "p", 1, "boom", None, (ValueError, ValueError("a"), None))
    assert storage_filter(record)


def test_what_orbax_raises_later_is_not_said_by_its_thread_too(monkeypatch):
    monkeypatch.setattr(storage, "_background", [])
    path = "/site-packages/orbax/checkpoint/_src/checkpointers/async_checkpointer.py"

    def is_logged(message: str, error: Exception) -> bool:
        info = (type(error), error, None)
        return storage._is_no_storage_failure(logging.LogRecord("absl", logging.ERROR, path, 1, message, (), info))

    assert not is_logged("Failed to run 4 Handler Commit operations in background save thread", ValueError("barrier"))
    assert is_logged("Something else", ValueError("odd"))
    assert storage._background == []
    assert not is_logged("Failed in background save thread", OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    assert storage._background == ["No space left on device"]


def test_a_read_of_orbax_that_nobody_waits_for_is_not_said():
    code = """
        import gc, types
        from imagen_jax import storage

        SOURCE = '''
        async def read():
            try:
                await sleep()
            finally:
                raise ValueError("damaged")
        '''
        storage.quiet_libraries()
        for path in ("/site-packages/orbax/serialization.py", "/site-packages/other.py"):
            names = {"sleep": types.coroutine(lambda: (yield))}
            exec(compile(SOURCE, path, "exec"), names)
            read = names["read"]()
            read.send(None)
            del read
            gc.collect()
        """
    code = textwrap.dedent(code)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=100)
    assert done.stderr.count("ValueError: damaged") == 1 and "other.py" in done.stderr
