"""A service over HTTP: one bundle, answered in micro-batches. See `recsys serve --help`.

Names arrive when they are first used (PEP 562).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recsys.serving.app import create_app
    from recsys.serving.server import serve
    from recsys.serving.settings import Settings

__all__ = ["Settings", "create_app", "serve"]

_HOMES = {
    "Settings": "recsys.serving.settings",
    "create_app": "recsys.serving.app",
    "serve": "recsys.serving.server",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
