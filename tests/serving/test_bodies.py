"""Bodies: bounded in length and time, JSON in the strict sense."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from fastapi import FastAPI

from recsys.serving import Settings, create_app
from tests.serving.clients import ask, client, error

JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    "body",
    [
        b'{"user": NaN}',
        b'{"features": {"age": Infinity}}',
        b'{"features": {"age": -Infinity}}',
        b'{"features": {"age": 1e999}}',
        b'{"user": "\\ud800"}',
        b'{"user": "\xff"}',
        b'{"user": "\xed\xa0\x80"}',
        b'{"user": ' + b"9" * 5000 + b"}",
        b'{"where": ' + b"[" * 10_000 + b"]" * 10_000 + b"}",
        b'{"where": ' + b'{"not": ' * 150 + b"{}" + b"}" * 150 + b"}",
        b'{"user": 1} x',
        b"{'user': 1}",
        b"{",
        b"",
        b"\x00",
    ],
)
def test_what_is_no_json_is_refused(app: FastAPI, body: bytes) -> None:
    error(ask(app, "POST", "/recommend", content=body, headers=JSON), 422)


def test_other_types_are_refused(app: FastAPI) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        error(ask(app, "POST", "/recommend", content=b'{"user": 1}', headers={"content-type": kind}), 422)


def test_a_long_body_is_refused_before_it_is_read(settings: Settings) -> None:
    app = create_app(replace(settings, max_body=100))
    assert ask(app, "POST", "/recommend", content=b'{"user": 1}'.ljust(100), headers=JSON).status_code == 200
    _, message = error(ask(app, "POST", "/recommend", content=b'{"user": 1}'.ljust(101), headers=JSON), 413)
    assert "more than 100 bytes" in message
    n_sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal n_sent
        while True:
            n_sent += 1
            yield b" " * 60

    error(ask(app, "POST", "/recommend", content=endless(), headers=JSON), 413)
    assert n_sent <= 3


def test_a_slow_body_is_refused(settings: Settings) -> None:
    app = create_app(replace(settings, timeout=0.05))

    async def slow() -> AsyncIterator[bytes]:
        yield b'{"user":'
        await asyncio.sleep(60)

    async def main() -> None:
        async with client(app) as one:
            found = await one.post("/recommend", content=slow(), headers=JSON)
        assert error(found, 408)[1].startswith("The body did not come within 0.05 seconds")
        assert found.headers["connection"] == "close"

    asyncio.run(main())


@pytest.mark.parametrize(
    "body",
    [
        b'{"user": 1, "user": 2}',
        b'{"user": 1, "us\\u0065r": 1}',
        b'{"features": {"age": 3, "gender": "F", "age": 3}}',
        b'{"requests": [{}, {"where": {"or": [{"year": 1, "year": 2}]}}]}',
    ],
)
def test_what_is_said_twice_is_refused(app: FastAPI, body: bytes) -> None:
    message = error(ask(app, "POST", "/recommend", content=body, headers=JSON), 422)[1]
    assert "more than once" in message
    assert "'" in message
