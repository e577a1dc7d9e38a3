"""Which of the five kinds of field a column looks like."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd

__all__ = ["KINDS", "holds_dates", "holds_written_lists", "infer_kind", "without_arrow"]

KINDS = ("numeric", "categorical", "multi_hot", "text", "vector")


def infer_kind(column: pd.Series, sep: str = "|") -> str:
    """The kind of field that a column looks like.

    Parameters
    ----------
    column : pandas.Series
    sep : str, default="|"
        Text in which this occurs is multi-hot.

    Returns
    -------
    str
        One of `KINDS`.

    Examples
    --------
    >>> infer_kind(pd.Series(["Drama|War", "Comedy"]))
    'multi_hot'
    >>> infer_kind(pd.Series([[0.5, 1.5], [2.0, 0.0]]))
    'vector'
    """
    if isinstance(column.dtype, pd.CategoricalDtype):
        return "categorical"
    values = column.dropna().infer_objects()
    dtype = values.dtype
    if pd.api.types.is_bool_dtype(dtype):
        return "categorical"
    if pd.api.types.is_numeric_dtype(dtype) or holds_dates(values) or dtype.kind == "m":
        return "numeric"
    if values.empty:
        return "categorical"
    first = next(iter(values), None)
    if isinstance(first, np.ndarray) and first.dtype.kind in "iuf":
        return "vector"
    if isinstance(first, (list, tuple, set, frozenset, np.ndarray)):
        return "vector" if _look_like_vectors(values) else "multi_hot"
    inferred = pd.api.types.infer_dtype(values, skipna=True)
    if inferred == "decimal":
        return "numeric"
    if inferred != "string":
        return "categorical"
    if sep and values.str.contains(sep, regex=False).any():
        return "multi_hot"
    several_words = values.str.strip().str.contains(" ", regex=False).mean() > 0.5
    return "text" if several_words and values.nunique() > 0.5 * len(values) else "categorical"


def holds_written_lists(column: pd.Series) -> bool:
    """Whether all values are lists written as text, as `to_csv` writes them.

    Parameters
    ----------
    column : pandas.Series

    Returns
    -------
    bool

    Examples
    --------
    >>> holds_written_lists(pd.Series(["['Drama', 'War']", None, "[]"]))
    True
    """
    values = column.dropna()
    if values.empty or pd.api.types.infer_dtype(values, skipna=True) != "string":
        return False
    return bool(values.str.fullmatch(r"\s*\[.*\]\s*", flags=re.DOTALL).all())


def holds_dates(values: pd.Series) -> bool:
    """Whether values, none of them missing, are dates or points in time."""
    return values.dtype.kind == "M" or pd.api.types.infer_dtype(values, skipna=True) in ("date", "datetime")


def without_arrow(values: pd.Series) -> pd.Series:
    """Points in time and halves as NumPy keeps them, where Arrow does; anything else as it is.

    Parameters
    ----------
    values : pandas.Series

    Returns
    -------
    pandas.Series
        Of times with a zone, the points in time, without the zone: in UTC.

    Examples
    --------
    >>> times = pd.Series(pd.to_datetime(["2001-09-09 01:46:40"])).astype("timestamp[ns][pyarrow]")
    >>> without_arrow(times).dtype
    dtype('<M8[ns]')
    """
    if not isinstance(values.dtype, pd.ArrowDtype):
        return values
    # pandas' annotations leave this property out.
    dtype: np.dtype[Any] = values.dtype.numpy_dtype  # type: ignore[attr-defined, unused-ignore]
    if dtype.kind == "M":
        plain = values.to_numpy(dtype=dtype, na_value=np.datetime64("NaT"))
        return pd.Series(plain, index=values.index, name=values.name)
    # Few of pandas' methods work on these.
    return values.astype("float64") if dtype == np.float16 else values


def _look_like_vectors(values: pd.Series) -> bool:
    """Whether lists are dense vectors: numbers, equally many, and not a set of whole numbers (labels) each."""
    if not values.map(lambda value: isinstance(value, (list, tuple, np.ndarray))).all():
        return False
    lengths = values.map(len)
    if lengths.nunique() != 1 or lengths.iloc[0] < 2:
        return False
    members = values.reset_index(drop=True).explode().dropna().infer_objects()
    if not pd.api.types.is_numeric_dtype(members.dtype) or pd.api.types.is_bool_dtype(members.dtype):
        return False
    return members.dtype.kind == "f" or bool(members.reset_index().duplicated().any())
