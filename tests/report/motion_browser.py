"""Headless Chromium over its debugging pipe, for tests of pages that run a script: no package, no port."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any


def chromium() -> str | None:
    return os.environ.get("CHROME") or shutil.which("chromium")


class Browser:
    """One page. Its errors, console messages and requests are kept."""

    def __init__(self, profile: Path) -> None:
        ours, theirs = os.pipe(), os.pipe()  # what the browser reads as 3 and writes as 4
        flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-component-update"
        flags += " --disable-background-networking --disable-sync --remote-debugging-pipe about:blank"
        # A shell puts the pipes in their places: Python's pass_fds keeps the numbers that they have.
        command = f'exec "$0" "$@" 3<&{ours[0]} 4>&{theirs[1]}'
        self._process = subprocess.Popen(
            ["/bin/bash", "-c", command, str(chromium()), f"--user-data-dir={profile}", *flags.split()],
            pass_fds=(ours[0], theirs[1]),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(ours[0])
        os.close(theirs[1])
        self._to, self._from = os.fdopen(ours[1], "wb"), os.fdopen(theirs[0], "rb")
        self._number = 0
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        (page,) = [t for t in self("Target.getTargets")["targetInfos"] if t["type"] == "page"]
        attached = self("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self(f"{domain}.enable")

    def __call__(self, method: str, **parameters: Any) -> Any:
        """Send a command and wait for its answer."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._to.write(json.dumps(message).encode() + b"\0")
        self._to.flush()
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]

    def _read(self) -> dict[str, Any]:
        content = bytearray()
        while not content.endswith(b"\0"):
            byte = self._from.read(1)
            if not byte:
                raise RuntimeError("the browser has ended")
            content += byte
        message: dict[str, Any] = json.loads(bytes(content[:-1]))
        if "method" in message:
            self.events.append(message)
        return message

    def look(self, width: int, height: int = 1000, *, dark: bool = False, calm: bool = True) -> None:
        """Window size and what the reader prefers; before ``open``."""
        self("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        features = [
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
            {"name": "prefers-reduced-motion", "value": "reduce" if calm else "no-preference"},
        ]
        self("Emulation.setEmulatedMedia", features=features)

    def open(self, path: Path) -> None:
        """Load a file, and wait until it is loaded."""
        self.events.clear()
        self("Page.navigate", url=path.as_uri())
        while not any(e["method"] == "Page.loadEventFired" for e in self.events):
            self._read()

    def run(self, script: str) -> Any:
        """The value of a piece of JavaScript; a promise is waited for."""
        done = self("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in done:
            raise RuntimeError(done["exceptionDetails"]["exception"].get("description"))
        return done["result"].get("value")

    def key(self, key: str) -> None:
        """Press a key, wherever the focus is."""
        for kind in ("keyDown", "keyUp"):
            self("Input.dispatchKeyEvent", type=kind, key=key, code="Space" if key == " " else key)

    def drag(self, x: float, y: float, by: float) -> None:
        """Press the mouse, move it to the right, let it go."""
        for kind, at in (
            ("mousePressed", x),
            ("mouseMoved", x + by / 2),
            ("mouseMoved", x + by),
            ("mouseReleased", x + by),
        ):
            self("Input.dispatchMouseEvent", type=kind, x=at, y=y, button="left", buttons=1, clickCount=1)

    def faults(self) -> list[str]:
        """What the page complained of, and what it asked the network for."""
        bad = [
            e
            for e in self.events
            if e["method"] in ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled")
        ]
        sent = [e["params"]["request"]["url"] for e in self.events if e["method"] == "Network.requestWillBeSent"]
        return [json.dumps(e["params"]) for e in bad] + [u for u in sent[1:] if not u.startswith("data:")]

    def close(self) -> None:
        self._to.close()
        self._process.wait(timeout=20)
        self._from.close()
