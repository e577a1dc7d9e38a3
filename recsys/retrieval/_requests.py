"""Reads the requests to a bundle: plain dicts and lists, checked, as entries. Imports NumPy alone.

Entries are places and what is there: of a history the catalogue's places and weights, of features columns and values.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from recsys._records import RecordEncoder, is_missing
from recsys.exceptions import DataWarning, InvalidInputError, InvalidTypeError, examples
from recsys.retrieval._catalogue import Catalogue, key_of
from recsys.retrieval._segments import Bools, Codes, Floats

__all__ = [
    "Entries",
    "Label",
    "NOTHING",
    "RequestReader",
    "SparseRows",
    "padded",
    "read_users",
    "summed",
    "told_of",
]

Label: TypeAlias = Any
Entries: TypeAlias = tuple[Codes, Floats]

# What Python takes for a list of characters or numbers.
_SINGLE = (str, bytes, bytearray, memoryview)

NOTHING: Entries = (np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32))


class SparseRows:
    """Rows of entries, as SciPy's CSR has them; ValueError where they do not fit the shape."""

    def __init__(self, state: dict[str, Any], shape: tuple[int, int]) -> None:
        self.indptr, self.indices, self.data = state["indptr"], state["indices"], state["data"]
        self.shape = shape
        width, ends = shape[1], self.indptr[[0, -1]].tolist()
        inside = (
            len(self.indptr) == shape[0] + 1
            and ends == [0, len(self.indices)]
            and self.indices.shape == self.data.shape == (ends[1],)
            and (self.indptr.dtype.kind, self.indices.dtype.kind, self.data.dtype) == ("i", "i", np.float32)
            and bool((np.diff(self.indptr) >= 0).all() and np.isfinite(self.data).all())
        )
        if not inside or (len(self.indices) and not 0 <= self.indices.min() <= self.indices.max() < width):
            raise ValueError("entries of users that are out of bounds")

    def row(self, code: int) -> Entries:
        """The entries of one row."""
        part = slice(int(self.indptr[code]), int(self.indptr[code + 1]))
        return self.indices[part].astype(np.int64), self.data[part]

    def padded(self, codes: Codes) -> Entries:
        """Rows side by side, as `recsys._asked.Rows` describes them."""
        lengths = np.diff(self.indptr)[codes]
        is_entry = np.arange(max(1, int(lengths.max(initial=0)))) < lengths[:, None]
        columns, values = np.full(is_entry.shape, -1, dtype=np.int64), np.zeros(is_entry.shape, dtype=np.float32)
        at = (self.indptr[codes].astype(np.int64)[:, None] + np.arange(is_entry.shape[1]))[is_entry]
        columns[is_entry], values[is_entry] = self.indices[at], self.data[at]
        return columns, values

    def positives(self) -> SparseRows:
        """The same without the entries that are not above 0."""
        kept = self.data > 0
        indptr = np.concatenate([[0], np.cumsum(kept)])[self.indptr]
        return SparseRows({"indptr": indptr, "indices": self.indices[kept], "data": self.data[kept]}, self.shape)

    def rows_with(self, column: int) -> Codes:
        """The rows that have an entry there."""
        return np.searchsorted(self.indptr, np.flatnonzero(self.indices == column), side="right") - 1


