"""Clients: in this process without a network, or over one."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
from fastapi import FastAPI

Request = tuple[Any, ...]


def client(app: FastAPI) -> httpx.AsyncClient:
    """A client of an application; what is not caught there is an answer of status 500, as over a network."""
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://localhost")


def ask(app: FastAPI, method: str, path: str, json: Any = None, **options: Any) -> httpx.Response:
    """One request, and its answer."""

    async def asked() -> httpx.Response:
        async with client(app) as one:
            return await one.request(method, path, json=json, **options)

    return asyncio.run(asked())


def error(answer: httpx.Response, status: int) -> tuple[str, str]:
    """Type and message of an error of this status."""
    assert answer.status_code == status, answer.text
    [(name, told)] = answer.json().items()
    assert (name, set(told)) == ("error", {"type", "message"})
    return told["type"], told["message"]
