"""The closed-form readout: a ridge regression from content to the vectors that hot items have learned."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import linalg, sparse
from sklearn.utils.extmath import randomized_svd

__all__ = ["ridge_readout"]

Floats = npt.NDArray[np.float32]

PENALTIES = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
# Up to this many rows or columns the decomposition is exact; beyond, it keeps as many leading components.
EXACT = 4096


def ridge_readout(
    content: sparse.csr_matrix, vectors: Floats, weights: Floats, seed: int
) -> tuple[Floats, Floats, float]:
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
    coefficients : ndarray of shape (p, d), float32
    intercept : ndarray of shape (d,), float32
    penalty : float

    Examples
    --------
    >>> content = sparse.csr_matrix(np.eye(2, dtype=np.float32).repeat(50, axis=0))
    >>> vectors = np.array([[1.0], [3.0]], dtype=np.float32).repeat(50, axis=0)
    >>> coefficients, intercept, _ = ridge_readout(content, vectors, np.ones(100, np.float32), seed=0)
    >>> (coefficients + intercept).round(1).ravel().tolist()
    [1.0, 3.0]
    """
    intercept = np.average(vectors, axis=0, weights=weights)
    if not content.count_nonzero():
        return np.zeros((content.shape[1], vectors.shape[1]), dtype=np.float32), intercept.astype(np.float32), 0.0
    root = np.sqrt(weights.astype(np.float64))
    left, singular, right = _decompose(sparse.diags_array(root) @ content, seed)
    targets = root[:, None] * (vectors - intercept)
    projected = left.T @ targets
    best = (np.inf, 0.0)
    for penalty in PENALTIES:
        shrunk = singular**2 / (singular**2 + penalty)
        leverage = np.minimum((left**2) @ shrunk, 1 - 1e-6)
        errors = (targets - left @ (shrunk[:, None] * projected)) / (1 - leverage)[:, None]
        best = min(best, (float((errors**2).sum()), penalty))
    penalty = best[1]
    coefficients = right.T @ ((singular / (singular**2 + penalty))[:, None] * projected)
    return coefficients.astype(np.float32), intercept.astype(np.float32), penalty


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