class RequestReader:
    """Reads what a request tells of users and items.

    Parameters
    ----------
    items : Catalogue
    features, context : RecordEncoder or None
        None where the model was fitted without.
    min_rating : float or None
        Ratings below it are no positives.
    """

    def __init__(
        self, items: Catalogue, features: RecordEncoder | None, context: RecordEncoder | None, min_rating: float | None
    ) -> None:
        self.items = items
        self._of_users, self._of_context = features, context
        self._min_rating = min_rating

    def features(self, given: Any, users: Sequence[Label]) -> dict[int, Entries]:
        """What is told of users, by their row."""
        if given is None:
            return {}
        if self._of_users is None:
            raise InvalidInputError(
                "`user_features` has features, but the model was fitted without; expected none: pass features to `fit` "
                "first."
            )
        told = told_of("user_features", given, users)
        return {row: self._of_users.encode(each, f"`user_features` of {users[row]!r}") for row, each in told.items()}

    def context(self, given: Any, n: int) -> list[Entries]:
        """The context of n users."""
        if given is None:
            return [NOTHING] * n
        if self._of_context is None:
            raise InvalidInputError(
                "`context` was given, but `X` had no context columns in fit; expected None: fit with them first."
            )
        if isinstance(given, Mapping):
            return [self._of_context.encode(given, "`context`")] * n
        if not isinstance(given, Sequence) or len(given) != n:
            raise InvalidInputError(
                f"`context` is of type {type(given).__name__}; expected a dict for all, or a list of one dict a user "
                f"({n})."
            )
        return [self._of_context.encode(each, "`context`") for each in given]

    def recent(self, given: Any, users: Sequence[Label]) -> dict[int, Entries]:
        """What users have interacted with, by their row, zeros where it was only seen."""
        if given is None:
            return {}
        recent = {}
        for row, items in told_of("interactions", given, users).items():
            codes, unknown = self._encode("interactions", items)
            if unknown:
                warnings.warn(
                    f"`interactions` names items that are not in the catalogue: {examples(unknown)}; they say nothing "
                    f"about their users.{self.items.mismatch(unknown)}",
                    DataWarning,
                    stacklevel=4,
                )
            weights = self._ratings(items) if isinstance(items, Mapping) else np.ones(len(codes), np.float32)
            recent[row] = summed((codes[codes >= 0], weights[codes >= 0]), NOTHING)
        return recent

    def _ratings(self, given: Mapping[Label, Any]) -> Floats:
        try:
            ratings = np.array([float(rating) for rating in given.values()], dtype=np.float64)
        except (OverflowError, TypeError, ValueError) as error:
            raise InvalidInputError(f"`interactions` must hold one finite number an item: {error}.") from error
        is_fine = np.abs(ratings) <= np.finfo(np.float32).max
        if not is_fine.all():
            raise InvalidInputError(
                f"`interactions` holds the rating {examples(ratings[~is_fine])}; expected finite numbers that single "
                f"precision holds."
            )
        weights = ratings.astype(np.float32)
        least = -np.inf if self._min_rating is None else np.float32(self._min_rating)
        return np.where((weights > 0) & (weights >= least), weights, np.float32(0))

    def _encode(self, argument: str, items: Any) -> tuple[Codes, list[Label]]:
        """Places of items, -1 where one is unknown, and those that are."""
        _refuse_frames(argument, items)
        if isinstance(items, _SINGLE) or not isinstance(items, (Collection, np.ndarray)):
            raise InvalidTypeError(f"`{argument}` holds the single value {items!r}; expected a list of item ids.")
        try:
            places = self.items.encode(items)
        except TypeError as error:
            raise InvalidTypeError(f"`{argument}` holds what cannot be ids: {error}; expected item ids.") from error
        unknown = [item for item, place in zip(items, places, strict=True) if place < 0] if (places < 0).any() else []
        if any(map(is_missing, unknown)):
            raise InvalidInputError(f"`{argument}` has a null id; expected a label for every item.")
        return places, unknown

    def places(self, argument: str, items: Any) -> Codes:
        """Places of items; unknown ones are left out, but for a slip."""
        codes, unknown = self._encode(argument, items)
        hint = self.items.mismatch(unknown)
        if len(unknown) == len(codes) > 0 and (hint or argument == "candidates"):
            raise InvalidInputError(
                f"`{argument}` names no item of the catalogue, but {examples(unknown)}; expected its items.{hint}"
            )
        if unknown and argument == "candidates":
            warnings.warn(
                f"`candidates` names {len(unknown)} items that are not in the catalogue: {examples(unknown)}; they "
                f"cannot be recommended.{hint}",
                DataWarning,
                stacklevel=4,
            )
        return np.unique(codes[codes >= 0])

    def allowed(self, candidates: Any, exclude: Any) -> Bools | None:
        """The places that may be found; None where all may."""
        if candidates is None and exclude is None:
            return None
        allowed = np.full(len(self.items), candidates is None)
        if candidates is not None:
            allowed[self.places("candidates", candidates)] = True
        if exclude is not None:
            allowed[self.places("exclude", exclude)] = False
        return allowed

    def known_items(self, argument: str, items: Any) -> tuple[list[Label], Codes]:
        """Items that must be there, and their places."""
        places, unknown = self._encode(argument, items)
        named = items.tolist() if isinstance(items, np.ndarray) else list(items)
        if unknown:
            raise InvalidInputError(
                f"`{argument}` names {len(unknown)} items that are not in the catalogue: {examples(unknown)}; expected "
                f"its items.{self.items.mismatch(unknown)}"
            )
        return named, places


