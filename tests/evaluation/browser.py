"""Drives a headless Chromium as a user would, by mouse and keyboard: its DevTools protocol over a pair of pipes."""

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# One in a snap finds no files in /tmp.
_FOUND = map(shutil.which, ("chromium", "google-chrome", "google-chrome-stable"))
CHROMIUM = next((path for path in _FOUND if path and not path.startswith("/snap/")), None)
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium (Debian: apt install chromium)")

_TIMEOUT_S = 20.0
# The browser reads commands from its file descriptor 3 and answers on 4.
_WITH_PIPES = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execv(sys.argv[3], sys.argv[3:])"
)
_VIRTUAL_KEYS = {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Escape": 27}


class Browser:
    """One tab."""

    def __init__(self, commands: int, answers: int):
        self._commands = commands
        self._answers = answers
        self._buffer = b""
        self._count = 0
        self._session: str | None = None
        # What the page logs as an error, or throws.
        self.errors: list[str] = []
        # What to answer when the page asks by a dialog.
        self.accept = False
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The result of a command of the protocol; events before it are only searched for errors."""
        number = self._send(method, parameters)
        while (message := self._read()).get("id") != number:
            if message.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded"):
                self.errors.append(json.dumps(message["params"]))
            if message.get("method") == "Page.javascriptDialogOpening":  # until then no command is answered
                self._send("Page.handleJavaScriptDialog", {"accept": self.accept})
        assert "error" not in message, (method, message)
        return message["result"]

    def _send(self, method: str, parameters: dict[str, Any]) -> int:
        self._count += 1
        command = {"id": self._count, "method": method, "params": parameters}
        session = {"sessionId": self._session} if self._session else {}
        os.write(self._commands, json.dumps(command | session).encode() + b"\0")
        return self._count

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            assert select.select([self._answers], [], [], _TIMEOUT_S)[0], "the browser doesn't answer"
            chunk = os.read(self._answers, 1 << 16)
            assert chunk, "the browser has ended"
            self._buffer += chunk
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def run(self, expression: str) -> Any:
        """The value of a JavaScript expression, to look at the page with."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait(self, condition: Callable[[], Any]) -> None:
        end = time.monotonic() + _TIMEOUT_S
        while not condition():
            assert time.monotonic() < end, "waited in vain"
            time.sleep(0.01)

    def open(self, path: Path) -> None:
        """A local file, once all of it is loaded."""
        url = path.resolve().as_uri()
        self.call("Page.navigate", url=url)
        self.wait(lambda: self.run(f"location.href.startsWith({json.dumps(url)}) && document.readyState") == "complete")

    def reload(self) -> None:
        self.run("window.before = true")
        self.call("Page.reload")
        self.wait(lambda: self.run("!window.before && document.readyState") == "complete")

    def text(self, selector: str) -> str:
        """What a user reads there."""
        return self.run(f"document.querySelector({json.dumps(selector)}).innerText")

    def click(self, selector: str) -> None:
        """The middle of an element, which must be in view and not covered."""
        point = self.run(
            f"""(() => {{
              const element = document.querySelector({json.dumps(selector)});
              element.scrollIntoView({{block: "nearest"}});
              const box = element.getBoundingClientRect();
              const [x, y] = [box.x + box.width / 2, box.y + box.height / 2];
              return element.contains(document.elementFromPoint(x, y)) ? {{x, y}} : null;
            }})()"""
        )
        assert point, f"{selector} can't be clicked"
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **point)

    def press(self, *keys: str) -> None:
        for key in keys:
            text = {"text": key} if len(key) == 1 else {}
            code = _VIRTUAL_KEYS.get(key, ord(key[0].upper()))
            for kind in ("keyDown", "keyUp"):
                extra = text if kind == "keyDown" else {}
                self.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **extra)

    def download(self, selector: str, folder: Path) -> Path:
        """What clicking there saves."""
        self.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
        self.click(selector)
        self.wait(lambda: [path for path in folder.iterdir() if path.suffix != ".crdownload"])
        (path,) = folder.iterdir()
        return path

    def screenshot(self, path: Path) -> None:
        """A PNG of what is in view."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))


@contextlib.contextmanager
def open_browser(profile: Path, *, width: int = 1280, height: int = 800) -> Iterator[Browser]:
    """A browser of its own; `profile`: an empty folder for what it keeps."""
    assert CHROMIUM
    command_out, command_in = os.pipe()
    answer_out, answer_in = os.pipe()
    # Above 4, so that putting one in its place doesn't overwrite the other.
    theirs = [_moved_up(fd) for fd in (command_out, answer_in)]
    options = [
        *("--headless", "--disable-gpu", "--hide-scrollbars", "--no-first-run", "--remote-debugging-pipe"),
        "--no-sandbox",  # it needs rights that root and containers haven't; the pages are ours
        *(f"--window-size={width},{height}", f"--user-data-dir={profile}"),
    ]
    process = subprocess.Popen(
        [sys.executable, "-c", _WITH_PIPES, *map(str, theirs), CHROMIUM, *options],
        pass_fds=theirs,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    for fd in theirs:
        os.close(fd)
    try:
        yield Browser(command_in, answer_out)
    finally:
        process.kill()
        process.wait()
        for fd in (command_in, answer_out):
            os.close(fd)


def _moved_up(fd: int) -> int:
    moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(fd)
    return moved
