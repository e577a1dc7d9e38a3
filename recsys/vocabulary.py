"""Ids and their codes.

Outside, users and items are labels of any hashable kind; inside, they are the codes 0, 1, 2, ...
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from recsys._packing import persistent
from recsys._records import tagged, untagged
from recsys.exceptions import InvalidInputError, InvalidTypeError, examples

__all__ = ["Vocabulary", "as_ids"]

Codes = npt.NDArray[np.int64]

# What pandas infers of labels -> the word for it in an error; what is not listed is not comparable.
_WORDS = {
    "integer": "numbers",
    "floating": "numbers",
    "mixed-integer-float": "numbers",
    "decimal": "numbers",
    "string": "text",
    "bytes": "bytes",
    "boolean": "booleans",
    "datetime64": "dates",
    "datetime": "dates",
    "date": "dates",
}

# The dtype that holds every number of a kind, pandas' own dtypes included.
_WIDEST = {"b": np.bool_, "i": np.int64, "u": np.uint64, "f": np.float64}


def as_ids(values: Any, name: str = "ids") -> pd.Index:
    """Check a one-dimensional collection of ids and return it as an Index of its own dtype.

    Parameters
    ----------
    values : array-like of shape (n,)
        Labels: integers, strings or any hashable. Categories come out with the dtype of the categories.
    name : str, default="ids"
        What to call the argument in an error.

    Returns
    -------
    pandas.Index of shape (n,)

    Raises
    ------
    InvalidTypeError
        If `values` is a single label or a frame, or holds what cannot be hashed.
    InvalidInputError
        If it is not one-dimensional or holds nulls.

    Examples
    --------
    >>> as_ids(["b", "a", "b"]).tolist()
    ['b', 'a', 'b']
    """
    if isinstance(values, Vocabulary):
        return values.ids
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise InvalidTypeError(f"`{name}` is the single value {values!r}; expected a list of ids: pass [{values!r}].")
    if isinstance(values, (pd.DataFrame, Mapping)):
        raise InvalidTypeError(
            f"`{name}` is a {type(values).__name__}; expected one id after the other: pass a list or one column."
        )
    if isinstance(values, np.ndarray) and values.ndim != 1:
        raise InvalidInputError(f"`{name}` has {values.ndim} dimensions; expected one id after the other.")
    try:
        index = _to_index(values)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise InvalidTypeError(
            f"`{name}` holds what cannot be ids: {error}; expected a number, a string or another hashable in every row."
        ) from error
    null = np.asarray(index.isna())
    if null.any():
        raise InvalidInputError(
            f"`{name}` has {int(null.sum())} null ids (at positions {examples(np.flatnonzero(null))}); expected a "
            f"label in every row: drop these rows or give them a label."
        )
    if index.dtype == object:
        try:
            pd.factorize(index)
        except TypeError as error:
            raise InvalidTypeError(
                f"`{name}` holds ids that cannot be hashed: {error}; expected numbers, strings, tuples or the like."
            ) from error
    return index


def _to_index(values: Iterable[Any]) -> pd.Index:
    if isinstance(values, pd.MultiIndex):
        return values.to_flat_index()
    if isinstance(values, (pd.Series, pd.Index)):
        if values.dtype == object:
            # Without its dtype, pandas makes text of a column of objects.
            return pd.Index(values.array, dtype=object, tupleize_cols=False)
        values = values.array
    if isinstance(values, pd.Categorical):
        dtype = object if values.isna().any() else values.categories.dtype
        return pd.Index(values, dtype=dtype, tupleize_cols=False)
    arrays = (np.ndarray, pd.api.extensions.ExtensionArray)
    return pd.Index(values if isinstance(values, arrays) else list(values), tupleize_cols=False)


@persistent
class Vocabulary:
    """The labels of users or items, in a fixed order, and their codes.

    A vocabulary never changes; `extend` returns a longer one in which known labels keep their codes.

    Parameters
    ----------
    ids : array-like of shape (n,), default=()
        Distinct labels; the i-th gets code i.

    Attributes
    ----------
    ids : pandas.Index of shape (n,)
        The labels, with the dtype they came with.

    Raises
    ------
    InvalidInputError
        If a label is null or comes twice.

    Examples
    --------
    >>> items = Vocabulary(["tea", "milk"])
    >>> items.encode(["milk", "salt"])
    array([ 1, -1])
    >>> items.extend(["salt", "tea"]).ids.tolist()
    ['tea', 'milk', 'salt']
    """

    def __init__(self, ids: Any = ()) -> None:
        index = as_ids(ids)
        # An index cannot change, but the array that it was made of can.
        self.ids = index if isinstance(ids, (pd.Index, Vocabulary)) else index.copy(deep=True)
        if not self.ids.is_unique:
            twice = self.ids[self.ids.duplicated()].unique()
            raise InvalidInputError(
                f"`ids` holds {len(twice)} labels more than once: {examples(twice)}; expected each once: drop the rest."
            )

    @classmethod
    def from_values(cls, values: Any, name: str = "ids") -> tuple[Vocabulary, Codes]:
        """Learn the labels of a column, in order of first appearance, and encode it.

        Parameters
        ----------
        values : array-like of shape (n,)
            Labels, in which repetitions are welcome.
        name : str, default="ids"
            What to call the argument in an error.

        Returns
        -------
        vocabulary : Vocabulary
        codes : ndarray of shape (n,), int64

        Examples
        --------
        >>> vocabulary, codes = Vocabulary.from_values(["b", "a", "b"])
        >>> codes
        array([0, 1, 0])
        """
        codes, uniques = pd.factorize(as_ids(values, name))
        return cls(uniques), codes.astype(np.int64, copy=False)

    def encode(self, ids: Any, name: str = "ids") -> Codes:
        """Codes of labels; -1 where a label is unknown.

        Parameters
        ----------
        ids : array-like of shape (n,)
        name : str, default="ids"
            What to call the argument in an error.

        Returns
        -------
        ndarray of shape (n,), int64
        """
        return self.ids.get_indexer(as_ids(ids, name)).astype(np.int64, copy=False)

    def decode(self, codes: npt.ArrayLike) -> pd.Index:
        """Labels of codes, with the dtype they came in with.

        Parameters
        ----------
        codes : array-like of int, shape (n,)
            Codes from 0 to ``len(self) - 1``.

        Returns
        -------
        pandas.Index of shape (n,)

        Raises
        ------
        InvalidInputError
            If a code stands for no label.
        """
        array = np.asarray(codes, dtype=np.int64)
        outside = (array < 0) | (array >= len(self))
        if outside.any():
            raise InvalidInputError(
                f"`codes` holds {examples(array[outside])}; expected codes from 0 to {len(self) - 1}: drop the others."
            )
        return self.ids.take(array)

    def extend(self, ids: Any) -> Vocabulary:
        """A vocabulary that also knows `ids`; those unknown so far get the next codes, in order.

        New labels take on the dtype of the known ones wherever that loses nothing; labels of several types that no
        dtype holds without loss become one of objects.

        Parameters
        ----------
        ids : array-like of shape (n,)
            Labels, known or not, repeated or not.

        Returns
        -------
        Vocabulary
        """
        index = as_ids(ids)
        fresh = index[self.ids.get_indexer(index) < 0].unique()
        if not len(fresh):
            return self
        return Vocabulary(_joined(self.ids, fresh) if len(self.ids) else fresh)

    def cast(self, ids: pd.Index) -> pd.Index:
        """Labels with the dtype of those known here, where that loses nothing, as `extend` would take them up.

        Parameters
        ----------
        ids : pandas.Index of shape (n,)

        Returns
        -------
        pandas.Index of shape (n,)

        Examples
        --------
        >>> Vocabulary([1, 2]).cast(pd.Index([3.0]))
        Index([3], dtype='int64')
        """
        return _joined(self.ids[:0], ids)

    def mismatch(self, ids: pd.Index) -> str:
        """A hint for errors, where `ids` are of another kind than the labels known here; else "".

        Parameters
        ----------
        ids : pandas.Index

        Returns
        -------
        str

        Examples
        --------
        >>> Vocabulary([1, 2]).mismatch(pd.Index(["1"]))
        " They are text ('1'), but the known ones are numbers (1): to mean those, convert one to the other's type."
        """
        mine, theirs = (_WORDS.get(index.infer_objects().inferred_type, "") for index in (self.ids, ids))
        if not len(self.ids) or not len(ids) or not mine or not theirs or mine == theirs:
            return ""
        return (
            f" They are {theirs} ({examples(ids[:1])}), but the known ones are {mine} "
            f"({examples(self.ids[:1])}): to mean those, convert one to the other's type."
        )

    def __len__(self) -> int:
        return len(self.ids)

    def __contains__(self, label: Hashable) -> bool:
        return label in self.ids

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self.ids.dtype == other.ids.dtype and self.ids.equals(other.ids)

    def __repr__(self) -> str:
        return f"Vocabulary({len(self)} ids: {examples(self.ids)})" if len(self) else "Vocabulary()"

    def to_state(self) -> dict[str, Any]:
        """What `persistence` stores: numbers and dates as an array, text as a list, other labels tagged by type."""
        ids, dtype = self.ids, str(self.ids.dtype)
        if isinstance(ids, (pd.DatetimeIndex, pd.TimedeltaIndex)):
            return {"dtype": dtype, "form": f"{ids.dtype.kind}8[{ids.unit}]", "ids": ids.asi8}
        if ids.dtype.kind in _WIDEST:
            return {"dtype": dtype, "form": "numbers", "ids": np.asarray(ids, dtype=_WIDEST[ids.dtype.kind])}
        labels = ids.tolist()
        if all(type(label) is str for label in labels):
            return {"dtype": dtype, "form": "text", "ids": labels}
        return {"dtype": dtype, "form": "tagged", "ids": [tagged(label) for label in labels]}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Vocabulary:
        """The inverse of `to_state`."""
        form, ids, dtype = state["form"], state["ids"], pd.api.types.pandas_dtype(state["dtype"])
        if form in ("text", "tagged"):
            labels = ids if form == "text" else [untagged(label) for label in ids]
            index = pd.Index(labels, dtype=object, tupleize_cols=False)
        elif form == "numbers":
            index = pd.Index(ids)
        else:
            index = pd.Index(ids.view(form))
            if isinstance(dtype, pd.DatetimeTZDtype):
                return cls(pd.DatetimeIndex(index).tz_localize("UTC").tz_convert(dtype.tz))
        return cls(index if index.dtype == dtype else index.astype(dtype))


def _joined(known: pd.Index, fresh: pd.Index) -> pd.Index:
    """Known and fresh labels, all with the dtype of the known ones where it can hold both."""
    mine, theirs = known.dtype.kind, fresh.dtype.kind
    if mine in "iuf" and theirs in "iuf":
        # Nullable types refuse what they cannot hold, NumPy's turn it into something else.
        with np.errstate(invalid="ignore"), suppress(TypeError, ValueError):
            cast = fresh.astype(known.dtype)
            if bool((cast == fresh).all()) and bool((cast.astype(fresh.dtype) == fresh).all()):
                return known.append(cast)
    elif isinstance(known.dtype, pd.StringDtype) and fresh.inferred_type == "string":
        return known.append(fresh.astype(known.dtype))
    if mine == theirs and mine in "iufbmM":
        return known.append(fresh)
    labels = np.concatenate([known.astype(object).to_numpy(), fresh.astype(object).to_numpy()])
    return pd.Index(labels, dtype=object, tupleize_cols=False)
