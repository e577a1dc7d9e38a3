"""Metadata of items that join a bundle: from dicts to the table that filters look at, and back. Imports NumPy alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from recsys._records import is_list, is_missing
from recsys.exceptions import InvalidInputError, InvalidTypeError, did_you_mean, examples
from recsys.retrieval._catalogue import key_of
from recsys.retrieval.filters import Bools, Field, LabelField, OrderedField, Table, read_date, read_number

__all__ = ["SHOWN", "fields_of", "read_records", "records_of", "several"]

# Labels of a field that a form offers.
SHOWN = 200
# Whole numbers beyond this are not told apart by floats.
_LARGEST = 2**53


def read_records(given: Any, labels: Sequence[Any], like: Table) -> Table:
    """Read what is told of items.

    Parameters
    ----------
    given : dict of label to dict, or None
        Field to value; what is not there is missing.
    labels : sequence of labels
        Of the items, one a row.
    like : Table
        The fields that there are.

    Returns
    -------
    Table

    Raises
    ------
    InvalidInputError
        If it tells of other items, or of fields or values that there are not.
    """
    given = {} if given is None else given
    if not isinstance(given, Mapping):
        raise InvalidTypeError(f"`metadata` is of type {type(given).__name__}; expected a dict with items for keys.")
    given = {key_of(label): told for label, told in given.items()}
    strange = set(given) - set(map(key_of, labels))
    if strange:
        named = sorted((label for _, label in strange), key=repr)
        raise InvalidInputError(f"`metadata` tells of {examples(named)}; expected items that join.")
    records = [given.get(key_of(label), {}) for label in labels]
    for label, record in zip(labels, records, strict=True):
        if not isinstance(record, Mapping):
            raise InvalidTypeError(
                f"`metadata` of {examples([label])} is of type {type(record).__name__}; expected a dict."
            )
        if unknown := [name for name in record if name not in like.fields]:
            hint = did_you_mean(str(unknown[0]), like.fields) if like.fields else "They have none: export `metadata`."
            raise InvalidInputError(
                f"`metadata` of {examples([label])} has the unknown field {examples(unknown[:1])}. {hint}"
            )
    fields = {name: _column([each.get(name) for each in records], name, field) for name, field in like.fields.items()}
    return Table(fields, len(labels))


def _column(values: list[Any], name: str, like: Field) -> Field:
    if isinstance(like, LabelField):
        return _labels(values, name, like)
    read, missing, expected = (
        (read_date, np.datetime64("NaT"), "a date, as ISO text")
        if like.kind == "dates"
        else (read_number, np.nan, "a finite number")
    )
    found = []
    for value in values:
        one = missing if is_missing(value) else read(value)
        if one is None or (like.kind == "numbers" and abs(float(one)) > _LARGEST and float(one).is_integer()):
            raise _wrong(value, name, expected)
        found.append(one)
    return OrderedField(np.array(found, dtype=like.values.dtype))


def _labels(values: list[Any], name: str, like: LabelField) -> LabelField:
    kind = type(like.labels[0]) if like.labels else str
    rows, labels = [], []
    for row, value in enumerate(values):
        members = value if is_list(value) else [] if is_missing(value) else [value]
        for member in members:
            plain = member.item() if isinstance(member, np.generic) else member
            if type(plain) is not kind:
                raise _wrong(value, name, {str: "text", int: "whole numbers"}[kind])
            rows.append(row)
            labels.append(plain)
    codes: dict[Any, int] = {}
    found = np.array([codes.setdefault(label, len(codes)) for label in labels], dtype=np.int64)
    return LabelField(np.array(rows, dtype=np.int64), found, tuple(codes), len(values))


def _wrong(value: Any, name: str, expected: str) -> InvalidInputError:
    shown = examples([value])
    shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
    return InvalidInputError(f"`metadata` has {shown} in {name!r}; expected {expected}, as the other items have there.")


def several(table: Table, is_there: Bools | None = None) -> set[str]:
    """The fields of which a row, or one of those that are there, has several labels."""
    found = set()
    for name, field in table.fields.items():
        if isinstance(field, LabelField):
            again = field.rows[1:][np.diff(field.rows) == 0]
            if len(again) and (is_there is None or is_there[again].any()):
                found.add(name)
    return found


def fields_of(table: Table) -> dict[str, dict[str, Any]]:
    """The kind of each field, and what a form needs; see `Bundle.user_fields`."""
    lists = several(table)
    found: dict[str, dict[str, Any]] = {}
    for name, field in table.fields.items():
        if isinstance(field, LabelField):
            counts = np.bincount(field.codes, minlength=len(field.labels))
            frequent = np.argsort(-counts, kind="stable")[: min(SHOWN, np.count_nonzero(counts))]
            values = [field.labels[code] for code in frequent.tolist()]
            found[name] = {"kind": "multi-hot" if name in lists else "categorical", "values": values}
        else:
            is_date, known = field.kind == "dates", field.values[field.values == field.values]
            ends = [known.min(), known.max()] if len(known) else [None, None]
            low, high = (end if end is None else str(end) if is_date else float(end) for end in ends)
            found[name] = {"kind": "date" if is_date else "numeric", "low": low, "high": high}
    return found


def records_of(table: Table, lists: Collection[str]) -> list[dict[str, Any]]:
    """The rows of a table, which are few.

    Parameters
    ----------
    table : Table
    lists : collection of str
        The fields whose labels come as lists; of the others there is one, or None.

    Returns
    -------
    list of dict
        What is missing is None, dates are ISO text.
    """
    columns = {name: _cells(field, name in lists) for name, field in table.fields.items()}
    return [{name: cells[row] for name, cells in columns.items()} for row in range(table.n)]


def _cells(field: Field, as_lists: bool) -> list[Any]:
    if isinstance(field, LabelField):
        cells: list[list[Any]] = [[] for _ in range(field.n)]
        for row, code in zip(field.rows.tolist(), field.codes.tolist(), strict=True):
            cells[row].append(field.labels[code])
        return cells if as_lists else [cell[0] if cell else None for cell in cells]
    if field.kind == "dates":
        return [None if np.isnat(value) else str(value) for value in field.values]
    return [None if value != value else int(value) if value.is_integer() else value for value in field.values.tolist()]
