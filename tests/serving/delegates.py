"""Bundles some of whose answers are others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from recsys.retrieval import Bundle, load_bundle


class Delegate:
    """A bundle, but for what a subclass does."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bundle, name)


def loading(kind: type[Delegate]) -> Callable[[Path], Any]:
    """What loads bundles of this kind."""
    return lambda path: kind(load_bundle(path))
