"""A real browser for tests: Chromium without a window, driven through the DevTools protocol.

Owns: finding the program (on this machine, else unpacked from Debian's packages into the test cache; no root needed),
its process, and a page's commands and events. Does not know: the page. Every wait has a deadline.

https://chromedevtools.github.io/devtools-protocol/ has the commands.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple

from websockets.sync.client import ClientConnection, connect

from tests.support import debian

_NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_MAC: Final = Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome")
_START_TIMEOUT_S: Final = 60.0
_TIMEOUT_S: Final = 30.0
_POLL_S: Final = 0.05
_FLAGS: Final = (
    "--headless=new",
    "--remote-debugging-port=0",
    "--no-sandbox",  # containers have no user namespaces; the browser opens our own page only
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--hide-scrollbars",
    "--force-device-scale-factor=1",
)
_KEYS: Final = {"Enter": 13, "Escape": 27, "ArrowLeft": 37, "ArrowRight": 39, "Tab": 9}
_SHIFT: Final = 8


class BrowserError(Exception):
    """The browser is unavailable, or did not start or answer."""


class Program(NamedTuple):
    """The browser's path, and the variables that it needs."""

    path: Path
    environment: dict[str, str]


@functools.cache
def program() -> Program:
    """Return the browser, fetching it if this machine does not have one yet.

    Raises:
        BrowserError: The browser is unavailable; the message says why and what to do.
    """
    found = next((path for name in _NAMES if (path := shutil.which(name))), None)
    if found is not None:
        return Program(Path(found), {})
    if _MAC.exists():
        return Program(_MAC, {})
    try:
        folder = debian.unpacked("chromium", needs=True)
    except debian.DebianError as error:
        raise BrowserError(f"{error} (macOS: Google Chrome does as well)") from error
    return Program(folder / "usr/lib/chromium/chromium", {"LD_LIBRARY_PATH": debian.libraries(folder)})


