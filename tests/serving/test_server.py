"""The process: how it starts, swaps, ends, and what it does not import."""

from __future__ import annotations

import asyncio
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from recsys import cli
from recsys.exceptions import InvalidInputError
from recsys.retrieval import load_bundle
from recsys.serving import Settings, serve
from tests.serving.processes import ROOT, served

# Signals of this kind are of Unix.
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs signals of Unix")


def lists(path: Path) -> dict[int, list[int]]:
    """The best items of every user."""
    return {each.user_id: each.item_ids for each in load_bundle(path).recommend(list(range(1, 61)))}


def ids(answer: httpx.Response) -> list[int]:
    assert answer.status_code == 200, answer.text
    return [item["id"] for item in answer.json()["items"]]


def test_it_tells_where_it_is_answers_and_ends(bundles: Path) -> None:
    with served(bundles / "first", "--drain", 0.1) as one, httpx.Client(base_url=one.url, timeout=60) as http:
        assert one.url.startswith("http://127.0.0.1:")
        assert "Serving ContentEASE (50 items, 60 users) at" in "\n".join(one.lines)
        assert ids(http.post("/recommend", json={"user": 5})) == lists(bundles / "first")[5]
        assert http.put("/items/901", json={"features": {}}).json()["n_items"] == 51
        assert http.get("/readyz").json() == {"status": "ready"}
        assert http.get("/healthz").headers.get("server") is None
        one.send(signal.SIGTERM)
        assert one.wait() == 0
        assert not [line for line in one.lines if "Traceback" in line or "ERROR" in line]


