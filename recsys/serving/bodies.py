"""Bodies of requests: bounded, and JSON in the strict sense."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import HTTPException, Request, Response
from fastapi.routing import APIRoute
from pydantic_core import from_json

from recsys.exceptions import examples

__all__ = ["BoundedRequest", "BoundedRoute"]


class BoundedRequest(Request):
    """A request whose body is neither too long nor too slow.

    Nor does it hold NaN, infinities, halves of characters, or a name twice in one object.
    """

    async def body(self) -> bytes:
        """The bytes; an HTTPException (413, 408) where they are too many or come too late."""
        settings = self.app.state.service.settings
        if not hasattr(self, "_body"):
            try:
                self._body = await asyncio.wait_for(self._read(settings.max_body), settings.timeout)
            except asyncio.TimeoutError as error:
                raise HTTPException(
                    408, f"The body did not come within {settings.timeout:g} seconds; expected it at once."
                ) from error
        return self._body

    async def _read(self, most: int) -> bytes:
        parts, n = [], 0
        async for part in self.stream():
            n += len(part)
            if n > most:
                raise HTTPException(413, f"The body has more than {most} bytes; expected fewer: send less at a time.")
            parts.append(part)
        return b"".join(parts)

    async def json(self) -> Any:
        """What the body says; an HTTPException (422) where it is no JSON."""
        try:
            # The first bounds the depth, and refuses what is no UTF-8; only the second tells of names that come twice.
            found = from_json(body := await self.body(), allow_inf_nan=False)
            json.loads(body, object_pairs_hook=_once)
            return found
        except ValueError as error:
            raise HTTPException(422, f"The body is no JSON: {error}; expected JSON in UTF-8.") from error


def _once(pairs: list[tuple[str, Any]]) -> None:
    """Refuse an object with a name twice, of which all but one would be dropped."""
    if len(pairs) > len(dict(pairs)):
        twice = [name for name, n in Counter(name for name, _ in pairs).items() if n > 1]
        raise ValueError(f"an object has {examples(twice)} more than once")


class BoundedRoute(APIRoute):
    """A route whose requests are bounded ones."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """What answers a request."""
        answer = super().get_route_handler()

        async def bounded(request: Request) -> Response:
            return await answer(BoundedRequest(request.scope, request.receive))

        return bounded
