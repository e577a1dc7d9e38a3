"""Metadata of items: from a DataFrame to the table that filters look at."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from recsys.exceptions import InvalidInputError, InvalidTypeError, did_you_mean, examples
from recsys.retrieval.filters import (
    COMBINATIONS,
    FIRST_DAY,
    LAST_DAY,
    Field,
    LabelField,
    OrderedField,
    Table,
)

__all__ = ["read_metadata"]

# Whole numbers beyond this are not told apart by floats.
_LARGEST = 2**53


def read_metadata(frame: Any, ids: pd.Index, like: Table | None = None) -> Table:
    """Read one row an id, and check the columns.

    Parameters
    ----------
    frame : DataFrame or None
        The ids are in its column ``item_id`` or else in its index; rows of other ids are passed over. None: all of
        `like`'s fields are missing.
    ids : pandas.Index of shape (n,)
    like : Table, default=None
        What the index has already, whose fields these must be.

    Returns
    -------
    Table of n rows

    Raises
    ------
    InvalidInputError
        If an id has no row or several, or a column cannot be filtered by.
    """
    if frame is None:
        fields = {} if like is None else {name: _missing(field, len(ids)) for name, field in like.fields.items()}
        return Table(fields, len(ids))
    if not isinstance(frame, pd.DataFrame):
        raise InvalidTypeError(f"`metadata` is of type {type(frame).__name__}; expected a DataFrame of one row an id.")
    labelled = frame.set_index("item_id") if "item_id" in frame.columns else frame
    if not labelled.index.is_unique:
        twice = labelled.index[labelled.index.duplicated()].unique()
        raise InvalidInputError(f"`metadata` has several rows of {examples(twice)}; expected one row an id.")
    rows = labelled.index.get_indexer(ids)
    if (rows < 0).any():
        raise InvalidInputError(
            f"`metadata` has no row of {int((rows < 0).sum())} ids: {examples(ids[rows < 0])}; expected one row an id, "
            f"named in the column 'item_id' or in the index of the frame."
        )
    _check_names(labelled.columns, like)
    return Table({name: _read_column(labelled[name].iloc[rows], name, like) for name in labelled.columns}, len(ids))


def _check_names(names: pd.Index, like: Table | None) -> None:
    wrong = [name for name in names if not isinstance(name, str) or name in COMBINATIONS]
    if wrong:
        raise InvalidInputError(
            f"`metadata` has columns named {examples(wrong)}; expected text other than {examples(COMBINATIONS)}: "
            f"rename them."
        )
    if not names.is_unique:
        raise InvalidInputError(
            f"`metadata` has several columns named {examples(names[names.duplicated()])}; expected distinct names."
        )
    if like is None:
        return
    if strange := [name for name in names if name not in like.fields]:
        known = did_you_mean(strange[0], like.fields) if like.fields else "It has none: build it with `metadata`."
        raise InvalidInputError(f"`metadata` has the columns {examples(strange)}, which the index lacks. {known}")
    if lost := [name for name in like.fields if name not in names]:
        raise InvalidInputError(f"`metadata` lacks the columns {examples(lost)}; expected all that the index has.")


def _read_column(column: pd.Series[Any], name: str, like: Table | None) -> Field:
    if like is not None and column.isna().all():
        return _missing(like.fields[name], len(column))
    field = _read_ordered(column, name) or _read_labels(column, name)
    if like is not None:
        known = like.fields[name]
        types = {type(label) for each in (known, field) if isinstance(each, LabelField) for label in each.labels}
        if field.kind != known.kind or len(types) > 1:
            raise InvalidInputError(
                f"`metadata` has {_words(field)} in {name!r}; expected {_words(known)}, as the index has there."
            )
    return field


def _read_ordered(column: pd.Series[Any], name: str) -> OrderedField | None:
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(column.cat.categories.dtype if len(column.cat.categories) else object)
    if column.dtype == object or isinstance(column.dtype, pd.ArrowDtype):
        column = _plain(column, name)
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        column = column.dt.tz_convert("UTC").dt.tz_localize(None)
    if pd.api.types.is_datetime64_dtype(column.dtype):
        return OrderedField(_microseconds(column, name))
    if not (pd.api.types.is_numeric_dtype(column.dtype) or pd.api.types.is_bool_dtype(column.dtype)):
        return None
    if pd.api.types.is_complex_dtype(column.dtype):
        raise InvalidTypeError(f"`metadata` has complex numbers in {name!r}; expected real ones.")
    values = column.to_numpy(dtype=np.float64, na_value=np.nan)
    if (np.abs(values) > _LARGEST).any() and pd.api.types.is_integer_dtype(column.dtype):
        raise _too_large(name)
    return OrderedField(values)


def _plain(column: pd.Series[Any], name: str) -> pd.Series[Any]:
    """Numbers and dates in a column of objects, or of Arrow's types, as NumPy has them; other columns as they are."""
    objects = column.astype(object)
    found = pd.api.types.infer_dtype(objects, skipna=True)
    if found in ("integer", "floating", "mixed-integer-float", "decimal", "boolean"):
        known = objects.where(objects.notna(), None)
        try:
            return known.astype("Int64" if found == "integer" else "Float64")
        except OverflowError:
            raise _too_large(name) from None
    if found in ("date", "datetime", "datetime64"):
        try:
            return pd.to_datetime(objects, utc=True)
        except ValueError as error:
            raise InvalidInputError(
                f"`metadata` has dates in {name!r} that pandas cannot hold ({error}); expected nearer ones."
            ) from error
    return column


