"""Reads the arguments of an index: choices, vectors, labels of items that are there, restrictions."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from recsys._requests import allowed_items, excluded_items
from recsys.exceptions import InvalidInputError, InvalidTypeError, examples
from recsys.retrieval._labels import Labels
from recsys.retrieval._segments import Bools, Codes, Floats, Pairs

__all__ = ["as_vectors", "check_choice", "places_of", "read_restrictions", "read_target"]


def check_choice(name: str, value: Any, choices: tuple[Any, ...]) -> None:
    if not (value is None or isinstance(value, str)) or value not in choices:
        raise InvalidInputError(f"`{name}` is {value!r}; expected one of {examples(choices, 4)}.")


def read_target(value: Any) -> float:
    is_number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not is_number or not 0 < value <= 1:
        raise InvalidInputError(f"`recall_target` is {value!r}; expected a share above 0 and up to 1, such as 0.99.")
    return float(value)


def places_of(labels: Labels, ids: pd.Index) -> Codes:
    places = labels.encode(ids)
    if len(unknown := ids[places < 0]):
        raise InvalidInputError(
            f"`ids` names {len(unknown)} items that are not in the index: {examples(unknown)}; expected known ones: "
            f"use `add` for those.{labels.mismatch(unknown)}"
        )
    return places


def read_restrictions(
    candidates: Any, exclude: Any, labels: Labels, queries: pd.Index
) -> tuple[Bools | None, Pairs | None]:
    """The places that may be found, and those that each query may not."""
    if isinstance(candidates, pd.DataFrame):
        raise InvalidTypeError("`candidates` is a DataFrame; expected a list of item ids: pass one column of it.")
    allowed, _ = allowed_items(candidates, labels, queries)
    forbidden, excluded = excluded_items(exclude, labels, queries)
    if forbidden is not None:
        allowed = ~forbidden if allowed is None else allowed & ~forbidden
    return allowed, None if excluded is None else Pairs(excluded.indptr, excluded.indices)


def as_vectors(values: Any, n_dimensions: int | None = None, name: str = "vectors", *, unit: bool = False) -> Floats:
    """Check vectors and return them as float32 in C order; the same array where it is that already.

    With `unit`, a copy scaled to length 1, before it is rounded; zeros stay.
    """
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        raise InvalidInputError(f"`{name}` is an array with masked values; expected numbers everywhere: fill them.")
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise InvalidInputError(f"`{name}` is no array: {error}; expected rows of the same length.") from error
    if array.dtype.kind not in "iuf":
        raise InvalidTypeError(f"`{name}` is of dtype {array.dtype}; expected a dense array of real numbers.")
    if array.ndim != 2:
        raise InvalidInputError(
            f"`{name}` has shape {array.shape}; expected (n, n_dimensions): pass a single vector v as [v]."
        )
    if n_dimensions is not None and array.shape[1] != n_dimensions:
        raise InvalidInputError(
            f"`{name}` has {array.shape[1]} dimensions; expected {n_dimensions}, like the vectors in the index: pass "
            f"vectors of the model that was indexed."
        )
    if not array.shape[1]:
        raise InvalidInputError(f"`{name}` has shape {array.shape}; expected at least one dimension.")
    if unit:
        floats = _unit_rows(array)
    elif array.dtype == np.float32:
        floats = np.ascontiguousarray(array)
    else:
        with np.errstate(over="ignore"):
            floats = np.ascontiguousarray(array, dtype=np.float32)
    if not np.isfinite(floats).all():
        bad = np.flatnonzero(~np.isfinite(floats).all(axis=1))
        raise InvalidInputError(
            f"`{name}` holds NaN or values beyond float32 in {len(bad)} rows: {examples(bad)}; expected finite numbers"
            f": if they are a model's, it has diverged, fit it again."
        )
    return floats


def _unit_rows(vectors: npt.NDArray[Any]) -> Floats:
    # The largest number first, as squares of very large or small ones would be none.
    largest = np.abs(vectors).max(axis=1, keepdims=True).astype(np.float64)
    with np.errstate(invalid="ignore"):
        scaled = vectors / np.where(largest > 0, largest, 1)
        lengths = np.sqrt(np.einsum("nd,nd->n", scaled, scaled))[:, None]
        return np.ascontiguousarray(scaled / np.where(lengths > 0, lengths, 1), dtype=np.float32)
