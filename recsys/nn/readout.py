"""The closed-form readout: a ridge regression from content to the vectors that hot items have learned, and its bias."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import linalg, sparse
from sklearn.utils.extmath import randomized_svd

from recsys._sparse import Csr, pattern
from recsys.topk import row_chunks

__all__ = ["EXPOSED", "EXPOSURE", "Readout", "exposure_shift", "ridge_readout"]

Floats = npt.NDArray[np.float32]

PENALTIES = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
# Up to this many rows or columns the decomposition is exact; beyond, it keeps as many leading components.
EXACT = 4096
# Warm items are to be among so many of the best this much as often as if they were hot: some are of no use to anyone.
EXPOSED, EXPOSURE = 10, 0.5


class Readout(NamedTuple):
    """What `ridge_readout` finds.

    Attributes
    ----------
    coefficients : ndarray of shape (p, d), float32
    intercept : ndarray of shape (d,), float32
    penalty : float
    left_out : ndarray of shape (n, d), float32
        The vector of each row as predicted from all the others.
    """

    coefficients: Floats
    intercept: Floats
    penalty: float
    left_out: Floats


def ridge_readout(content: sparse.csr_matrix, vectors: Floats, weights: Floats, seed: int) -> Readout:
    r"""Weighted ridge regression with an intercept, its penalty chosen by the exact leave-one-out error.

    With rows :math:`a_i` of `content`, targets :math:`t_i` and weights :math:`w_i` it minimises
    :math:`\sum_i w_i \|a_i W + m - t_i\|^2 + \lambda \|W\|^2`, where m is the weighted mean of the targets. Leaving one
    item out changes its residual to :math:`r_i / (1 - h_i)` (PRESS), so no penalty needs a second fit.

    Parameters
    ----------
    content : scipy.sparse.csr_matrix of shape (n, p)
    vectors : ndarray of shape (n, d), float32
    weights : ndarray of shape (n,), float32
        How far each vector is to be trusted.
    seed : int
        For the randomised decomposition of large matrices.

    Returns
    -------
    Readout

    Examples
    --------
    >>> content = sparse.csr_matrix(np.eye(2, dtype=np.float32).repeat(50, axis=0))
    >>> vectors = np.array([[1.0], [3.0]], dtype=np.float32).repeat(50, axis=0)
    >>> readout = ridge_readout(content, vectors, np.ones(100, np.float32), seed=0)
    >>> (readout.coefficients + readout.intercept).round(1).ravel().tolist()
    [1.0, 3.0]
    """
    intercept = np.average(vectors, axis=0, weights=weights)
    if not content.count_nonzero():
        nothing = np.zeros((content.shape[1], vectors.shape[1]), dtype=np.float32)
        mean = intercept.astype(np.float32)
        return Readout(nothing, mean, 0.0, np.tile(mean, (len(vectors), 1)))
    root = np.sqrt(weights.astype(np.float64))
    left, singular, right = _decompose(sparse.diags_array(root) @ content, seed)
    targets = root[:, None] * (vectors - intercept)
    projected = left.T @ targets
    least, penalty, left_out = np.inf, 0.0, targets
    for tried in PENALTIES:
        shrunk = singular**2 / (singular**2 + tried)
        leverage = np.minimum((left**2) @ shrunk, 1 - 1e-6)
        errors = (targets - left @ (shrunk[:, None] * projected)) / (1 - leverage)[:, None]
        if (squared := float((errors**2).sum())) < least:
            least, penalty, left_out = squared, tried, errors
    coefficients = right.T @ ((singular / (singular**2 + penalty))[:, None] * projected)
    predicted = vectors - left_out / np.maximum(root, 1e-6)[:, None]
    return Readout(coefficients.astype(np.float32), intercept.astype(np.float32), penalty, predicted.astype(np.float32))


def exposure_shift(users: Floats, seen: Csr, vectors: Floats, left_out: Floats) -> float:
    """What to add to the scores of warm items, so that they come up half as often as if they were hot.

    A regression predicts less than there is: beside hot items, warm ones would hardly come up. An item comes up for a
    user where it scores above the tenth best of what the user has not seen; how often is counted for all hot items with
    the vectors they have learned, and then with those that content predicts, each left out of the regression.

    Parameters
    ----------
    users : ndarray of shape (n, d), float32
    seen : scipy.sparse.csr_matrix of shape (n, m)
        Its pattern counts.
    vectors, left_out : ndarray of shape (m, d), float32
        Of hot items, as learned and as predicted.

    Returns
    -------
    float
        0 or more; 0 where there are no more than ten hot items.

    Examples
    --------
    Twelve items that score 1 to 12, of which the predictions know nothing: the bar is 3, nine items are above it, and
    of the twelve that score 2 four are to come up.

    >>> scores = np.arange(1, 13, dtype=np.float32)[:, None]
    >>> unseen = Csr((1, 12), dtype=np.float32)
    >>> exposure_shift(np.ones((1, 1), np.float32), unseen, scores, np.full_like(scores, 2)) > 1
    True
    """
    if len(vectors) <= EXPOSED:
        return 0.0
    n_own, gaps = 0, [np.zeros(0, dtype=np.float32)]
    for rows in row_chunks(len(users), len(vectors)):
        scores = users[rows] @ vectors.T
        unseen = np.where(pattern(seen[rows]).toarray() > 0, -np.inf, scores)
        bar = np.partition(unseen, -EXPOSED, axis=1)[:, -EXPOSED, None]
        n_own += int(np.count_nonzero(scores > bar))
        gap = (bar - users[rows] @ left_out.T).ravel()
        gaps.append(gap[np.isfinite(gap)].astype(np.float32))
    gap = np.concatenate(gaps)
    at = int(EXPOSURE * n_own)
    # Just above the gap of the last that is to come up.
    return (
        max(0.0, float(np.nextafter(np.partition(gap, at - 1)[at - 1], np.float32(np.inf))))
        if 0 < at <= len(gap)
        else 0.0
    )


def _decompose(
    matrix: sparse.csr_matrix, seed: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Singular vectors and values, left (n, r), (r,), right (r, p), without those that vanish."""
    if min(matrix.shape) > EXACT:
        left, singular, right = randomized_svd(matrix, n_components=EXACT // 8, random_state=seed)
    else:
        tall = matrix.shape[0] >= matrix.shape[1]
        gram = (matrix.T @ matrix if tall else matrix @ matrix.T).toarray()
        values, basis = linalg.eigh(gram)
        kept = values > values[-1] * 1e-8
        singular, basis = np.sqrt(values[kept]), basis[:, kept]
        other = (matrix @ basis if tall else matrix.T @ basis) / singular
        left, right = (other, basis.T) if tall else (basis, other.T)
    kept = singular > singular.max() * 1e-6
    return left[:, kept], singular[kept], right[kept]
