"""Serving: find the best items of a large catalogue fast.

Names arrive when they are first used (PEP 562).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recsys.retrieval.bundle import Bundle, Explained, Reached, Recommended, SimilarItems, load_bundle
    from recsys.retrieval.index import ItemIndex
    from recsys.retrieval.two_stage import TwoStageRecommender

__all__ = [
    "Bundle",
    "Explained",
    "ItemIndex",
    "Reached",
    "Recommended",
    "SimilarItems",
    "TwoStageRecommender",
    "load_bundle",
]

_HOMES = {
    "Bundle": "recsys.retrieval.bundle",
    "Explained": "recsys.retrieval.bundle",
    "ItemIndex": "recsys.retrieval.index",
    "Reached": "recsys.retrieval.bundle",
    "Recommended": "recsys.retrieval.bundle",
    "SimilarItems": "recsys.retrieval.bundle",
    "TwoStageRecommender": "recsys.retrieval.two_stage",
    "load_bundle": "recsys.retrieval.bundle",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