def test_the_key_is_read_from_a_file_or_the_environment(bundles: Path, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("s3cret\n")
    film: dict[str, Any] = {"features": {}}
    for arguments, environment in (
        (["--api-key-file", tmp_path / "key"], {"RECSYS_API_KEY": "other"}),
        (["--host", "0.0.0.0"], {"RECSYS_API_KEY": "s3cret"}),
    ):
        with served(bundles / "first", "--drain", 0, *arguments, **environment) as one:
            url = one.url.replace("0.0.0.0", "127.0.0.1") + "/items/901"
            assert httpx.put(url, json=film, timeout=60).status_code == 401
            assert httpx.put(url, json=film, headers={"x-api-key": "other"}, timeout=60).status_code == 401
            assert httpx.put(url, json=film, headers={"x-api-key": "s3cret"}, timeout=60).status_code == 200


def refused(*arguments: Any, **environment: str) -> str:
    done = CliRunner().invoke(cli.app, ["serve", *map(str, arguments)], env=environment)
    assert (done.exit_code, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert line.startswith("Error: ")
    return str(line)


def test_what_cannot_be_served_is_one_sentence(bundles: Path, tmp_path: Path) -> None:
    first = bundles / "first"
    assert "`host` is '0.0.0.0', which others can reach" in refused(first, "--host", "0.0.0.0")
    assert "--api-key-file is" in refused(first, "--api-key-file", tmp_path / "absent")
    (tmp_path / "key").write_text("\n")
    assert "`api_key` is empty" in refused(first, "--api-key-file", tmp_path / "key")
    assert "`api_key` is empty" in refused(first, RECSYS_API_KEY="")
    assert "no.such.host.invalid" in refused(first, "--host", "no.such.host.invalid")
    assert "absent" in refused(tmp_path / "absent")


def test_a_port_that_is_taken_is_told(bundles: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InvalidInputError, match=rf"Listening at 127\.0\.0\.1, port {port}, failed: .*name another"):
            serve(Settings(bundles / "first"), "127.0.0.1", port, print)


def test_the_process_imports_neither_pandas_nor_torch(bundles: Path) -> None:
    code = (
        "import asyncio, pathlib, sys\n"
        "import recsys.cli\n"
        "from recsys.serving import Settings, create_app, server\n"
        "from tests.serving.clients import ask\n"
        "app = create_app(Settings(pathlib.Path(sys.argv[1])))\n"
        "asked = {'user': 5, 'interactions': [3], 'where': {'year': 1990}}\n"
        "assert ask(app, 'POST', '/recommend', asked).status_code == 200\n"
        "assert ask(app, 'POST', '/explain', {'user': 5, 'items': [3]}).status_code == 200\n"
        "assert ask(app, 'PUT', '/items/901', {'features': {'genres': ['War']}}).status_code == 200\n"
        "assert ask(app, 'GET', '/docs').status_code == ask(app, 'GET', '/metrics').status_code == 200\n"
        "heavy = {'pandas', 'scipy', 'sklearn', 'torch', 'lightgbm', 'onnx', 'safetensors', 'joblib', 'requests'}\n"
        "sys.stdout.write(' '.join(sorted(heavy & set(sys.modules))))\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(bundles / "first")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == ""


def test_help_is_told_without_what_serving_needs() -> None:
    code = (
        "import sys\n"
        "from recsys.cli import app\n"
        "try:\n    app(['serve', '--help'])\n"
        "except SystemExit:\n"
        "    heavy = {'fastapi', 'uvicorn', 'starlette', 'numpy', 'pandas', 'prometheus_client'}\n"
        "    sys.stderr.write(' '.join(sorted(heavy & set(sys.modules))))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert "--api-key-file" in done.stdout
    assert "--max-wait" in done.stdout


def test_sighup_swaps_under_load_without_a_gap(bundles: Path, tmp_path: Path) -> None:
    present, expected = tmp_path / "present", {name: lists(bundles / name) for name in ("first", "second")}
    present.symlink_to(bundles / "first")
    kinds: list[set[str]] = []

    def point_to(name: str) -> None:
        (tmp_path / "next").symlink_to(bundles / name)
        (tmp_path / "next").replace(present)

    async def main(url: str, hang_up: Any) -> None:
        is_over = False

        async def ask_on(http: httpx.AsyncClient, user: int) -> int:
            n = 0
            while not is_over:
                user = user % 60 + 1
                found = ids(await http.post("/recommend", json={"user": user}))
                kinds.append({name for name, some in expected.items() if some[user] == found})
                n += 1
            return n

        async def swaps(http: httpx.AsyncClient) -> float:
            for n, name in enumerate(("second", "first", "second"), 1):
                point_to(name)
                hang_up()
                while f'outcome="done"}} {n}.0' not in (await http.get("/metrics")).text:
                    await asyncio.sleep(0.02)
            return n

        async with httpx.AsyncClient(base_url=url, timeout=60) as http:
            asking = [asyncio.create_task(ask_on(http, start)) for start in range(0, 60, 10)]
            assert await swaps(http) == 3
            is_over = True
            assert min(await asyncio.gather(*asking)) > 0
            for user in range(1, 61):
                assert ids(await http.post("/recommend", json={"user": user})) == expected["second"][user]

    with served(present, "--max-wait", 60, "--drain", 0) as one:
        asyncio.run(main(one.url, lambda: one.send(signal.SIGHUP)))
    # Every answer is that of one of the two, and both were served.
    assert all(kinds)
    assert {"first"} in kinds
    assert {"second"} in kinds


def test_a_bundle_that_is_broken_on_sighup_leaves_the_old_one(bundles: Path, tmp_path: Path) -> None:
    shutil.copytree(bundles / "first", tmp_path / "present")
    with served(tmp_path / "present", "--drain", 0) as one, httpx.Client(base_url=one.url, timeout=60) as http:
        (tmp_path / "present/manifest.json").write_text("{}")
        one.send(signal.SIGHUP)
        while 'outcome="failed"} 1.0' not in http.get("/metrics").text:
            pass
        assert ids(http.post("/recommend", json={"user": 5})) == lists(bundles / "first")[5]
        one.send(signal.SIGTERM)
        assert one.wait() == 0
    assert [line for line in one.lines if "is not served" in line]


def test_ending_drops_no_request(bundles: Path) -> None:
    """Clients leave when they are told to; whatever they have sent by then is answered."""
    expected = lists(bundles / "first")

    async def ask_on(url: str, user: int) -> int:
        n = 0
        async with httpx.AsyncClient(base_url=url, timeout=60) as http:
            while True:
                user = user % 60 + 1
                found = await http.post("/recommend", json={"user": user})
                assert ids(found) == expected[user]
                n += 1
                if found.headers.get("connection") == "close":
                    return n

    async def main(url: str, end: Any) -> list[int]:
        asking = [asyncio.create_task(ask_on(url, start)) for start in range(0, 60, 5)]
        await asyncio.sleep(0.5)
        end()
        return await asyncio.gather(*asking)

    with served(bundles / "first", "--max-wait", 60, "--drain", 3) as one:
        assert min(asyncio.run(main(one.url, lambda: one.send(signal.SIGTERM)))) > 0
        assert one.wait() == 0
        with pytest.raises(httpx.ConnectError):
            httpx.get(one.url)


def test_ending_resets_nobody_who_was_connected(bundles: Path) -> None:
    """Clients that come again and again, until they are not let in: whoever is let in is answered."""
    body = b'{"user": 5, "k": 3}'
    head = f"POST /recommend HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"

    async def come_again(host: str, port: int) -> int:
        n = 0
        while True:
            try:
                reader, writer = await asyncio.open_connection(host, port)
            except ConnectionError:
                return n
            is_last = False
            while not is_last:
                writer.write(head.encode() + b"\r\n" + body)
                answer = await reader.readuntil(b"\r\n\r\n")
                assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
                await reader.readexactly(int(answer.partition(b"content-length: ")[2].partition(b"\r\n")[0]))
                is_last = b"connection: close" in answer
                n += 1
            writer.close()

    async def main(host: str, port: int, end: Any) -> list[int]:
        coming = [asyncio.create_task(come_again(host, port)) for _ in range(40)]
        await asyncio.sleep(0.3)
        end()
        return await asyncio.gather(*coming)

    with served(bundles / "first", "--max-wait", 60, "--timeout", 60, "--drain", 0.3) as one:
        host, port = one.url.removeprefix("http://").split(":")
        assert min(asyncio.run(main(host, int(port), lambda: one.send(signal.SIGTERM)))) > 0
        assert one.wait() == 0


def test_who_asks_for_nothing_is_not_kept(bundles: Path) -> None:
    whole = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"
    with served(bundles / "first", "--drain", 0, "--timeout", 1) as one:
        host, port = one.url.removeprefix("http://").split(":")
        for sent in (b"", b"GET /healthz HTTP/1.1\r\nhost:", whole, whole + b"GET /hea"):
            with socket.create_connection((host, int(port)), timeout=20) as connection:
                connection.sendall(sent)
                answer = b""
                while part := connection.recv(65536):
                    answer += part
            assert answer.count(b"HTTP/1.1 200 OK\r\n") == sent.count(b"\r\n\r\n")


def test_who_is_refused_is_not_read_for_ever(bundles: Path) -> None:
    head = "PUT /items/901 HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    with served(bundles / "first", "--drain", 0, "--timeout", 60, "--max-body", 10) as one:
        host, port = one.url.removeprefix("http://").split(":")
        for status, name in ((403, "evil.example"), (413, "localhost")):
            with socket.create_connection((host, int(port)), timeout=20) as connection:
                connection.sendall(head.format(name).encode() + b"b\r\n" + b" " * 11 + b"\r\n")
                answer = b""
                while part := connection.recv(65536):
                    answer += part
            assert answer.startswith(b"HTTP/1.1 %d " % status)
            assert b"\r\nconnection: close\r\n" in answer


def test_sighup_before_it_listens_ends_nothing() -> None:
    code = (
        "import os, pathlib, signal, sys\n"
        "from recsys.serving import Settings, server\n"
        "def create_app(settings):\n"
        "    os.kill(os.getpid(), signal.SIGHUP)\n"
        "    sys.exit(7)\n"
        "server.create_app = create_app\n"
        "server.serve(Settings(pathlib.Path('absent')), '127.0.0.1', 0, print)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 7


def test_what_is_in_flight_when_listening_ends_is_answered(bundles: Path) -> None:
    with served(bundles / "first", "--drain", 0, "--timeout", 20) as one:
        host, port = one.url.removeprefix("http://").split(":")
        body = b'{"user": 5}'
        head = (
            f"POST /recommend HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\n\r\n"
        )
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            connection.sendall(head.encode() + body[:5])
            # It has been read when another one is answered.
            httpx.get(one.url + "/healthz", timeout=60)
            one.send(signal.SIGTERM)
            while not any("Shutting down" in line for line in one.lines):
                pass
            connection.sendall(body[5:])
            answer = b""
            while part := connection.recv(65536):
                answer += part
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"\r\nconnection: close\r\n" in answer
        assert one.wait() == 0
