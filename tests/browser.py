"""Chromium, driven by its DevTools protocol over a pipe: no driver, no socket, nothing but the standard library."""

from __future__ import annotations

import base64
import itertools
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Reply = dict[str, Any]

# How long anything may take on a machine that does other work besides.
PATIENCE = 30.0

# Chromium reads requests from file descriptor 3 and answers on 4; they are moved away first, as each may be either.
_AS_3_AND_4 = """
import fcntl, os, sys
reads, writes = (fcntl.fcntl(int(fd), fcntl.F_DUPFD, 10) for fd in sys.argv[1:3])
os.dup2(reads, 3)
os.dup2(writes, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""

_OPTIONS = (
    "--headless",
    "--remote-debugging-pipe",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--no-first-run",
    "--disable-extensions",
    "--disable-background-networking",
    "--disable-component-update",
)

_KEYS = {
    "Enter": (13, "\r"),
    "Tab": (9, ""),
    "Escape": (27, ""),
    "ArrowDown": (40, ""),
    "ArrowUp": (38, ""),
    " ": (32, " "),
}


class Browser:
    """A running Chromium."""

    def __init__(self, reads: int, writes: int) -> None:
        self._reads, self._writes = reads, writes
        self._ids = itertools.count(1)
        self._left = b""
        self._replies: dict[int, Reply] = {}
        self.heard: Callable[[str, Reply], None] = lambda method, params: None

    def post(self, method: str, session: str | None = None, **params: Any) -> int:
        """Send a command, and do not wait for its reply."""
        message: Reply = {"id": next(self._ids), "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        os.write(self._writes, json.dumps(message).encode() + b"\0")
        return int(message["id"])

    def send(self, method: str, session: str | None = None, **params: Any) -> Reply:
        """Send a command and wait for its result."""
        number, until = self.post(method, session, **params), time.monotonic() + PATIENCE
        while number not in self._replies:
            self.listen(until, method)
        reply = self._replies.pop(number)
        if "error" in reply:
            raise AssertionError(f"{method}: {reply['error']['message']}")
        result: Reply = reply["result"]
        return result

    def listen(self, until: float, what: str) -> None:
        """Take in what the browser says next."""
        if not select.select([self._reads], [], [], max(0.0, until - time.monotonic()))[0]:
            raise AssertionError(f"Chromium said nothing within {PATIENCE:g} s: {what}")
        read = os.read(self._reads, 1 << 20)
        if not read:
            raise AssertionError(f"Chromium is gone: {what}")
        *messages, self._left = (self._left + read).split(b"\0")
        for message in map(json.loads, messages):
            if "id" in message:
                self._replies[message["id"]] = message
            else:
                self.heard(message["method"], message["params"])

    def page(self, width: int = 1280, height: int = 900, *, dark: bool = False, still: bool = True) -> Page:
        """Open an empty page; `still`: for somebody who prefers reduced motion."""
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        return Page(self, session, target, width, height, dark, still)


class Page:
    """A page, and what it has said and asked for: `console` (errors and warnings) and `requests` (addresses)."""

    def __init__(
        self, browser: Browser, session: str, target: str, width: int, height: int, dark: bool, still: bool
    ) -> None:
        self.browser, self.session, self._target = browser, session, target
        self.console: list[str] = []
        self.requests: list[str] = []
        self.paused: list[Reply] = []
        browser.heard = self._hear
        for domain in ("Page", "Runtime", "Log", "Network", "DOM", "Accessibility"):
            self.send(f"{domain}.enable")
        self.resize(width, height)
        colours, motion = "dark" if dark else "light", "reduce" if still else "no-preference"
        media = {"prefers-color-scheme": colours, "prefers-reduced-motion": motion}
        features = [{"name": name, "value": value} for name, value in media.items()]
        self.send("Emulation.setEmulatedMedia", features=features)

    def resize(self, width: int, height: int) -> None:
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def send(self, method: str, **params: Any) -> Reply:
        return self.browser.send(method, self.session, **params)

    def close(self) -> None:
        self.browser.send("Target.closeTarget", targetId=self._target)

    def _hear(self, method: str, params: Reply) -> None:
        if method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.console.append(" ".join(str(arg.get("value", arg.get("description"))) for arg in params["args"]))
        elif method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.console.append(details.get("exception", {}).get("description", details["text"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.console.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Fetch.requestPaused":
            self.paused.append(params)

    def open(self, address: str) -> None:
        """Go to an address and wait until it has loaded."""
        self.send("Page.navigate", url=address)
        self.until(f"document.readyState === 'complete' && location.href === {json.dumps(address)}")

    def see(self, expression: str) -> Any:
        """The value of an expression of JavaScript."""
        done = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in done:
            raise AssertionError(f"{expression}: {done['exceptionDetails']['exception']['description']}")
        return done["result"].get("value")

    def until(self, condition: str) -> None:
        """Wait until an expression is truthy."""
        end = time.monotonic() + PATIENCE
        waiting = f"""new Promise((done) => {{
            const stop = performance.now() + 1000;
            const look = () => {{
                const value = Boolean({condition});
                if (value || performance.now() > stop) done(value); else setTimeout(look, 5);
            }};
            look();
        }})"""
        while True:
            try:
                value = self.see(waiting)
            except AssertionError as error:
                # A new document has taken the place of the one that was asked.
                if "context" not in str(error) and "navigated" not in str(error):
                    raise
                value = None
            if value:
                return
            if time.monotonic() > end:
                shown = self.see("document.body.innerText")
                raise AssertionError(f"not within {PATIENCE:g} s: {condition}; the page: {shown}")

    def named(self, role: str, name: str) -> int:
        """The one element that a screen reader calls so."""
        root = self.send("DOM.getDocument", depth=0)["root"]["nodeId"]
        end = time.monotonic() + PATIENCE
        while True:
            nodes = self.send("Accessibility.queryAXTree", nodeId=root, role=role, accessibleName=name)["nodes"]
            found = [node["backendDOMNodeId"] for node in nodes if not node["ignored"]]
            if len(found) == 1:
                return int(found[0])
            if len(found) > 1 or time.monotonic() > end:
                raise AssertionError(f"{len(found)} elements are {role} {name!r}; expected one")

    def names(self, role: str) -> list[str]:
        """The names of all elements of a role, in the order in which they are read."""
        nodes = {node["nodeId"]: node for node in self.send("Accessibility.getFullAXTree")["nodes"]}
        found, left = [], [next(iter(nodes))]
        while left:
            node = nodes[left.pop()]
            left += [child for child in reversed(node.get("childIds", [])) if child in nodes]
            if not node["ignored"] and node["role"]["value"] == role:
                found.append(node["name"]["value"])
        return found

    def focused(self) -> str:
        """The name of what has the focus."""
        element = self.send("Runtime.evaluate", expression="document.activeElement")["result"]["objectId"]
        [node, *_] = self.send("Accessibility.getPartialAXTree", objectId=element, fetchRelatives=False)["nodes"]
        return str(node["name"]["value"])

    def click(self, role: str, name: str) -> None:
        """Click where somebody with a mouse would."""
        node = self.named(role, name)
        self.send("DOM.scrollIntoViewIfNeeded", backendNodeId=node)
        box = self.send("DOM.getContentQuads", backendNodeId=node)["quads"][0]
        at = {"x": sum(box[::2]) / 4, "y": sum(box[1::2]) / 4, "button": "left", "clickCount": 1}
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, **at)

    def focus(self, role: str, name: str) -> None:
        self.send("DOM.focus", backendNodeId=self.named(role, name))

    def type(self, text: str) -> None:
        """Put text into what has the focus, as typing does."""
        self.send("Input.insertText", text=text)

    def press(self, key: str, *, shift: bool = False) -> None:
        code, text = _KEYS[key]
        event = {"key": key, "code": key, "windowsVirtualKeyCode": code, "modifiers": 8 if shift else 0}
        self.send("Input.dispatchKeyEvent", type="keyDown", **event, **({"text": text} if text else {}))
        self.send("Input.dispatchKeyEvent", type="keyUp", **event)

    def hold(self, *patterns: str) -> None:
        """Hold back requests to addresses of these patterns from now on, in `paused`."""
        self.send("Fetch.enable", patterns=[{"urlPattern": pattern} for pattern in patterns])

    def held(self, n: int) -> list[Reply]:
        """Wait until n requests are held back."""
        end = time.monotonic() + PATIENCE
        while len(self.paused) < n:
            self.browser.listen(end, f"{n} requests that are held back")
        return self.paused

    def answer(self, request: Reply, status: int, body: Any, **headers: str) -> None:
        """Answer a request that is held back."""
        told = [{"name": name.replace("_", "-"), "value": value} for name, value in headers.items()]
        content = base64.b64encode(json.dumps(body).encode()).decode()
        number = request["requestId"]
        self.send("Fetch.fulfillRequest", requestId=number, responseCode=status, responseHeaders=told, body=content)

    def shot(self, path: Path) -> None:
        """Save a picture of the whole page."""
        size = self.send("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        data = self.send("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(data))


@contextmanager
def browsing(chromium: str, profile: Path) -> Iterator[Browser]:
    """Run Chromium with a profile of its own, and end it."""
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    command = [chromium, *_OPTIONS, f"--user-data-dir={profile}"]
    process = subprocess.Popen(
        [sys.executable, "-c", _AS_3_AND_4, str(theirs_in), str(theirs_out), *command],
        pass_fds=(theirs_in, theirs_out),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(theirs_in)
    os.close(theirs_out)
    browser = Browser(ours_in, ours_out)
    try:
        yield browser
        browser.send("Browser.close")
    finally:
        os.close(ours_out)
        os.close(ours_in)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