def _too_large(name: str) -> InvalidInputError:
    return InvalidInputError(
        f"`metadata` has whole numbers beyond 2**53 in {name!r}, which floats do not tell apart; expected smaller "
        f"ones: make them text if they are labels."
    )


def _microseconds(column: pd.Series[Any], name: str) -> npt.NDArray[np.datetime64]:
    days = column.to_numpy(dtype="datetime64[D]")
    if ((days < FIRST_DAY) | (days > LAST_DAY)).any():
        raise InvalidInputError(
            f"`metadata` has dates in {name!r} that microseconds cannot count; expected {FIRST_DAY} to {LAST_DAY}."
        )
    return column.to_numpy(dtype="datetime64[us]")


def _read_labels(column: pd.Series[Any], name: str) -> LabelField:
    """Text, or lists: exploded into pairs of a row and a label."""
    cells = pd.Series(column.astype(object).to_numpy(), dtype=object)
    pairs = cells.map(_as_list).explode()
    pairs = pairs[pairs.notna()]
    is_whole = pairs.map(_is_whole).astype(bool)
    if not (is_whole.all() or pairs.map(_is_text).astype(bool).all()):
        raise InvalidInputError(
            f"`metadata` has {examples(pairs[~pairs.map(_is_text)])} in {name!r}; expected a column of numbers, "
            f"dates or text, or of lists of text or of whole numbers."
        )
    codes, labels = pd.factorize(pairs)
    plain = tuple(label.item() if isinstance(label, np.generic) else label for label in labels)
    return LabelField(pairs.index.to_numpy(dtype=np.int64), codes.astype(np.int64), plain, len(cells))


def _as_list(cell: Any) -> Any:
    """What pandas explodes as it should: a set in an order that the next process has too, a dict not into its keys."""
    if isinstance(cell, (set, frozenset)):
        return sorted(cell, key=lambda member: (type(member).__name__, str(member)))
    return [cell] if isinstance(cell, dict) else cell


def _is_whole(cell: object) -> bool:
    return isinstance(cell, (int, np.integer)) and not isinstance(cell, (bool, np.timedelta64))


def _is_text(cell: object) -> bool:
    return isinstance(cell, str)


def _missing(field: Field, n: int) -> Field:
    if isinstance(field, OrderedField):
        return OrderedField(np.full(n, "NaT" if field.kind == "dates" else np.nan, dtype=field.values.dtype))
    none = np.zeros(0, dtype=np.int64)
    return LabelField(none, none, field.labels, n)


def _words(field: Field) -> str:
    if isinstance(field, LabelField) and field.labels:
        return "text" if isinstance(field.labels[0], str) else "lists of whole numbers"
    return "text or lists, which objects without values were taken for" if field.kind == "labels" else field.kind
