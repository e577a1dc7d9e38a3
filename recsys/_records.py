"""Single entities as Python has them: their labels, and their features as dicts. Imports NumPy alone.

What `vocabulary` and `features` do for whole columns, with pandas, is done here for the few users of a request, with
the same outcome, so that a process that only serves starts in a moment.
"""

from __future__ import annotations

import math
import numbers
import re
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from recsys.exceptions import InvalidInputError, InvalidTypeError, PersistenceError, did_you_mean, examples

__all__ = ["Labels", "PATHS", "RecordEncoder", "hats", "is_list", "is_missing", "read_k", "tagged", "untagged"]

Codes: TypeAlias = npt.NDArray[np.int64]
Floats: TypeAlias = npt.NDArray[np.float32]
Spec: TypeAlias = dict[str, Any]

# How a user is answered: from fitted interactions, from new ones, from features, or, where none is known, by the prior.
PATHS = ("hot", "few-shot", "warm", "cold")

# Labels that JSON does not tell apart by itself: tag -> type, to JSON, from JSON.
_FORMS: dict[str, tuple[type, Callable[[Any], Any], Callable[[Any], Any]]] = {
    "none": (type(None), lambda label: label, lambda value: value),
    "bool": (bool, bool, bool),
    "int": (int, int, int),
    "float": (float, float, float),
    "str": (str, str, str),
    "bytes": (bytes, bytes.hex, bytes.fromhex),
    "uuid": (uuid.UUID, str, uuid.UUID),
    "decimal": (Decimal, str, Decimal),
    "tuple": (tuple, lambda label: [tagged(part) for part in label], lambda parts: tuple(map(untagged, parts))),
}
_TAGS = {form[0]: tag for tag, form in _FORMS.items()}

# What tables have in a column of their own.
_IDS = ("user_id", "item_id")

# The words of scikit-learn's CountVectorizer.
_WORD = re.compile(r"(?u)\b\w\w+\b")


def tagged(label: Any) -> list[Any]:
    """A label with the name of its type, as JSON."""
    if isinstance(label, np.generic) and label.dtype.kind in "biufSU":
        label = label.item()
    tag = _TAGS.get(type(label))
    if tag is None:
        raise PersistenceError(
            f"Labels of type {type(label).__name__} ({label!r}) cannot be stored; expected numbers, strings, bytes, "
            f"booleans, UUIDs, decimals, tuples of these, or a column of dates: convert them."
        )
    return [tag, _FORMS[tag][1](label)]


def untagged(pair: list[Any]) -> Any:
    """The inverse of `tagged`."""
    tag, value = pair
    return _FORMS[tag][2](value)


def read_k(k: Any) -> int:
    """Check the number of items asked for."""
    if isinstance(k, bool) or not isinstance(k, numbers.Integral):
        raise InvalidTypeError(f"`k` is {k!r}; expected a whole number of items, at least 1: pass 10, say.")
    if k < 1:
        raise InvalidInputError(f"`k` is {k}; expected at least 1: ask for one item or more.")
    return int(k)


def is_missing(value: Any) -> bool:
    """Whether a single value is None, NaN, NaT or what pandas, which may not be imported, calls NA."""
    if value is None:
        return True
    if isinstance(value, Decimal):
        # A signalling one cannot be compared.
        return value.is_nan()
    if isinstance(value, (float, np.number, datetime, np.datetime64)):
        return bool(value != value)
    return type(value).__name__ == "NAType"


def is_list(value: Any) -> bool:
    """Whether a value is a list or the like of several, text not included."""
    return isinstance(value, (list, tuple, set, frozenset)) or (isinstance(value, np.ndarray) and value.ndim > 0)


