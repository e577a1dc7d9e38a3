"""What accuracy does not see, of lists as codes: coverage, exposure, novelty, diversity.

Row u of `recommended` is user u's list of item codes, best first; -1 pads lists that are shorter.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import sparse

from recsys.evaluation._splitting import check_integer
from recsys.evaluation.metrics import Codes, Matrix, Values, as_array, check_lists, check_matrix
from recsys.exceptions import InvalidInputError, examples

__all__ = ["cold_exposure", "coverage", "gini", "intra_list_diversity", "novelty", "popularity_lift"]


def coverage(recommended: npt.ArrayLike, n_items: int) -> float:
    """Coverage: the share of the catalogue that is in at least one list.

    Parameters
    ----------
    recommended : array-like of int, shape (n_users, n_ranks)
        Codes of items; -1 pads lists that are shorter.
    n_items : int
        Size of the catalogue.

    Returns
    -------
    float

    Raises
    ------
    InvalidInputError
        If `recommended` holds no lists of codes of these items, or one twice in a list, or `n_items` is below 1.

    Examples
    --------
    >>> coverage([[0, 1], [0, -1]], n_items=4)
    0.5
    """
    check_integer(n_items, "n_items", 1)
    return float((_exposure(recommended, n_items) > 0).mean())


def gini(recommended: npt.ArrayLike, n_items: int) -> float:
    """Gini index of exposure: ``sum_i (2 i - n - 1) c_i / (n sum_i c_i)``.

    ``c_i``, in ascending order, is the number of lists that hold an item, n the size of the catalogue. At 0
    all items are in equally many lists; at ``1 - 1 / n`` only one item is in any.

    Parameters
    ----------
    recommended : array-like of int, shape (n_users, n_ranks)
        Codes of items; -1 pads lists that are shorter.
    n_items : int
        Size of the catalogue.

    Returns
    -------
    float
        NaN if nothing is recommended to anyone.

    Raises
    ------
    InvalidInputError
        If `recommended` holds no lists of codes of these items, or one twice in a list, or `n_items` is below 1.

    Examples
    --------
    >>> gini([[0, 1], [0, 1]], n_items=2), gini([[0], [0]], n_items=2)
    (0.0, 0.5)
    """
    check_integer(n_items, "n_items", 1)
    # A narrow integer of NumPy would overflow.
    n_items = int(n_items)
    exposure = np.sort(_exposure(recommended, n_items))
    total = int(exposure.sum())
    weight = 2 * np.arange(1, n_items + 1) - n_items - 1
    return float(weight @ exposure / (n_items * total)) if total else float("nan")


def cold_exposure(recommended: npt.ArrayLike, is_cold: npt.ArrayLike) -> float:
    """Share of all recommendations that are cold items.

    Parameters
    ----------
    recommended : array-like of int, shape (n_users, n_ranks)
        Codes of items; -1 pads lists that are shorter.
    is_cold : array-like of bool, shape (n_items,)
        The items without training interactions.

    Returns
    -------
    float
        NaN if nothing is recommended to anyone.

    Raises
    ------
    InvalidInputError
        If `recommended` holds no lists of codes of these items, or one twice in a list, or `is_cold` is no row of bool.

    Examples
    --------
    >>> cold_exposure([[0, 2], [2, 1]], [False, False, True])
    0.5
    """
    cold = as_array(is_cold, "is_cold", "bool of shape (n_items,)")
    if cold.dtype != np.bool_ or cold.ndim != 1:
        raise InvalidInputError(
            f"`is_cold` has dtype {cold.dtype} and shape {cold.shape}; expected bool of shape (n_items,)."
        )
    exposure = _exposure(recommended, len(cold))
    total = int(exposure.sum())
    return float(exposure[cold].sum() / total) if total else float("nan")


def novelty(recommended: npt.ArrayLike, item_counts: npt.ArrayLike, n_users: int) -> Values:
    """Novelty: mean over the list of ``-log2(share of the training users who interacted with the item)``.

    An item that nobody interacted with counts as if one user had: it is as novel as the rarest known item.

    Parameters
    ----------
    recommended : array-like of int, shape (n_lists, n_ranks)
        Codes of items; -1 pads lists that are shorter.
    item_counts : array-like of int, shape (n_items,)
        How many users interacted with each item in training: none with fewer than 0 or more than `n_users`.
    n_users : int
        How many users there are in training, at least one.

    Returns
    -------
    ndarray of shape (n_lists,), float64
        NaN for an empty list.

    Raises
    ------
    InvalidInputError
        If `recommended` holds no lists of codes of these items, or one twice in a list, `n_users` is below 1, or a
        count is below 0 or above it.

    References
    ----------
    Vargas and Castells, "Rank and relevance in novelty and diversity metrics for recommender systems",
    RecSys 2011.

    Examples
    --------
    >>> novelty([[0, 1]], item_counts=[4, 1], n_users=4)
    array([1.])
    """
    check_integer(n_users, "n_users", 1)
    counts = _counts(item_counts)
    if len(over := np.flatnonzero(counts > n_users)):
        raise InvalidInputError(
            f"`item_counts` holds {examples(counts[over])} (items {examples(over)}), more than `n_users`, {n_users}; "
            f"expected how many of the users interacted with each item: count each of them once."
        )
    return _mean_over_list(check_lists(recommended, len(counts)), np.log2(n_users) - np.log2(np.maximum(counts, 1)))


def popularity_lift(recommended: npt.ArrayLike, item_counts: npt.ArrayLike, history: Matrix) -> Values:
    """Popularity lift: mean popularity of the list over that of the user's own history, minus 1.

    0 keeps to the user's taste; above 0, the model pushes what is popular.

    Parameters
    ----------
    recommended : array-like of int, shape (n_users, n_ranks)
        Codes of items; -1 pads lists that are shorter.
    item_counts : array-like of int, shape (n_items,)
        How many users interacted with each item in training.
    history : sparse matrix, or ndarray of bool, of shape (n_users, n_items)
        Not zero where the user interacted with the item in training.

    Returns
    -------
    ndarray of shape (n_users,), float64
        NaN for an empty list or an empty history.

    Raises
    ------
    InvalidInputError
        If `recommended` holds no lists of codes of these items, or one twice in a list, a count is below 0, or the
        shape of `history` does not fit.

    References
    ----------
    Abdollahpouri, Mansoury, Burke and Mobasher, "The unfairness of popularity bias in recommendation", 2019.

    Examples
    --------
    >>> from scipy.sparse import csr_array
    >>> popularity_lift([[0]], item_counts=[6, 2], history=csr_array([[1, 1]]))
    array([0.5])
    """
    counts = _counts(item_counts)
    seen = check_matrix(history, "history").astype(bool).astype(np.float64)
    codes = check_lists(recommended, len(counts))
    if seen.shape != (len(codes), len(counts)):
        raise InvalidInputError(
            f"`history` has shape {seen.shape}; expected ({len(codes)}, {len(counts)}): a row for each list of "
            f"`recommended`, a column for each item of `item_counts`."
        )
    in_list = _mean_over_list(codes, counts)
    return _ratio(in_list * seen.sum(axis=1), seen @ counts) - 1


def intra_list_diversity(recommended: npt.ArrayLike, item_vectors: Matrix) -> Values:
    """Intra-list diversity: mean over pairs of items in the list of ``1 - cosine`` of their vectors.

    An item whose vector is zero has cosine 0 with every other.

    Parameters
    ----------
    recommended : array-like of int, shape (n_users, n_ranks)
        Codes of items; -1 pads lists that are shorter.
    item_vectors : array-like or sparse matrix of shape (n_items, n_features)
        What items are compared by, such as their encoded genres: finite numbers.

    Returns
    -------
    ndarray of shape (n_users,), float64
        NaN for a list of fewer than two items.

    Raises
    ------
    InvalidInputError
        If `recommended` holds no lists of codes of these items, or one twice in a list, or a vector is not finite.

    References
    ----------
    Ziegler, McNee, Konstan and Lausen, "Improving recommendation lists through topic diversification",
    WWW 2005.

    Examples
    --------
    >>> intra_list_diversity([[0, 1], [0, 2]], [[1, 0], [0, 1], [2, 0]])
    array([1., 0.])
    """
    vectors = _vectors(item_vectors)
    norms = np.sqrt(vectors.power(2).sum(axis=1))
    codes = check_lists(recommended, len(norms))
    rows, filled = np.nonzero(codes >= 0)[0], codes[codes >= 0]
    scale = np.divide(1, norms, out=np.zeros_like(norms), where=norms > 0)
    sums = sparse.csr_array((scale[filled], (rows, filled)), shape=(len(codes), len(norms))) @ vectors
    # The squared length of a sum of unit vectors: the cosine of each pair, twice, and 1 for each vector.
    itself = np.bincount(rows, weights=norms[filled] > 0, minlength=len(codes))
    length = np.bincount(rows, minlength=len(codes))
    squared = np.asarray(sums.power(2).sum(axis=1), dtype=np.float64)
    return 1 - _ratio(squared - itself, length * (length - 1.0))


def _exposure(recommended: npt.ArrayLike, n_items: int) -> Codes:
    """In how many lists each item is."""
    codes = check_lists(recommended, n_items)
    return np.bincount(codes[codes >= 0], minlength=n_items)


def _counts(item_counts: npt.ArrayLike) -> Values:
    counts = as_array(item_counts, "item_counts", "numbers of shape (n_items,)")
    if counts.ndim != 1 or counts.dtype.kind not in "iuf":
        raise InvalidInputError(
            f"`item_counts` has dtype {counts.dtype} and shape {counts.shape}; expected numbers of shape (n_items,)."
        )
    bad = np.flatnonzero(~(np.isfinite(counts) & (counts >= 0)))
    if len(bad):
        raise InvalidInputError(
            f"`item_counts` holds {examples(counts[bad])} (items {examples(bad)}); expected numbers of users, from 0."
        )
    return counts.astype(np.float64)


def _vectors(item_vectors: Matrix) -> Matrix:
    """Rows of finite numbers, each divided by its largest: squares of what is left neither over- nor underflow."""
    expected = "numbers of shape (n_items, n_features)"
    values: Matrix
    try:
        values = item_vectors if sparse.issparse(item_vectors) else np.asarray(item_vectors, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"`item_vectors` is no matrix of numbers ({error}); expected {expected}.") from error
    if values.ndim != 2 or values.dtype.kind not in "biuf":
        raise InvalidInputError(
            f"`item_vectors` has dtype {values.dtype} and shape {values.shape}; expected {expected}."
        )
    vectors: Matrix = sparse.csr_array(values, dtype=np.float64, copy=True)
    vectors.sum_duplicates()
    vectors.eliminate_zeros()
    item = np.repeat(np.arange(vectors.shape[0]), np.diff(vectors.indptr))
    bad = np.unique(item[~np.isfinite(vectors.data)])
    if len(bad):
        raise InvalidInputError(
            f"`item_vectors` holds NaN or infinity (items {examples(bad)}); expected finite numbers: fill them in."
        )
    largest = np.zeros(vectors.shape[0])
    np.maximum.at(largest, item, np.abs(vectors.data))
    vectors.data /= largest[item]
    return vectors


def _mean_over_list(codes: Codes, values: Values) -> Values:
    filled = codes >= 0
    total = np.where(filled, values[codes], 0.0).sum(axis=1)
    return _ratio(total, np.asarray(filled.sum(axis=1), dtype=np.float64))


def _ratio(numerator: Values, denominator: Values) -> Values:
    """A division in which nothing over nothing is NaN, in silence."""
    result = np.full(len(numerator), np.nan)
    np.divide(numerator, denominator, out=result, where=denominator > 0)
    return result