class Page:
    """One page of a running browser, used from one thread.

    Attributes:
        complaints: Warnings and errors of the page's console, uncaught exceptions, failed requests, and violations of
            the content policy.
        requested: Every address that the page requested.
    """

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._number = 0
        self._session: str | None = None
        self.complaints: list[str] = []
        self.requested: list[str] = []
        target = self.command("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.command("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "Accessibility"):
            self.command(f"{domain}.enable")

    def command(self, method: str, **parameters: object) -> dict[str, Any]:
        """Send a command and return its result.

        Raises:
            BrowserError: the browser refuses it, or does not answer in time.
        """
        self._number += 1
        message: dict[str, object] = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        self._socket.send(json.dumps(message))
        while True:
            try:
                received = json.loads(self._socket.recv(timeout=_TIMEOUT_S))
            except TimeoutError as error:
                raise BrowserError(f"{method}: no answer within {_TIMEOUT_S:g} s") from error
            if received.get("id") == self._number:
                break
            self._note(received)
        if "error" in received:
            raise BrowserError(f"{method}: {received['error']['message']}")
        result: dict[str, Any] = received["result"]
        return result

    def open(self, url: str) -> None:
        """Open an address."""
        self.command("Page.navigate", url=url)

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression.

        Raises:
            BrowserError: it throws.
        """
        done = self.command("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in done:
            raise BrowserError(f"{expression}: {done['exceptionDetails']['exception'].get('description')}")
        return done["result"].get("value")

    def wait_for(self, expression: str) -> Any:
        """Wait until an expression is true, as JavaScript takes it, and return its value."""
        deadline = time.monotonic() + _TIMEOUT_S
        while not (value := self.evaluate(expression)):
            if time.monotonic() > deadline:
                raise BrowserError(f"not within {_TIMEOUT_S:g} s: {expression}; complaints: {self.complaints}")
            time.sleep(_POLL_S)
        return value

    def press(self, key: str, *, shift: bool = False) -> None:
        """Press and release a key: a character, or one by its name (`ArrowLeft`)."""
        text = {"text": key} if len(key) == 1 else {"text": "\r"} if key == "Enter" else {}
        code = _KEYS.get(key, ord(key[0].upper()))
        common = {"key": key, "code": key, "windowsVirtualKeyCode": code, "modifiers": _SHIFT if shift else 0}
        self.command("Input.dispatchKeyEvent", type="keyDown", **common, **text)
        self.command("Input.dispatchKeyEvent", type="keyUp", **common)

    def type(self, text: str) -> None:
        """Type text where the focus is."""
        self.command("Input.insertText", text=text)

    def resize(self, width: int, height: int, *, scheme: str) -> None:
        """Give the page a size in pixels and a colour scheme (`light` or `dark`)."""
        self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.command("Emulation.setEmulatedMedia", features=features)

    def screenshot(self, path: Path) -> bytes:
        """Write a picture of the page to a file, as PNG, and return its path."""
        image = base64.b64decode(self.command("Page.captureScreenshot", format="png")["data"])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image)
        return image

    def accessible(self) -> list[tuple[str, str]]:
        """Return role and name of every node of the accessibility tree."""
        nodes = self.command("Accessibility.getFullAXTree")["nodes"]
        return [
            (str(node["role"]["value"]), str(node.get("name", {}).get("value", "")))
            for node in nodes
            if not node["ignored"] and "role" in node
        ]

    def _note(self, event: dict[str, Any]) -> None:
        given = event.get("params", {})
        match event.get("method"):
            case "Runtime.consoleAPICalled" if given["type"] in ("error", "warning", "assert"):
                self.complaints.append(str([one.get("value", one.get("description")) for one in given["args"]]))
            case "Runtime.exceptionThrown":
                self.complaints.append(str(given["exceptionDetails"]))
            case "Log.entryAdded" if given["entry"]["level"] in ("error", "warning"):
                self.complaints.append(f"{given['entry']['text']} {given['entry'].get('url', '')}")
            case "Network.requestWillBeSent":
                self.requested.append(given["request"]["url"])


@contextlib.contextmanager
def running_browser() -> Iterator[Page]:
    """Start a browser with a profile of its own and yield a page of it; stop it afterwards.

    Raises:
        BrowserError: The browser is unavailable or did not start; the message has its output.
    """
    found = program()
    with TemporaryDirectory(prefix="rillcast-browser-", ignore_cleanup_errors=True) as folder:
        profile, said = Path(folder) / "profile", Path(folder) / "said"
        with said.open("wb") as output:
            process = subprocess.Popen(
                [str(found.path), *_FLAGS, f"--user-data-dir={profile}", "about:blank"],
                stdout=output,
                stderr=subprocess.STDOUT,
                # A home of its own: nothing of the user's is read or written.
                env=dict(os.environ) | {"HOME": folder} | found.environment,
                start_new_session=sys.platform != "win32",
            )
        try:
            address = _address(process, profile / "DevToolsActivePort", said)
            with connect(address, max_size=None, open_timeout=_TIMEOUT_S) as socket:
                yield Page(socket)
        finally:
            with contextlib.suppress(ProcessLookupError):  # it has helpers, which are in its group
                os.killpg(process.pid, 9)
            process.wait()


def _address(process: subprocess.Popen[bytes], file: Path, said: Path) -> str:
    """Wait for the file with the address on which the browser listens."""
    deadline = time.monotonic() + _START_TIMEOUT_S
    while True:
        lines = file.read_text().splitlines() if file.exists() else []
        if len(lines) == 2:
            return f"ws://127.0.0.1:{lines[0]}{lines[1]}"
        if process.poll() is not None or time.monotonic() > deadline:
            raise BrowserError(f"the browser did not start (exit {process.poll()}):\n{said.read_text()[-4000:]}")
        time.sleep(_POLL_S)
