"""What every request passes on its way in, and every answer on its way out."""

from __future__ import annotations

import time
from urllib.parse import unquote_to_bytes

from fastapi import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from recsys.serving.answers import to_error, to_overloaded
from recsys.serving.batching import OverloadedError
from recsys.serving.security import HEADERS, READING, why_refused
from recsys.serving.service import Service

__all__ = ["Gate"]


class Gate:
    """Middleware: refuses who may not change anything, counts, and adds headers.

    Parameters
    ----------
    app : ASGI application
    service : Service
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._service = app, service
        key = service.settings.api_key
        self._key = None if key is None else key.encode("ascii")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status, path = time.perf_counter(), 500, scope["path"]
        is_read = not _has_body(scope)

        async def receive_on() -> Message:
            nonlocal is_read
            message = await receive()
            is_read = is_read or not message.get("more_body", False)
            return message

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message["headers"], *HEADERS]}
                # Who keeps a connection open would lose what is sent just when the process ends; nor is a body read
                # for ever that nobody wants.
                if self._service.is_closing or not is_read:
                    message["headers"].append((b"connection", b"close"))
            await send(message)

        try:
            refusal = self._refusal(scope)
            await (self._app if refusal is None else refusal)(scope, receive_on, send_on)
        finally:
            # Where it was refused, no route was looked for.
            route = getattr(scope.get("route"), "path_format", path if path in READING else "unmatched")
            self._service.metrics.observe(scope["method"], str(route), status, time.perf_counter() - start)

    def _refusal(self, scope: Scope) -> Response | None:
        """What answers a request that is not let in: before its body is read, which costs more than refusing it."""
        refused = why_refused(scope["method"], scope["path"], dict(scope["headers"]), self._key)
        if refused is not None:
            return to_error(*refused)
        if "\n" in scope["path"]:
            # The end of a route's pattern matches before a last one too, which would be left off.
            return to_error(404, "No item with a line break in its label has an address; expected its name in a body.")
        if not _is_text(scope):
            return to_error(422, "The address is no text; expected UTF-8, percent-encoded.")
        if scope["method"] == "POST" and scope["path"] in READING:
            try:
                self._service.batcher.refuse_if_late(1)
            except OverloadedError as error:
                return to_overloaded(error, self._service)
        return None


def _has_body(scope: Scope) -> bool:
    headers = dict(scope["headers"])
    return b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0"


def _is_text(scope: Scope) -> bool:
    """Whether an address is: bytes that are not would all be taken for the same character."""
    try:
        for part in (scope["raw_path"], scope["query_string"]):
            unquote_to_bytes(part.decode("ascii")).decode()
    except UnicodeError:
        return False
    return True