class Labels:
    """A `Vocabulary` without pandas.

    Parameters
    ----------
    state : dict
        From `Vocabulary.to_state`.

    Raises
    ------
    PersistenceError
        If the labels are dates, which come in more types than are told apart here.

    Examples
    --------
    >>> items = Labels({"form": "text", "ids": ["tea", "milk"]})
    >>> items.encode(["milk", "salt"]).tolist(), items.decode(np.array([0]))
    ([1, -1], ['tea'])
    """

    def __init__(self, state: dict[str, Any]) -> None:
        form, ids = state["form"], state["ids"]
        if form not in ("numbers", "text", "tagged"):
            raise PersistenceError("Labels that are dates cannot be exported; expected numbers or text: convert them.")
        self._ids: Any = [untagged(pair) for pair in ids] if form == "tagged" else ids
        self._has_bools = form == "numbers" and ids.dtype == bool

    def __len__(self) -> int:
        return len(self._ids)

    @cached_property
    def _codes(self) -> dict[Any, int]:
        return {label: code for code, label in enumerate(self.decode(np.arange(len(self))))}

    def encode(self, labels: Collection[Any]) -> Codes:
        """Codes of labels, (n,); -1 where one is unknown."""
        known = self._codes.get
        codes = np.fromiter((known(label, -1) for label in labels), dtype=np.int64, count=len(labels))
        if isinstance(self._ids, np.ndarray):
            # To Python, True is 1.
            odd = [isinstance(label, (bool, np.bool_)) != self._has_bools for label in labels]
            codes[np.array(odd, dtype=bool)] = -1
        return codes

    def decode(self, codes: Codes) -> list[Any]:
        """Labels of codes."""
        if isinstance(self._ids, np.ndarray):
            found: list[Any] = self._ids[codes].tolist()
            return found
        return [self._ids[code] for code in codes.tolist()]

    def mismatch(self, labels: Sequence[Any]) -> str:
        """A hint for errors, where labels are of another kind than those known here; else ""."""
        if not len(self) or not len(labels):
            return ""
        known = self.decode(np.zeros(1, dtype=np.int64))[0]
        mine, theirs = _word_for(known), _word_for(labels[0])
        if not mine or not theirs or mine == theirs:
            return ""
        return (
            f" They are {theirs} ({labels[0]!r}), but the known ones are {mine} ({known!r}): to mean those, convert "
            f"one to the other's type."
        )


def _word_for(label: Any) -> str:
    words: tuple[tuple[Any, str], ...] = (
        ((bool, np.bool_), "booleans"),
        ((int, float, Decimal, np.number), "numbers"),
        (str, "text"),
        (bytes, "bytes"),
        ((date, np.datetime64), "dates"),
    )
    return next((word for types, word in words if isinstance(label, types)), "")


def hats(knots: npt.NDArray[np.float64], x: npt.NDArray[np.float64]) -> tuple[Codes, Floats]:
    """Piecewise linear hat functions: the two knots around each value, and how near each of them is.

    Parameters
    ----------
    knots : ndarray of shape (k,), float64
        Ascending, one or more.
    x : ndarray of shape (n,), float64
        Values; those beyond the knots count as the nearest.

    Returns
    -------
    columns : ndarray of shape (2 n,), int64
        The knot on the left of each value, and then the knot on the right of each.
    weights : ndarray of shape (2 n,), float32
        The two of a value sum to 1.

    Examples
    --------
    >>> hats(np.array([0.0, 10.0, 20.0]), np.array([12.5]))
    (array([1, 2]), array([0.75, 0.25], dtype=float32))
    """
    x = np.clip(x, knots[0], knots[-1])
    left = np.clip(np.searchsorted(knots, x, side="right") - 1, 0, max(len(knots) - 2, 0))
    right = np.minimum(left + 1, len(knots) - 1)
    # Halves, because the difference of two finite numbers may not be finite.
    gap = knots[right] / 2 - knots[left] / 2
    weight = np.divide(x / 2 - knots[left] / 2, gap, out=np.zeros_like(x), where=gap > 0)
    return np.concatenate([left, right]), np.concatenate([1 - weight, weight]).astype(np.float32)


