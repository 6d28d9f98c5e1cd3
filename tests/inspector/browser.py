"""A headless Chromium over its DevTools protocol: a hundred lines instead of a driver that pins its own browser."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import connect

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
KEYS = {
    "Tab": (9, ""),
    "Enter": (13, "\r"),
    "Escape": (27, ""),
    "End": (35, ""),
    "Home": (36, ""),
    "ArrowUp": (38, ""),
    "ArrowDown": (40, ""),
    "ArrowRight": (39, ""),
    "ArrowLeft": (37, ""),
}


def executable() -> str | None:
    """A Chromium on this machine: the one TAIJI_TEST_BROWSER names, else the first on the path."""
    return os.environ.get("TAIJI_TEST_BROWSER") or next(filter(None, map(shutil.which, NAMES)), None)


class Tab:
    """One page and what can be done to it."""

    def __init__(self, url: str) -> None:
        self._socket = connect(url, max_size=2**28)
        self._number = 0
        self.requests: list[str] = []
        self.complaints: list[str] = []
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{domain}.enable")
        self.send("Emulation.setFocusEmulationEnabled", enabled=True)

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method and wait for its answer."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(timeout=300))
            if message.get("id") == self._number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                return dict(message["result"])
            self._note(message)

    def _note(self, message: dict[str, Any]) -> None:
        told = message.get("params", {})
        if message.get("method") == "Network.requestWillBeSent":
            self.requests.append(told["request"]["url"])
        elif message.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(str(told["exceptionDetails"]))
        elif message.get("method") == "Log.entryAdded" and told["entry"]["level"] == "error":
            self.complaints.append(told["entry"]["text"])
        elif message.get("method") == "Page.javascriptDialogOpening":
            self.complaints.append(f"dialog: {told['message']}")

    def run(self, script: str) -> Any:
        """The value of an expression; a promise is awaited."""
        found = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise RuntimeError(
                found["exceptionDetails"].get("exception", {}).get("description", str(found["exceptionDetails"]))
            )
        return found["result"].get("value")

    def open(self, url: str) -> float:
        """Go there; returns seconds until the first contentful paint."""
        self.run("window.left = true")  # the same address again is another document
        self.send("Page.navigate", url=url)
        self.until(f"!window.left && location.href === {json.dumps(url)} && document.readyState === 'complete'")
        self.until("performance.getEntriesByName('first-contentful-paint').length > 0")
        return float(self.run("performance.getEntriesByName('first-contentful-paint')[0].startTime")) / 1000

    def until(self, condition: str, seconds: float = 20) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        while True:
            try:
                if self.run(f"Boolean({condition})"):
                    return
            except RuntimeError:
                pass  # between two pages there is no document
            if time.monotonic() > end:
                raise TimeoutError(condition)
            time.sleep(0.01)

    def press(self, key: str) -> None:
        """Press and release a key."""
        code, text = KEYS[key] if key in KEYS else (ord(key.upper()), key)
        for kind in ("keyDown", "keyUp"):
            self.send(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                windowsVirtualKeyCode=code,
                **({"text": text} if text and kind == "keyDown" else {}),
            )

    def write(self, text: str) -> None:
        """Type into what has the focus."""
        self.send("Input.insertText", text=text)

    def click(self, selector: str, x: float = 0.5, y: float = 0.5) -> None:
        """Click into an element at a share of its width and height."""
        box = self.run(
            f"(e => (e.scrollIntoView({{block: 'center'}}), e.getBoundingClientRect().toJSON()))(document.querySelector({json.dumps(selector)}))"
        )
        place = {"x": box["x"] + box["width"] * x, "y": box["y"] + box["height"] * y, "button": "left", "clickCount": 1}
        self.send("Input.dispatchMouseEvent", type="mousePressed", **place)
        self.send("Input.dispatchMouseEvent", type="mouseReleased", **place)

    def size(self, width: int, height: int = 900, dark: bool = False) -> None:
        """Set the window and the colour scheme."""
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )
        self.send(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}],
        )

    def picture(self, path: str | Path, whole: bool = True) -> None:
        """A screenshot as PNG."""
        Path(path).write_bytes(
            base64.b64decode(self.send("Page.captureScreenshot", captureBeyondViewport=whole)["data"])
        )

    def close(self) -> None:
        """Let go."""
        self._socket.close()


@contextmanager
def browser() -> Iterator[Tab]:
    """Start Chromium, yield its tab, and end it."""
    found = executable()
    assert found is not None, "look for executable() first"
    with tempfile.TemporaryDirectory(prefix="taiji-browser-", ignore_cleanup_errors=True) as folder:
        arguments = [
            found,
            "--headless=new",
            "--remote-debugging-port=0",
            f"--user-data-dir={folder}",
            "--no-first-run",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-component-update",
            "--no-proxy-server",
        ]
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            arguments.append("--no-sandbox")  # it refuses to start for root otherwise
        process = subprocess.Popen([*arguments, "about:blank"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            tab = Tab(_address(Path(folder) / "DevToolsActivePort", process))
            yield tab
            tab.close()
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _address(told: Path, process: subprocess.Popen[bytes], seconds: float = 60) -> str:
    """The first page's socket, once the browser has written down its port."""
    import urllib.request

    end = time.monotonic() + seconds
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while time.monotonic() < end and process.poll() is None:
        try:
            port = told.read_text().splitlines()[0]
            pages = json.loads(direct.open(f"http://127.0.0.1:{port}/json/list", timeout=5).read())
            return str(next(page["webSocketDebuggerUrl"] for page in pages if page["type"] == "page"))
        except (OSError, IndexError, StopIteration):
            time.sleep(0.05)
    raise TimeoutError(f"the browser does not answer (exit code {process.poll()})")
