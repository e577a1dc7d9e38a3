"""What accuracy does not see, of lists as codes: coverage, exposure, novelty, diversity.

Row u of `recommended` is user u's list of item codes, best first; -1 pads lists that are shorter.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import sparse

from recsys.evaluation.metrics import Codes, Matrix, Values, check_lists

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

    Examples
    --------
    >>> coverage([[0, 1], [0, -1]], n_items=4)
    0.5
    """
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

    Examples
    --------
    >>> gini([[0, 1], [0, 1]], n_items=2), gini([[0], [0]], n_items=2)
    (0.0, 0.5)
    """
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

    Examples
    --------
    >>> cold_exposure([[0, 2], [2, 1]], [False, False, True])
    0.5
    """
    cold = np.asarray(is_cold, dtype=bool)
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
        How many users interacted with each item in training.
    n_users : int
        How many users there are in training.

    Returns
    -------
    ndarray of shape (n_lists,), float64
        NaN for an empty list.

    References
    ----------
    Vargas and Castells, "Rank and relevance in novelty and diversity metrics for recommender systems",
    RecSys 2011.

    Examples
    --------
    >>> novelty([[0, 1]], item_counts=[4, 1], n_users=4)
    array([1.])
    """
    counts = np.asarray(item_counts, dtype=np.float64)
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
    history : sparse matrix of shape (n_users, n_items)
        Not zero where the user interacted with the item in training.

    Returns
    -------
    ndarray of shape (n_users,), float64
        NaN for an empty list or an empty history.

    References
    ----------
    Abdollahpouri, Mansoury, Burke and Mobasher, "The unfairness of popularity bias in recommendation", 2019.

    Examples
    --------
    >>> from scipy.sparse import csr_array
    >>> popularity_lift([[0]], item_counts=[6, 2], history=csr_array([[1, 1]]))
    array([0.5])
    """
    counts = np.asarray(item_counts, dtype=np.float64)
    seen = sparse.csr_array(history).astype(bool).astype(np.float64)
    in_list = _mean_over_list(check_lists(recommended, len(counts)), counts)
    return _ratio(in_list * seen.sum(axis=1), seen @ counts) - 1


def intra_list_diversity(recommended: npt.ArrayLike, item_vectors: Matrix) -> Values:
    """Intra-list diversity: mean over pairs of items in the list of ``1 - cosine`` of their vectors.

    An item whose vector is zero has cosine 0 with every other.

    Parameters
    ----------
    recommended : array-like of int, shape (n_users, n_ranks)
        Codes of items; -1 pads lists that are shorter.
    item_vectors : array-like or sparse matrix of shape (n_items, n_features)
        What items are compared by, such as their encoded genres.

    Returns
    -------
    ndarray of shape (n_users,), float64
        NaN for a list of fewer than two items.

    References
    ----------
    Ziegler, McNee, Konstan and Lausen, "Improving recommendation lists through topic diversification",
    WWW 2005.

    Examples
    --------
    >>> intra_list_diversity([[0, 1], [0, 2]], [[1, 0], [0, 1], [2, 0]])
    array([1., 0.])
    """
    vectors = sparse.csr_array(item_vectors, dtype=np.float64)
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


def _mean_over_list(codes: Codes, values: Values) -> Values:
    filled = codes >= 0
    total = np.where(filled, values[codes], 0.0).sum(axis=1)
    return _ratio(total, np.asarray(filled.sum(axis=1), dtype=np.float64))


def _ratio(numerator: Values, denominator: Values) -> Values:
    """A division in which nothing over nothing is NaN, in silence."""
    result = np.full(len(numerator), np.nan)
    np.divide(numerator, denominator, out=result, where=denominator > 0)
    return result