class RecordEncoder:
    """A `FeatureEncoder` of single dicts.

    Parameters
    ----------
    state : dict
        That of a `FeatureEncoder`, in whose specs the state of a vocabulary stands for it.

    Examples
    --------
    >>> age = {"name": "age", "kind": "numeric", "width": 2, "knots": np.array([20.0, 40.0]), "dates": False}
    >>> encoder = RecordEncoder({"specs": [age], "sep": "|", "ignored": []})
    >>> encoder.encode({"age": 25}, "`user_features`")
    (array([0, 1]), array([0.75, 0.25], dtype=float32))
    """

    def __init__(self, state: dict[str, Any]) -> None:
        self.sep, self.ignored = state["sep"], state["ignored"]
        self.specs = {spec["name"]: _with_lookups(spec) for spec in state["specs"]}
        self.starts = np.cumsum([0, *(spec["width"] for spec in state["specs"])]).tolist()

    def encode(self, record: Any, argument: str) -> tuple[Codes, Floats]:
        """The entries of an entity.

        Parameters
        ----------
        record : mapping of str to any
            A value for each field; what is None, or not there, is missing.
        argument : str
            What to call it in an error.

        Returns
        -------
        columns : ndarray of shape (n_entries,), int64
            Ascending.
        values : ndarray of shape (n_entries,), float32

        Raises
        ------
        InvalidInputError
            If a field is unknown or a value is not what its field holds.
        """
        if not isinstance(record, Mapping):
            raise InvalidTypeError(f"{argument} is {_shown(record)}; expected a dict of fields and values.")
        for name in record:
            if name not in self.specs and name not in self.ignored:
                hint = "The id is the key: leave it out here." if name in _IDS else did_you_mean(str(name), self.specs)
                raise InvalidInputError(f"{argument} has the unknown field {_shown(name)}. {hint}")
        columns, values = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.float32)]
        for start, (name, spec) in zip(self.starts, self.specs.items(), strict=False):
            value = record.get(name)
            if not is_missing(value) and spec["width"]:
                found, weights = _ENCODE[spec["kind"]](value, spec, self.sep, f"{name!r} of {argument}")
                columns.append(start + found)
                values.append(weights)
        return np.concatenate(columns), np.concatenate(values)

    def fields(self) -> dict[str, dict[str, Any]]:
        """The kind of each field, and what a form needs; see `recsys.retrieval.Bundle.user_fields`."""
        return {name: _form(spec) for name, spec in self.specs.items()}

    def decode(self, columns: Codes, values: Floats) -> dict[str, Any]:
        """The fields of an entity, as far as its entries tell them: neither words nor vectors.

        Parameters
        ----------
        columns : ndarray of shape (n_entries,), int64
            Ascending.
        values : ndarray of shape (n_entries,), float32

        Returns
        -------
        dict
            Field to value; what is missing is not there.
        """
        record: dict[str, Any] = {}
        for start, (name, spec) in zip(self.starts, self.specs.items(), strict=False):
            first, last = np.searchsorted(columns, [start, start + spec["width"]])
            own, weights = columns[first:last] - start, values[first:last].astype(np.float64)
            if not len(own):
                continue
            if spec["kind"] == "numeric":
                number = float(spec["knots"][own] @ weights / weights.sum())
                record[name] = _iso(number) if spec["dates"] else number
            elif spec["kind"] in ("categorical", "multi_hot"):
                labels = spec["categories"].decode(own)
                record[name] = labels[0] if spec["kind"] == "categorical" else labels
        return record


def _form(spec: Spec) -> dict[str, Any]:
    kind = spec["kind"].replace("_", "-")
    if kind == "numeric":
        ends = spec["knots"][[0, -1]].tolist() if len(spec["knots"]) else [None, None]
        if spec["dates"]:
            kind, ends = "date", [None if end is None else _iso(end) for end in ends]
        return {"kind": kind, "low": ends[0], "high": ends[1]}
    if "categories" in spec:
        return {"kind": kind, "values": spec["categories"].decode(spec["frequent"])}
    return {"kind": kind, "width": spec["width"]} if kind == "vector" else {"kind": kind}


def _iso(seconds: float) -> str:
    return (datetime(1970, 1, 1) + timedelta(seconds=seconds)).isoformat()


def _with_lookups(spec: Spec) -> Spec:
    """A spec whose labels are found fast."""
    if spec["kind"] in ("categorical", "multi_hot"):
        return {**spec, "categories": Labels(spec["categories"])}
    if spec["kind"] == "text":
        return {**spec, "column_of": {term: column for column, term in enumerate(spec["terms"])}}
    return spec


def _encode_numeric(value: Any, spec: Spec, sep: str, where: str) -> tuple[Codes, Floats]:
    is_date = isinstance(value, (date, np.datetime64))
    if isinstance(value, str) and spec["dates"]:
        value, is_date = _from_iso(value, where), True
    if is_date != spec["dates"]:
        expected = "a date" if spec["dates"] else "a number"
        raise InvalidInputError(f"{where} is {_shown(value)}; expected {expected}, as in fit: convert it.")
    try:
        if isinstance(value, (complex, np.complexfloating)):
            raise TypeError("complex numbers have no order")
        number = (
            _seconds(value) if isinstance(value, (date, timedelta, np.datetime64, np.timedelta64)) else float(value)
        )
    except (OverflowError, TypeError, ValueError) as error:
        raise InvalidInputError(f"{where} is {_shown(value)}; expected a number or None ({error}).") from error
    # What is missing was left out before: this is text that says so.
    if not math.isfinite(number):
        raise InvalidInputError(f"{where} is {_shown(value)}; expected a finite number, or None for what is missing.")
    columns, weights = hats(spec["knots"], np.array([number]))
    return columns[weights > 0], weights[weights > 0]


