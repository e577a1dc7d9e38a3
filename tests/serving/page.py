"""What tests of the page share: the service in a process of its own, and the page as it opens."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.browser import Browser, Page

KEY = "a-key"
SETTLED = "document.querySelectorAll('#list[aria-busy=false], #reasons[aria-busy=false]').length === 2"
TITLES = "[...document.querySelectorAll('#list .title')].map((node) => node.textContent)"


class Server:
    """The service in a process of its own."""

    def __init__(self, address: str) -> None:
        self.address = address

    def ask(self, path: str, body: Any = None) -> Any:
        """An answer, without the page."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.address + path, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def titles(self, **asked: Any) -> list[str]:
        """The list that the page should show."""
        ids = [item["id"] for item in self.ask("recommend", asked)["items"]]
        found = self.ask("items?" + "&".join(f"ids={item}" for item in ids))["results"]
        return [item["metadata"]["title"] for item in found]


@contextmanager
def serving(bundle: Path, folder: Path) -> Iterator[Server]:
    """`recsys serve`, at a free port."""
    (folder / "key").write_text(KEY)
    options = ["--port", "0", "--api-key-file", str(folder / "key"), "--max-wait", "60", "--timeout", "60"]
    command = [sys.executable, "-m", "recsys", "serve", str(bundle), *options]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=Path(__file__).resolve().parents[2]
        )
    assert process.stdout is not None
    try:
        told = re.search(r"http://\S+", process.stdout.readline())
        assert told is not None, (folder / "log").read_text()
        yield Server(told.group() + "/")
    finally:
        process.terminate()
        process.wait(60)
        process.stdout.close()


def opened(browser: Browser, server: Server, *args: Any, **options: Any) -> Page:
    """The page, with the list of somebody of whom nothing is known."""
    page = browser.page(*args, **options)
    page.open(server.address)
    page.until(SETTLED)
    return page
