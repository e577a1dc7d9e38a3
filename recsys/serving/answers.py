"""Answers as JSON, errors included."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from recsys.exceptions import InvalidInputError
from recsys.serving.batching import OverloadedError
from recsys.serving.security import HEADERS
from recsys.serving.service import NoBundleError, Service

__all__ = ["ERROR_HANDLERS", "plain", "scored", "to_error", "to_json", "to_overloaded"]

# By Python's own names a type would change with its release.
_TYPES = {
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    408: "Timeout",
    409: "NoBundle",
    413: "TooLarge",
    422: "Unreadable",
    500: "Unexpected",
    503: "Overloaded",
    504: "Timeout",
}


def to_json(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """An answer of plain values; what is not ASCII is escaped, so that any label can be sent."""
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return Response(text, status, headers, "application/json")


def to_error(status: int, message: str, kind: str | None = None, headers: Mapping[str, str] | None = None) -> Response:
    """An answer that says what is wrong; its type follows from the status unless `kind` is given."""
    kind = kind or _TYPES.get(status, "Refused")
    return to_json({"error": {"type": kind, "message": message}}, status, headers)


def scored(ids: Sequence[Any], scores: Sequence[float]) -> list[dict[str, Any]]:
    """Labels and their scores."""
    return [{"id": label, "score": float(score)} for label, score in zip(ids, scores, strict=True)]


def plain(value: Any) -> Any:
    """Metadata as JSON has it: None for what is missing, text for what JSON has no form for.

    Examples
    --------
    >>> plain({"year": float("nan"), "genres": ("Drama", "War")})
    {'year': None, 'genres': ['Drama', 'War']}
    """
    if isinstance(value, Mapping):
        return {str(name): plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(each) for each in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)


async def _invalid(request: Request, error: Exception) -> Response:
    return to_error(422, str(error), type(error).__name__)


async def _unreadable(request: Request, error: Exception) -> Response:
    """What a schema refused, each place once: alternatives that did not fit come one by one."""
    assert isinstance(error, RequestValidationError)
    places: dict[str, str] = {}
    for each in error.errors():
        names = [str(part) for part in each["loc"] if part not in ("one", "many")]
        places.setdefault(".".join(names[:8]), str(each["msg"]))
    shown = "; ".join(f"{place}: {message}" for place, message in list(places.items())[:5])
    return to_error(422, f"{shown}.", "ValidationError")


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return to_error(error.status_code, error.detail, headers=error.headers)


def to_overloaded(error: OverloadedError, service: Service) -> Response:
    """An answer that says when to come again; it is counted."""
    service.metrics.shed.inc()
    return to_error(503, str(error), headers={"retry-after": str(max(1, math.ceil(error.seconds)))})


async def _overloaded(request: Request, error: Exception) -> Response:
    assert isinstance(error, OverloadedError)
    return to_overloaded(error, request.app.state.service)


async def _late(request: Request, error: Exception) -> Response:
    return to_error(504, str(error))


async def _no_bundle(request: Request, error: Exception) -> Response:
    return to_error(409, str(error))


async def _unexpected(request: Request, error: Exception) -> Response:
    headers = {name.decode(): value.decode() for name, value in HEADERS}
    return to_error(500, "Something went wrong here; the log of the service says what.", headers=headers)


ERROR_HANDLERS: dict[Any, Any] = {
    HTTPException: _refused,
    InvalidInputError: _invalid,
    NoBundleError: _no_bundle,
    OverloadedError: _overloaded,
    RequestValidationError: _unreadable,
    TimeoutError: _late,
    Exception: _unexpected,
}
