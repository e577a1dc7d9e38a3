"""Small data sets in the official layouts, and a server on loopback that plays GroupLens."""

from __future__ import annotations

import dataclasses
import hashlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from recsys.datasets import movielens
from tests.datasets.layouts import LAYOUTS

Write = Callable[[str], Path]
Trust = Callable[[str, bytes], None]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let three ratings, three movies and two users be what GroupLens publishes."""
    for key, edition in movielens._EDITIONS.items():
        shrunk = dataclasses.replace(edition, n_interactions=3, n_users=2, n_items=3, ratings_md5=None)
        monkeypatch.setitem(movielens._EDITIONS, key, shrunk)


@pytest.fixture
def write(tmp_path: Path, small: None) -> Write:
    """Write the small layout of an edition into a fresh data home; return its folder."""

    def write_layout(key: str) -> Path:
        folder = tmp_path / LAYOUTS[key][0]
        folder.mkdir()
        for name, content in LAYOUTS[key][1].items():
            (folder / name).write_bytes(content)
        return folder

    return write_layout


@dataclasses.dataclass
class Server:
    """What it will answer, answer by answer, and what it was asked."""

    url: str
    answers: list[bytes | int | tuple[bytes, int]]
    asked: list[str]


@pytest.fixture
def grouplens(monkeypatch: pytest.MonkeyPatch, small: None) -> Iterator[Server]:
    """Serve `answers` in turn: a body, a status, or a body with a length that promises more."""
    state = Server("", [], [])

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.asked.append(self.path)
            answer = state.answers.pop(0) if state.answers else 404
            if isinstance(answer, int):
                self.send_response(answer)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            body, length = answer if isinstance(answer, tuple) else (answer, len(answer))
            self.send_response(200)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Keep the log of requests out of the output."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}/"
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(movielens, "BASE_URL", state.url)
    # Between two tries pooch sleeps for whole seconds.
    monkeypatch.setattr("pooch.core.time.sleep", lambda seconds: None)
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def trust(monkeypatch: pytest.MonkeyPatch) -> Trust:
    """Let the checksum of an edition's archive be that of these bytes."""

    def set_checksum(key: str, archive: bytes) -> None:
        md5 = hashlib.md5(archive, usedforsecurity=False).hexdigest()
        edition = dataclasses.replace(movielens._EDITIONS[key], md5=md5)
        monkeypatch.setitem(movielens._EDITIONS, key, edition)

    return set_checksum
