"""A service in a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TOLD = re.compile(r"^Serving (.*) at (http://\S+:\d+)$")


class Served:
    """A process that serves.

    Attributes
    ----------
    process : Popen
    url : str
    lines : list of str
        What it has written.
    """

    def __init__(self, arguments: list[str], environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "recsys", "serve", *arguments],
            cwd=ROOT,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        self.url = ""
        self._has_told = threading.Event()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        assert self._has_told.wait(120), self.lines
        assert self.url, self.lines

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip())
            if told := TOLD.match(self.lines[-1]):
                self.url = told[2]
                self._has_told.set()
        self._has_told.set()

    def send(self, number: int) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def wait(self) -> int:
        """The exit code, when it has ended and all it has written is read."""
        code = self.process.wait(120)
        self._reader.join(60)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


@contextmanager
def served(*arguments: Any, **environment: str) -> Iterator[Served]:
    """A service at a free port, which is ended afterwards if it has not ended."""
    one = Served([*map(str, arguments), "--port", "0"], environment)
    try:
        yield one
    finally:
        if one.process.poll() is None:
            one.process.kill()
            one.wait()