def _from_iso(text: str, where: str) -> datetime:
    try:
        return datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError as error:
        raise InvalidInputError(f"{where} is {_shown(text)}; expected a date, as ISO text.") from error


def _seconds(value: Any) -> float:
    """Seconds of a duration, or since 1970 in UTC."""
    if isinstance(value, np.datetime64):
        value = value - np.datetime64(0, "s")
    if isinstance(value, np.timedelta64):
        return float(value / np.timedelta64(1, "s"))
    if isinstance(value, date):
        if not isinstance(value, datetime):
            value = datetime(value.year, value.month, value.day)
        if value.tzinfo is not None:
            value = value.astimezone(timezone.utc).replace(tzinfo=None)
        value = value - datetime(1970, 1, 1)
    return float(value.total_seconds())


def _encode_label(value: Any, spec: Spec, sep: str, where: str) -> tuple[Codes, Floats]:
    if is_list(value):
        raise InvalidInputError(f"{where} is {_shown(value)}; expected a single label, a number or a string.")
    return _encode_codes([value], spec, where)


def _encode_members(value: Any, spec: Spec, sep: str, where: str) -> tuple[Codes, Floats]:
    if isinstance(value, str):
        members = [part.strip() for part in (value.split(sep) if sep else [value])]
        members = [part for part in members if part]
    else:
        members = [part for part in (value if is_list(value) else [value]) if not is_missing(part)]
    return _encode_codes(members, spec, where)


def _encode_codes(members: list[Any], spec: Spec, where: str) -> tuple[Codes, Floats]:
    try:
        codes = spec["categories"].encode(members)
    except TypeError as error:
        raise InvalidInputError(
            f"{where} is {_shown(members)}; expected labels: numbers, strings or the like ({error})."
        ) from error
    if len(codes) and (codes < 0).all() and (hint := spec["categories"].mismatch(members)):
        raise InvalidInputError(f"{where} is {_shown(members)}, which holds none of the categories of fit.{hint}")
    # A member that is named twice counts once.
    columns = np.unique(codes[codes >= 0])
    return columns, np.full(len(columns), 1 / np.sqrt(max(len(columns), 1)), dtype=np.float32)


def _encode_text(value: Any, spec: Spec, sep: str, where: str) -> tuple[Codes, Floats]:
    if not isinstance(value, str):
        raise InvalidInputError(f"{where} is {_shown(value)}; expected a string or None: convert it.")
    column_of = spec["column_of"]
    columns = np.array(
        sorted({column_of[word] for word in _WORD.findall(value.lower()) if word in column_of}), dtype=np.int64
    )
    idf = spec["idf"][columns]
    # Summed as for whole columns, one by one.
    squares = np.bincount(np.zeros_like(columns), idf.astype(np.float64) ** 2, minlength=1)
    return columns, (idf / np.sqrt(squares)).astype(np.float32) if len(columns) else idf


def _encode_vector(value: Any, spec: Spec, sep: str, where: str) -> tuple[Codes, Floats]:
    if not isinstance(value, (list, tuple, np.ndarray)):
        raise InvalidInputError(f"{where} is {_shown(value)}; expected a list of {spec['width']} numbers, or None.")
    try:
        dense = np.array(value, dtype=np.float64)
    except (OverflowError, TypeError, ValueError) as error:
        raise InvalidInputError(f"{where} is {_shown(value)}; expected flat numbers ({error}).") from error
    if dense.shape != (spec["width"],):
        raise InvalidInputError(f"{where} is of shape {dense.shape}; expected ({spec['width']},), as in fit.")
    scaled = (dense - spec["mean"]) / spec["scale"]
    if not (np.maximum(np.abs(dense), np.abs(scaled)) <= np.finfo(np.float32).max).all():
        raise InvalidInputError(
            f"{where} holds NaN or infinite values, or such as single precision cannot hold; expected finite numbers, "
            f"or None."
        )
    return np.arange(spec["width"]), scaled.astype(np.float32)


_ENCODE: dict[str, Callable[[Any, Spec, str, str], tuple[Codes, Floats]]] = {
    "numeric": _encode_numeric,
    "categorical": _encode_label,
    "multi_hot": _encode_members,
    "text": _encode_text,
    "vector": _encode_vector,
}


def _shown(value: Any) -> str:
    """A value in an error: short, whatever a request holds."""
    text = examples([value])
    return text if len(text) <= 60 else f"{text[:57]}..."
