"""Whether the state of a bundle is such as an export writes: it may be altered and match its checksums.

What is wrong is a ValueError, or what looking at it raises. Imports NumPy alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from recsys._records import is_missing, untagged

__all__ = ["check_state"]


def check_state(state: dict[str, Any]) -> None:
    """Look at what requests are read by: labels, encoders, and the least rating.

    Parameters
    ----------
    state : dict
        What `export` writes.

    Raises
    ------
    ValueError
        If labels are not flat, distinct and none of them null, or an encoder is not whole.
    """
    _check_labels(state["items"])
    if state["users"] is not None:
        _check_labels(state["users"]["labels"])
    for name in ("user_features", "item_features", "context"):
        if state[name] is not None:
            _check_encoder(state[name])
    least = state["min_rating"]
    if least is not None and (type(least) not in (int, float) or not np.isfinite(least)):
        raise ValueError(f"a least rating of {least!r}")


def _check_labels(state: dict[str, Any]) -> None:
    ids, form = state["ids"], state["form"]
    if form == "numbers":
        ordered = np.sort(ids)
        is_fine = ids.ndim == 1 and not np.isnan(ids).any() and not (ordered[1:] == ordered[:-1]).any()
    else:
        labels = ids if form == "text" else [untagged(pair) for pair in ids]
        is_there = all(type(label) is str for label in labels) if form == "text" else not any(map(is_missing, labels))
        is_fine = is_there and len(set(labels)) == len(labels)
    if not is_fine:
        raise ValueError("labels that are not flat, distinct and none of them null")


def _check_encoder(state: dict[str, Any]) -> None:
    specs, texts = state["specs"], [state["sep"], *state["ignored"]]
    names = [spec["name"] for spec in specs]
    if not all(isinstance(text, str) for text in (*texts, *names)) or len(set(names)) < len(names):
        raise ValueError("names of fields that are not distinct texts")
    for spec in specs:
        if type(spec["width"]) is not int or not _FITS[spec["kind"]](spec, spec["width"]):
            raise ValueError(f"a field {spec['name']!r} that is not what its kind is made of")


def _is_row(values: Any, width: int) -> bool:
    """Whether it is an array of so many finite numbers."""
    return values.shape == (width,) and values.dtype.kind == "f" and bool(np.isfinite(values).all())


def _fits_numeric(spec: dict[str, Any], width: int) -> bool:
    knots = spec["knots"]
    return _is_row(knots, width) and bool((np.diff(knots) > 0).all()) and isinstance(spec["dates"], bool)


def _fits_labels(spec: dict[str, Any], width: int) -> bool:
    _check_labels(spec["categories"])
    frequent = spec["frequent"]
    inside = frequent.ndim == 1 and frequent.dtype.kind == "i" and bool(((frequent >= 0) & (frequent < width)).all())
    return len(spec["categories"]["ids"]) == width and inside


def _fits_text(spec: dict[str, Any], width: int) -> bool:
    terms = spec["terms"]
    return _is_row(spec["idf"], width) and len(terms) == width and all(isinstance(term, str) for term in terms)


def _fits_vector(spec: dict[str, Any], width: int) -> bool:
    return _is_row(spec["mean"], width) and isinstance(spec["scale"], float) and 0 < spec["scale"] < np.inf


_FITS: dict[str, Callable[[dict[str, Any], int], bool]] = {
    "numeric": _fits_numeric,
    "categorical": _fits_labels,
    "multi_hot": _fits_labels,
    "text": _fits_text,
    "vector": _fits_vector,
}
