"""Ranking metrics, per user, defined once: pure functions of arrays.

Row u of every argument is user u:

- `hits`, bool (n_users, n_ranks): is the item at this rank of the list relevant? False pads shorter lists.
- `n_relevant`, int (n_users,): how many items are relevant to the user, at least one.

`hit_matrix` makes `hits` from lists of codes; `recsys.evaluation.ranking_metrics` does it all from frames.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from recsys.exceptions import InvalidInputError, InvalidTypeError, examples

__all__ = [
    "average_precision",
    "hit_matrix",
    "hit_rate",
    "mrr",
    "ndcg",
    "precision",
    "recall",
    "recall_calibrated",
]

Hits = npt.NDArray[np.bool_]
Codes = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]
Matrix = Any  # a sparse matrix or array of SciPy, in any format


def hit_rate(hits: npt.ArrayLike, k: int | None = None) -> Values:
    """HR@K: 1 if any of the first K items is relevant, else 0.

    Parameters
    ----------
    hits : array-like of bool, shape (n_users, n_ranks)
    k : int, optional
        Where to cut the lists; by default n_ranks. It may exceed n_ranks.

    Returns
    -------
    ndarray of shape (n_users,), float64

    Examples
    --------
    >>> hit_rate([[False, True], [False, False]])
    array([1., 0.])
    """
    cut, _ = _cut(hits, k)
    return np.asarray(cut.any(axis=1), dtype=np.float64)


def recall(hits: npt.ArrayLike, n_relevant: npt.ArrayLike, k: int | None = None) -> Values:
    """Recall@K: ``sum_r h_r / n``, the share of the relevant items that is in the list.

    With more than K relevant items the best possible value is ``K / n``, not 1: see `recall_calibrated`.

    Parameters
    ----------
    hits : array-like of bool, shape (n_users, n_ranks)
    n_relevant : array-like of int, shape (n_users,)
    k : int, optional
        Where to cut the lists; by default n_ranks. It may exceed n_ranks.

    Returns
    -------
    ndarray of shape (n_users,), float64

    Examples
    --------
    >>> recall([[True, False]], [4])
    array([0.25])
    """
    cut, _ = _cut(hits, k)
    return _n_hits(cut) / _counts(hits, n_relevant)


def recall_calibrated(hits: npt.ArrayLike, n_relevant: npt.ArrayLike, k: int | None = None) -> Values:
    """Calibrated recall: ``sum_r h_r / min(K, n)``, which a perfect list brings to 1 whatever n.

    Parameters
    ----------
    hits : array-like of bool, shape (n_users, n_ranks)
    n_relevant : array-like of int, shape (n_users,)
    k : int, optional
        Where to cut the lists; by default n_ranks. It may exceed n_ranks.

    Returns
    -------
    ndarray of shape (n_users,), float64

    Examples
    --------
    >>> recall_calibrated([[True, False]], [4])
    array([0.5])
    """
    cut, k = _cut(hits, k)
    return _n_hits(cut) / np.minimum(_counts(hits, n_relevant), k)


def precision(hits: npt.ArrayLike, k: int | None = None) -> Values:
    """Precision@K: ``sum_r h_r / K``, also when the list is shorter than K.

    Parameters
    ----------
    hits : array-like of bool, shape (n_users, n_ranks)
    k : int, optional
        Where to cut the lists; by default n_ranks. It may exceed n_ranks.

    Returns
    -------
    ndarray of shape (n_users,), float64

    Examples
    --------
    >>> precision([[True, False]], k=4)
    array([0.25])
    """
    cut, k = _cut(hits, k)
    return _n_hits(cut) / k


def ndcg(hits: npt.ArrayLike, n_relevant: npt.ArrayLike, k: int | None = None) -> Values:
    """NDCG@K of binary relevance: ``sum_r h_r / log2(r + 1)`` over that sum for ``min(K, n)`` hits on top.

    Parameters
    ----------
    hits : array-like of bool, shape (n_users, n_ranks)
    n_relevant : array-like of int, shape (n_users,)
    k : int, optional
        Where to cut the lists; by default n_ranks. It may exceed n_ranks.

    Returns
    -------
    ndarray of shape (n_users,), float64

    References
    ----------
    Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques", ACM TOIS 20(4), 2002.

    Examples
    --------
    >>> ndcg([[True, False], [False, True]], [1, 1]).round(3)
    array([1.   , 0.631])
    """
    cut, k = _cut(hits, k)
    return discounted_gain(cut, _counts(hits, n_relevant), k)


def mrr(hits: npt.ArrayLike, k: int | None = None) -> Values:
    """MRR@K: ``1 / rank`` of the first relevant item, 0 if none of the first K is relevant.

    Parameters
    ----------
    hits : array-like of bool, shape (n_users, n_ranks)
    k : int, optional
        Where to cut the lists; by default n_ranks. It may exceed n_ranks.

    Returns
    -------
    ndarray of shape (n_users,), float64

    Examples
    --------
    >>> mrr([[False, True, True], [False, False, False]])
    array([0.5, 0. ])
    """
    cut, _ = _cut(hits, k)
    first = np.asarray(cut.argmax(axis=1), dtype=np.float64)
    return hit_rate(cut) / (first + 1)


def average_precision(hits: npt.ArrayLike, n_relevant: npt.ArrayLike, k: int | None = None) -> Values:
    """MAP@K, before the mean over users: ``sum_r h_r Precision@r / min(K, n)``.

    Parameters
    ----------
    hits : array-like of bool, shape (n_users, n_ranks)
    n_relevant : array-like of int, shape (n_users,)
    k : int, optional
        Where to cut the lists; by default n_ranks. It may exceed n_ranks.

    Returns
    -------
    ndarray of shape (n_users,), float64

    Examples
    --------
    >>> average_precision([[True, False, True]], [2]).round(3)
    array([0.833])
    """
    cut, k = _cut(hits, k)
    n = np.minimum(_counts(hits, n_relevant), k)
    precisions = np.cumsum(cut, axis=1) / np.arange(1, cut.shape[1] + 1)
    return total(cut * precisions) / n


def hit_matrix(recommended: npt.ArrayLike, relevant: Matrix) -> Hits:
    """Look up which recommended items are relevant.

    Parameters
    ----------
    recommended : array-like of int, shape (n_users, n_ranks)
        Codes of items, best first; -1 pads lists that are shorter.
    relevant : sparse matrix, or ndarray of bool, of shape (n_users, n_items)
        Not zero where an item is relevant to a user.

    Returns
    -------
    ndarray of shape (n_users, n_ranks), bool

    Raises
    ------
    InvalidInputError
        If shapes do not fit, a code is out of range, a list holds an item twice, or `relevant` holds NaN.
    InvalidTypeError
        If `relevant` is neither a sparse matrix of numbers nor an array of bool.

    Examples
    --------
    >>> from scipy.sparse import csr_array
    >>> hit_matrix([[2, 0, -1]], csr_array([[0, 1, 1]]))
    array([[ True, False, False]])
    """
    matrix = check_matrix(relevant, "relevant")
    n_users, n_items = matrix.shape
    codes = check_lists(recommended, n_items)
    if len(codes) != n_users:
        raise InvalidInputError(f"`recommended` has {len(codes)} rows and `relevant` {n_users}; expected one per user.")
    matrix.eliminate_zeros()
    matrix.sort_indices()
    rows = np.arange(n_users, dtype=np.int64)
    # Sorted keys of the relevant pairs; the extra one, met by no list, keeps the look-up inside the array.
    keys = np.append(np.repeat(rows, np.diff(matrix.indptr)) * n_items + matrix.indices, n_users * n_items)
    wanted = rows[:, None] * n_items + codes
    found: Hits = keys[np.searchsorted(keys, wanted)] == wanted
    return found & (codes >= 0)


def _cut(hits: npt.ArrayLike, k: int | None) -> tuple[Hits, int]:
    """The first k columns of `hits`, checked, and k."""
    array = np.asarray(hits)
    if array.dtype != np.bool_ or array.ndim != 2 or array.shape[1] < 1:
        raise InvalidInputError(
            f"`hits` has dtype {array.dtype} and shape {array.shape}; expected bool of shape (n_users, n_ranks)."
        )
    k = array.shape[1] if k is None else check_rank(k)
    return array[:, :k], k


def _counts(hits: npt.ArrayLike, n_relevant: npt.ArrayLike) -> Codes:
    """`n_relevant`, checked against the uncut `hits`."""
    array, n = np.asarray(hits), np.asarray(n_relevant)
    if n.shape != array.shape[:1] or n.dtype.kind not in "iu":
        raise InvalidInputError(
            f"`n_relevant` has dtype {n.dtype} and shape {n.shape}; "
            f"expected integers of shape {array.shape[:1]}, one per user."
        )
    without = np.flatnonzero(n < 1)
    if len(without):
        raise InvalidInputError(
            f"`n_relevant` is below 1 for {len(without)} users (rows {examples(without)}); "
            f"expected at least one relevant item to judge a list by: leave these users out."
        )
    over = np.flatnonzero(array.sum(axis=1) > n)
    if len(over):
        raise InvalidInputError(
            f"`hits` holds more hits than `n_relevant` allows (rows {examples(over)}); "
            f"expected at most n_relevant: count every relevant item, and each item once."
        )
    return n.astype(np.int64, copy=False)


def discounted_gain(gains: Hits | Values, n_relevant: Codes, k: int) -> Values:
    """The gain at each of the first k ranks, discounted, over that of ``min(k, n)`` hits on top."""
    n = np.minimum(n_relevant, k)
    # However large k is, no more ranks count than there are.
    discount = 1 / np.log2(np.arange(2, int(n.max(initial=gains.shape[1])) + 2))
    # One running sum gives both gain and ideal, so that a perfect list scores 1 to the last bit.
    gain = total(gains * discount[: gains.shape[1]])
    ideal: Values = np.cumsum(discount)[n - 1]
    return gain / ideal


def _n_hits(cut: Hits) -> Values:
    return np.asarray(cut.sum(axis=1), dtype=np.float64)


def total(terms: Values) -> Values:
    """Sums of rows, added from left to right."""
    np.cumsum(terms, axis=1, out=terms)
    return terms[:, -1].copy()


def check_rank(k: object) -> int:
    """Where to cut, checked."""
    if isinstance(k, (bool, np.bool_)) or not isinstance(k, (int, np.integer)):
        raise InvalidTypeError(f"`k` is {k!r}; expected a positive integer.")
    if k < 1:
        raise InvalidInputError(f"`k` is {k!r}; expected a positive integer.")
    return int(k)


def as_array(values: npt.ArrayLike, name: str, expected: str) -> npt.NDArray[Any]:
    """An array, whatever it holds."""
    try:
        return np.asarray(values)
    except ValueError as error:
        raise InvalidInputError(f"`{name}` is no array ({error}); expected {expected}.") from error


def check_matrix(matrix: Matrix, name: str) -> Matrix:
    """A CSR copy of a matrix of users and items, checked."""
    kinds = "biuf" if sparse.issparse(matrix) else "b" if isinstance(matrix, np.ndarray) else ""
    if not kinds or matrix.dtype.kind not in kinds:
        dtype = f" and dtype {matrix.dtype}" if kinds else ""
        raise InvalidTypeError(
            f"`{name}` is of type {type(matrix).__name__}{dtype}; expected a sparse matrix of numbers, or an array of "
            f"bool, of shape (n_users, n_items): make one with scipy.sparse.csr_array."
        )
    if matrix.ndim != 2:
        raise InvalidInputError(f"`{name}` has shape {matrix.shape}; expected (n_users, n_items).")
    found = sparse.csr_array(matrix, copy=True)
    if np.isnan(found.data).any():
        raise InvalidInputError(f"`{name}` holds NaN; expected 0 where there is nothing: fill it in.")
    return found


def check_lists(recommended: npt.ArrayLike, n_items: int) -> Codes:
    """Lists of codes as int64, checked: in range, padded with -1, no item twice."""
    codes = as_array(recommended, "recommended", "integer codes of shape (n_users, n_ranks)")
    if codes.ndim != 2 or codes.dtype.kind not in "iu":
        raise InvalidInputError(
            f"`recommended` has dtype {codes.dtype} and shape {codes.shape}; "
            f"expected integer codes of shape (n_users, n_ranks)."
        )
    codes = codes.astype(np.int64, copy=False)
    if codes.size and (codes.min() < -1 or codes.max() >= n_items):
        raise InvalidInputError(
            f"`recommended` holds codes from {codes.min()} to {codes.max()}; "
            f"expected them from 0 to {n_items - 1} for a catalogue of {n_items} items, or -1 as padding."
        )
    ordered = np.sort(codes, axis=1)
    twice = ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any(axis=1)
    if twice.any():
        raise InvalidInputError(
            f"`recommended` holds an item twice in {int(twice.sum())} lists (rows "
            f"{examples(np.flatnonzero(twice))}); expected each item once."
        )
    return codes
