"""The mathematics of two stages: who is a candidate, scores on one scale, lists that are not all alike."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from recsys._sparse import Csr
from recsys.topk import TopK, row_chunks, top_k

__all__ = ["Moments", "candidate_mask", "diversified", "moments", "stored_entries"]

Codes = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

# Scores that spread by less than this share of their mean are equal but for rounding.
ROUNDING = 1e-6


class Moments(NamedTuple):
    """What puts the scores of each row on one scale.

    Attributes
    ----------
    mean, scale : ndarray of shape (n_rows,), float64
        Mean and standard deviation; the scale of equal scores is 1.
    """

    mean: Doubles
    scale: Doubles

    def standardise(self, scores: Floats, rows: Codes) -> Floats:
        """Scores in standard deviations from the mean of their row, (n_pairs,)."""
        values = scores - self.mean.astype(np.float32)[rows]
        values /= self.scale.astype(np.float32)[rows]
        return values


def candidate_mask(scores: Floats, history: Csr, n: int, n_known: int) -> Mask:
    """Mark the best columns of each row, down to the n-th that is not in its history; ties go to the lower column.

    So what is a candidate depends on scores and history alone, not on what may be recommended this time.

    Parameters
    ----------
    scores : ndarray of shape (n_rows, n_columns), float32
    history : scipy.sparse.csr_matrix of shape (n_rows, n_columns)
        Whatever is stored counts.
    n : int
        At least 1. Where fewer columns are outside the history, all columns are marked.
    n_known : int
        The columns from here on do not count towards n, but may pass the bar that the others set.

    Returns
    -------
    ndarray of shape (n_rows, n_columns), bool

    Examples
    --------
    >>> scores = np.array([[4, 3, 2, 1]], dtype=np.float32)
    >>> candidate_mask(scores, Csr(np.array([[1, 0, 0, 0]])), 2, 4)
    array([[ True,  True,  True, False]])
    """
    outside = scores.copy()
    outside[stored_entries(history)] = -np.inf
    found = top_k(outside[:, :n_known], n)
    if found.columns.shape[1] < n:
        return np.ones(scores.shape, dtype=bool)
    bar, last = found.values[:, -1:], found.columns[:, -1:]
    mask: Mask = scores > bar
    mask |= (scores == bar) & (np.arange(scores.shape[1]) <= last)
    mask[found.lengths < n] = True
    return mask


def stored_entries(matrix: Csr) -> tuple[Codes, Codes]:
    """Rows and columns of what a matrix stores, explicit zeros too.

    Examples
    --------
    >>> stored_entries(Csr(np.array([[0, 1], [1, 0]])))
    (array([0, 1]), array([1, 0]))
    """
    return np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr)), matrix.indices.astype(np.int64)


def moments(scores: Floats, rows: Codes, n_rows: int) -> Moments:
    """Mean and standard deviation of the scores of each row; 0 and 1 where there are none.

    Parameters
    ----------
    scores : ndarray of shape (n_pairs,), float32
    rows : ndarray of shape (n_pairs,), int64
        The row of each.
    n_rows : int

    Returns
    -------
    Moments

    Examples
    --------
    >>> moments(np.array([1, 3, 5], dtype=np.float32), np.array([0, 0, 1]), 2)
    Moments(mean=array([2., 5.]), scale=array([1., 1.]))
    """
    n = np.maximum(np.bincount(rows, minlength=n_rows), 1)
    mean = np.bincount(rows, scores, n_rows) / n
    deviation = np.sqrt(np.bincount(rows, (scores - mean[rows]) ** 2, n_rows) / n)
    return Moments(mean, np.where(deviation > ROUNDING * np.abs(mean), deviation, 1.0))


def diversified(pool: TopK, vectors: Floats, diversity: float, k: int) -> TopK:
    r"""Maximal marginal relevance: the best of each row's pool, item by item, less what it repeats [1]_.

    Next comes the item that maximises

    .. math:: (1 - d) \, r_i - d \, \max_{j \in S} \max(0, \cos(v_i, v_j)),

    d being `diversity`, S the items chosen before, and :math:`r_i` the score, from 0 for the lowest of the pool to 1
    for the highest. Equals keep the order of the pool.

    Parameters
    ----------
    pool : TopK of n rows
    vectors : ndarray of shape (n_items, n_dimensions), float32
    diversity : float
        From 0 to 1.
    k : int
        Length of the lists.

    Returns
    -------
    TopK
        Values are those of the pool: in general they are not in descending order.

    References
    ----------
    .. [1] J. Carbonell, J. Goldstein, "The Use of MMR, Diversity-Based Reranking for Reordering Documents and Producing
       Summaries", SIGIR 1998.

    Examples
    --------
    >>> pool = top_k(np.array([[1.0, 0.9, 0.0]]), 3)
    >>> vectors = np.array([[1, 0], [1, 0], [0, 1]], dtype=np.float32)
    >>> diversified(pool, vectors, 0.7, 2).columns
    array([[0, 2]])
    """
    n, width = pool.columns.shape
    k = min(k, width)
    chosen = np.zeros((n, k), dtype=np.int64)
    units = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    for part in row_chunks(n, width * (vectors.shape[1] + 1)):
        chosen[part] = _marginal(TopK(pool.columns[part], pool.values[part], pool.lengths[part]), units, diversity, k)
    lengths = np.minimum(pool.lengths, k)
    beyond = np.arange(k) >= lengths[:, None]
    columns = np.take_along_axis(pool.columns, chosen, axis=1)
    values = np.take_along_axis(pool.values, chosen, axis=1)
    columns[beyond], values[beyond] = -1, -np.inf
    return TopK(columns, values, lengths)


def _marginal(pool: TopK, units: Floats, diversity: float, k: int) -> Codes:
    """The places in the pool of the items chosen, one after the other."""
    n, width = pool.columns.shape
    rows = np.arange(n)
    left = np.arange(width) < pool.lengths[:, None]
    values = np.where(left, pool.values, np.inf).astype(np.float64)
    least = values.min(axis=1, keepdims=True, initial=np.inf)
    most = np.where(left, values, -np.inf).max(axis=1, keepdims=True, initial=-np.inf)
    spread = most > least
    relevance = np.where(spread & left, values - least, 0.0) / np.where(spread, most - least, 1.0)
    vectors = units[pool.columns]
    repeated = np.zeros((n, width), dtype=np.float32)
    chosen = np.zeros((n, k), dtype=np.int64)
    for rank in range(k):
        marginal = np.where(left, (1 - diversity) * relevance - diversity * repeated, -np.inf)
        best = marginal.argmax(axis=1)
        chosen[:, rank] = best
        left[rows, best] = False
        alike = np.matmul(vectors, vectors[rows, best][:, :, None])[:, :, 0]
        np.maximum(repeated, alike, out=repeated)
    return chosen
