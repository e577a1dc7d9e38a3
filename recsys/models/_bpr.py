"""Bayesian personalised ranking: stochastic gradient descent on pairs of a positive and an item that is none."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import sparse

from recsys._sparse import Csr, find_entries

__all__ = ["bpr_epoch", "pool_histories"]

Codes = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

# Pairs in a step: few enough that what they change is not stale, many enough that arrays pay.
BATCH = 2**14


def bpr_epoch(
    matrix: Csr,
    users: tuple[Floats, Floats],
    items: tuple[Floats, Floats],
    *,
    learning_rate: float,
    l2: float,
    rng: np.random.Generator,
) -> float:
    r"""One pass over the positives, in random order, each against an item drawn uniformly from the hot ones.

    Minimises :math:`\sum_{(u, i)} \log(1 + e^{-(s_{ui} - s_{uj})}) + \frac{\lambda}{2} (\sum_u \|x_u\|^2 +
    \sum_i \|y_i\|^2)` [1]_ with steps of AdaGrad, one pace a row [2]_. The score is :math:`s_{ui} = x_u^\top y_i`,
    where the last dimension of :math:`x_u` is held at 1: that of :math:`y_i` is its bias. Draws that are positives of
    the user are left out.

    Parameters
    ----------
    matrix : scipy.sparse.csr_matrix of shape (n_users, n_items)
        Positives, its indices sorted.
    users, items : tuple of ndarray of shapes (n, d) and (n,), float32
        Vectors and the sums of squares that set the pace; changed in place.
    learning_rate : float
    l2 : float
        The penalty :math:`\lambda`, spread over the pairs a row takes part in.
    rng : Generator

    Returns
    -------
    float
        The mean loss of a pair, without the penalty; 0 where no draw is other than a positive.

    References
    ----------
    .. [1] S. Rendle et al., "BPR: Bayesian Personalized Ranking from Implicit Feedback", UAI 2009, section 4.
    .. [2] J. Duchi, E. Hazan, Y. Singer, "Adaptive Subgradient Methods", JMLR 2011.
    """
    n_users, n_items = matrix.shape
    counts = np.bincount(matrix.indices, minlength=n_items)
    hot, lengths = np.flatnonzero(counts), np.diff(matrix.indptr)
    user_of = np.repeat(np.arange(n_users), lengths)
    order = rng.permutation(matrix.nnz)
    against = hot[rng.integers(0, len(hot), matrix.nnz)]
    order = order[~find_entries(matrix, user_of[order], against[order])[1]]
    decay = (l2 / np.maximum(lengths, 1)).astype(np.float32), (l2 / np.maximum(2 * counts, 1)).astype(np.float32)
    total = 0.0
    for start in range(0, len(order), BATCH):
        at = order[start : start + BATCH]
        u, i, j = user_of[at], matrix.indices[at].astype(np.int64), against[at]
        x, difference = users[0][u], items[0][i] - items[0][j]
        margin = np.einsum("nd,nd->n", x, difference)
        total += float(np.logaddexp(0, -margin).sum())
        slope = (-1 / (1 + np.exp(np.clip(margin, -30, 30))))[:, None].astype(np.float32)
        of_user = slope * difference + decay[0][u, None] * x
        of_user[:, -1] = 0
        _descend(*users, u, of_user, learning_rate)
        both = np.concatenate([i, j])
        of_items = np.concatenate([slope * x, -slope * x]) + decay[1][both, None] * items[0][both]
        _descend(*items, both, of_items, learning_rate)
    return total / max(len(order), 1)


def _descend(vectors: Floats, squares: Floats, rows: Codes, gradients: Floats, learning_rate: float) -> None:
    """A step of AdaGrad on the rows, whose gradients are summed where a row comes more than once."""
    touched, which = np.unique(rows, return_inverse=True)
    n = len(rows)
    gather = sparse.csr_matrix((np.ones(n, np.float32), (which, np.arange(n))), shape=(len(touched), n))
    summed = gather @ gradients
    squares[touched] += (summed**2).mean(1)
    vectors[touched] -= np.float32(learning_rate) * summed / np.sqrt(squares[touched, None] + np.float32(1e-8))


def pool_histories(history: Csr, items: Floats) -> Floats:
    r"""What a history says in the space of the items: :math:`\sum_{i \in P} y_i / \sqrt{|P|}`.

    Parameters
    ----------
    history : scipy.sparse.csr_matrix of shape (n, n_items)
        Its pattern counts.
    items : ndarray of shape (n_items, d), float32

    Returns
    -------
    ndarray of shape (n, d), float32

    Examples
    --------
    >>> pool_histories(Csr(np.array([[5, 2], [0, 0]])), np.eye(2, dtype=np.float32)).round(2)
    array([[0.71, 0.71],
           [0.  , 0.  ]], dtype=float32)
    """
    lengths = np.diff(history.indptr)
    shares = np.repeat(1 / np.sqrt(np.maximum(lengths, 1)), lengths).astype(np.float32)
    return np.asarray(Csr((shares, history.indices, history.indptr), history.shape) @ items, dtype=np.float32)
