"""Interactions: rows of `X` checked once, and the arrays that models learn from and answer to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from recsys._records import PATHS
from recsys._sparse import Csr
from recsys.exceptions import InvalidInputError, InvalidTypeError, examples
from recsys.features import EncodedFeatures
from recsys.vocabulary import as_ids

__all__ = ["ContextRows", "PATHS", "Pairs", "TrainingData", "UserBatch", "as_frame", "read_pairs", "read_target"]

Codes = npt.NDArray[np.int64]
Weights = npt.NDArray[np.float32]

# Columns that are targets in every data set we know: in `X` they would leak.
TARGET_NAMES = frozenset({"rating", "ratings", "target", "label", "score", "y"})


@dataclass(frozen=True)
class Pairs:
    """Checked rows of `X`.

    Attributes
    ----------
    users, items : pandas.Index of shape (n,)
    context : pandas.DataFrame of n rows
        The further columns, if any.
    """

    users: pd.Index
    items: pd.Index
    context: pd.DataFrame

    def __len__(self) -> int:
        return len(self.users)


@dataclass(frozen=True)
class ContextRows:
    """The positives one by one, each with the context it happened in.

    Attributes
    ----------
    users, items : ndarray of shape (n,), int64
        Codes.
    features : EncodedFeatures of n rows
    """

    users: Codes
    items: Codes
    features: EncodedFeatures


@dataclass(frozen=True)
class TrainingData:
    """What a model learns from.

    Attributes
    ----------
    matrix : scipy.sparse.csr_matrix of shape (n_users, n_items), float32
        The weight of each positive; rows of warm users and columns of warm items are empty.
    user_features, item_features : EncodedFeatures
        Rows aligned with the codes; without fields where none were given.
    context : ContextRows or None
        None where `X` has no context columns.
    """

    matrix: Csr
    user_features: EncodedFeatures
    item_features: EncodedFeatures
    context: ContextRows | None


@dataclass(frozen=True)
class UserBatch:
    """Who is asked for: n users, known or not.

    Attributes
    ----------
    codes : ndarray of shape (n,), int64
        -1 for a user who is not in the vocabulary.
    trained : ndarray of shape (n,), bool
        What was fitted for this code is up to date with the user's history.
    history : scipy.sparse.csr_matrix of shape (n, n_items), float32
        The weight of each positive.
    features : EncodedFeatures
    path : ndarray of shape (n,), int8
        How each is answered, as an index into `PATHS`.
    context : EncodedFeatures or None
        None: the model was fitted without context. A context that was not given has empty rows.
    """

    codes: Codes
    trained: npt.NDArray[np.bool_]
    history: Csr
    features: EncodedFeatures
    path: npt.NDArray[np.int8]
    context: EncodedFeatures | None = None

    def __len__(self) -> int:
        return len(self.codes)

    def take(self, rows: slice | npt.NDArray[np.int64]) -> UserBatch:
        """Some of these users."""
        index = np.arange(len(self))[rows]
        return UserBatch(
            self.codes[index],
            self.trained[index],
            self.history[index],
            self.features.take(index),
            self.path[index],
            None if self.context is None else self.context.take(index),
        )


def as_frame(X: Any, name: str = "X") -> pd.DataFrame:
    """`X` as a frame; an array is checked by scikit-learn first.

    Parameters
    ----------
    X : DataFrame or array-like of shape (n, m)
    name : str, default="X"
        What to call it in an error.

    Returns
    -------
    DataFrame of shape (n, m)
    """
    if isinstance(X, pd.DataFrame):
        named = [isinstance(column, str) for column in X.columns]
        if any(named) and not all(named):
            raise InvalidTypeError(
                f"The columns of `{name}` are named {examples(X.columns)}; expected texts alone: rename the others."
            )
        return X
    from sklearn.utils import check_array

    # NumPy would turn the numbers of a list that has text as well into text.
    array = np.array(X, dtype=object) if isinstance(X, (list, tuple)) else X
    try:
        return pd.DataFrame(check_array(array, dtype=None, input_name=name)).infer_objects()
    except TypeError as error:
        raise InvalidTypeError(f"`{name}` is no table of users and items: {error}") from error
    except ValueError as error:
        raise InvalidInputError(f"`{name}` is no table of users and items: {error}") from error


def read_pairs(X: pd.DataFrame, name: str = "X") -> Pairs:
    """Check `X` and separate its columns.

    Parameters
    ----------
    X : DataFrame of shape (n, >= 2)
        Column 0 holds users, column 1 items, any further column is context.
    name : str, default="X"
        What to call it in an error.

    Returns
    -------
    Pairs

    Raises
    ------
    InvalidInputError
        If columns are missing or swapped, a target is among them, a row lacks an id, or there is no row.

    Examples
    --------
    >>> pairs = read_pairs(pd.DataFrame({"user_id": ["ann"], "item_id": [7], "device": ["tv"]}))
    >>> pairs.items.tolist(), list(pairs.context)
    ([7], ['device'])
    """
    if X.shape[1] < 2:
        raise InvalidInputError(
            f"`{name}` has {X.shape[1]} feature(s), the columns {list(X.columns)}; expected two or more: users in "
            f"column 0 and items in column 1."
        )
    if not len(X):
        raise InvalidInputError(f"`{name}` is empty: 0 sample(s) while a minimum of 1 is required. Pass some rows.")
    if not X.columns.is_unique:
        twice = X.columns[X.columns.duplicated()].unique()
        raise InvalidInputError(
            f"`{name}` has more than one column named {examples(twice)}; expected each once: rename or drop them."
        )
    for place, (column, what) in enumerate((("user_id", "users"), ("item_id", "items"))):
        if column in X.columns and X.columns[place] != column:
            raise InvalidInputError(
                f"`{name}` has {X.columns[place]!r} in column {place}, and {column!r} elsewhere; expected {what} in "
                f"column {place}: pass {name}[['user_id', 'item_id', ...]]."
            )
    targets = [column for column in X.columns if str(column).lower() in TARGET_NAMES]
    if targets:
        raise InvalidInputError(
            f"`{name}` has the column {examples(targets)}, which is a target; expected users, items and context alone: "
            f"pass it as `y` and drop it from `{name}`."
        )
    context = X.iloc[:, 2:]
    for column in context.columns:
        values = context[column]
        if pd.api.types.is_float_dtype(values.dtype) and np.isinf(values).any():
            raise InvalidInputError(
                f"`{name}` holds infinite values in column {column!r}; expected finite numbers, or None where unknown."
            )
    users, items = (_id_column(X.iloc[:, i], f"{name}[{examples(X.columns[[i]])}]") for i in (0, 1))
    return Pairs(users, items, context)


def _id_column(column: pd.Series, name: str) -> pd.Index:
    if column.dtype.kind == "c":
        raise InvalidInputError(
            f"Complex data not supported: `{name}` holds complex numbers; expected ids: convert it."
        )
    try:
        ids = as_ids(column, name)
    except InvalidTypeError as error:
        # The words are those that scikit-learn looks for.
        raise InvalidTypeError(f"The argument must be a column of labels, each a string or number. {error}") from error
    if ids.dtype.kind == "f" and np.isinf(ids).any():
        raise InvalidInputError(
            f"`{name}` holds infinity (inf) as an id; expected a label in every row: drop these rows."
        )
    return ids


def read_target(y: Any, n: int, min_rating: float | None = None, name: str = "y") -> Weights:
    """Check `y` and turn it into weights: positive for positives, 0 for rows that only count as seen.

    Parameters
    ----------
    y : array-like of shape (n,) or None
        None: every row is a positive of weight 1.
    n : int
        Rows of `X`.
    min_rating : float, default=None
        Rows below it are no positives. None: rows that are not above 0.
    name : str, default="y"
        What to call it in an error.

    Returns
    -------
    ndarray of shape (n,), float32

    Raises
    ------
    InvalidInputError
        If `y` is of another length, not numeric, or not finite.

    Examples
    --------
    >>> read_target([5, 0, 2], 3, min_rating=3)
    array([5., 0., 0.], dtype=float32)
    """
    if y is None:
        return np.ones(n, dtype=np.float32)
    from sklearn.utils import check_array, column_or_1d

    if np.asarray(y).dtype.kind in "mM":
        raise InvalidInputError(f"`{name}` holds dates; expected one finite number a row: pass weights or ratings.")
    try:
        # A number that is too large becomes infinite, which is refused.
        with np.errstate(over="ignore"):
            weights = check_array(column_or_1d(y, warn=True), dtype=np.float32, ensure_2d=False, input_name=name)
    except (OverflowError, TypeError, ValueError) as error:
        raise InvalidInputError(f"`{name}` must hold one finite number a row: {error}") from error
    if len(weights) != n:
        raise InvalidInputError(
            f"`{name}` has {len(weights)} values for the {n} rows of `X`; found input variables with inconsistent "
            f"numbers of samples: pass one target a row."
        )
    # Both as float32: 0.7 is not below 0.7.
    positive = weights > 0 if min_rating is None else (weights >= np.float32(min_rating)) & (weights > 0)
    return np.where(positive, weights, np.float32(0))