def read_users(users: Any) -> list[Label]:
    """Check labels of users."""
    _refuse_frames("users", users)
    if isinstance(users, (*_SINGLE, Mapping)) or not isinstance(users, (Collection, np.ndarray)):
        raise InvalidTypeError(f"`users` is {users!r}; expected a list of labels: pass [{users!r}].")
    found = users.tolist() if isinstance(users, np.ndarray) else list(users)
    for place, user in enumerate(found):
        try:
            hash(user)
        except TypeError as error:
            raise InvalidTypeError(f"`users` holds what cannot be ids: {error}; expected labels.") from error
        if is_missing(user):
            raise InvalidInputError(f"`users` has a null id at position {place}; expected a label for everybody.")
    return found


def _refuse_frames(argument: str, labels: Any) -> None:
    """Refuse what has not one label after the other: a frame would list its columns."""
    if hasattr(labels, "columns") or getattr(labels, "ndim", 1) != 1:
        raise InvalidTypeError(
            f"`{argument}` holds a {type(labels).__name__} that is not one-dimensional; expected one id after the "
            f"other: pass a list or one column."
        )


def told_of(argument: str, given: Any, users: Sequence[Label]) -> dict[int, Any]:
    """What a dict tells of users, by their row; refused where it is no dict, or tells of none of them."""
    if not isinstance(given, Mapping):
        raise InvalidTypeError(f"`{argument}` is of type {type(given).__name__}; expected a dict with users for keys.")
    by_key = {key_of(user): told for user, told in given.items()}
    found = {row: by_key[key] for row, key in enumerate(map(key_of, users)) if key in by_key}
    if given and not found:
        raise InvalidInputError(
            f"`{argument}` has nothing of any user asked for (its users: {examples(given)}; asked: {examples(users)}); "
            f"expected theirs: pass None where there is none."
        )
    return found


def summed(entries: Entries, more: Entries) -> Entries:
    """The entries of two rows; where both have one, the sum. Ascending."""
    places, at = np.unique(np.concatenate([entries[0], more[0]]), return_inverse=True)
    values = np.bincount(at, np.concatenate([entries[1], more[1]]), minlength=len(places))
    return places, values.astype(np.float32)


def padded(rows: Sequence[Entries]) -> tuple[Codes, Floats]:
    """Rows of entries side by side, as `recsys._asked.Rows` describes them."""
    lengths = np.array([len(row[0]) for row in rows])
    # Of no length, products have no terms.
    shape = len(rows), max(1, int(lengths.max()))
    is_entry = np.arange(shape[1]) < lengths[:, None]
    columns, values = np.full(shape, -1, dtype=np.int64), np.zeros(shape, dtype=np.float32)
    columns[is_entry] = np.concatenate([row[0] for row in rows])
    values[is_entry] = np.concatenate([row[1] for row in rows])
    return columns, values
