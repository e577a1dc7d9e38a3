"""What a ranker's features stand on: vectors of items and histories, and maps from attributes and content to them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import linalg, sparse
from sklearn.linear_model import Ridge

from recsys._sparse import Csr, pattern, with_constant
from recsys.interactions import ContextRows
from recsys.models._als import als_factors, pad_rows
from recsys.models._als_systems import gather
from recsys.models._dropout_ease import FactorEASE, attribute_ridge, user_weights

__all__ = ["KEEP_RATES", "complete", "content_map", "fold_in", "item_factors", "mean_contexts"]

Doubles = npt.NDArray[np.float64]

# Implicit ALS: confidence of a positive above that of other pairs, rounds, and the penalty, as a share of the geometric
# mean of how many interactions users and items have.
ALPHA, ALS_ROUNDS, ALS_L2 = 1.0, 6, 0.15
# Completion of histories: shares of a history that it is solved for, and penalties a mean number of interactions.
KEEP_RATES = np.array([0.03, 0.15, 0.5])
EASE_L2, ATTRIBUTE_L2 = 2.0, 2.0
# The penalty of what content predicts, and the interactions after which an item's vector is trusted half.
CONTENT_L2, TRUSTED_EVIDENCE = 5.0, 10.0
# Up to so many columns of content their normal equations are solved at once, else each target by passes over them.
MOST_COLUMNS = 4096
# Vectors of histories that are gathered at a time: they stay in the cache of a core.
PIECE_BYTES = 3 * 2**19


def fold_in(history: Csr, factors: Doubles, gram: Doubles) -> Doubles:
    r"""Exact ALS vectors of histories, in double precision.

    Each minimises :math:`\sum_i c_i (p_i - x^\top y_i)^2 + \lambda \|x\|^2`, where :math:`p_i = 1` and
    :math:`c_i = 1 + \alpha` for the items of the history, 0 and 1 for the others. `als_half_step` does the same in
    single precision, whose rounding depends on who is solved for together.

    Parameters
    ----------
    history : scipy.sparse.csr_matrix of shape (n, n_items)
        Its pattern counts.
    factors : ndarray of shape (n_items, n_factors), float64
    gram : ndarray of shape (n_factors, n_factors), float64
        :math:`Y^\top Y + \lambda I`, of the items that the vectors are to tell apart.

    Returns
    -------
    ndarray of shape (n, n_factors), float64
        0 for rows without a history.

    References
    ----------
    Y. Hu, Y. Koren, C. Volinsky, "Collaborative Filtering for Implicit Feedback Datasets", ICDM 2008, section 4.

    Examples
    --------
    >>> fold_in(Csr(np.array([[1, 0], [0, 0]])), np.eye(2), 1.5 * np.eye(2))
    array([[0.8, 0. ],
           [0. , 0. ]])
    """
    n_factors = factors.shape[1]
    answer = np.zeros((history.shape[0], n_factors))
    # In coordinates in which the Gram matrix is the identity, a short history is solved for as many unknowns as it has
    # items: (I + a S'S)^-1 S' = S' (I + a SS')^-1.
    root = np.linalg.cholesky(gram)
    # The last vector, 0, is that of padding.
    whitened = np.vstack([np.linalg.solve(root, factors.T).T, np.zeros(n_factors)])
    blocks = pad_rows(pattern(history), n_factors).blocks
    longest = max((block.columns.shape[1] for block in blocks), default=0)
    scratch = np.empty((max(longest, PIECE_BYTES // whitened[0].nbytes), n_factors))
    for block in blocks:
        columns = np.where(block.weights > 0, block.columns, len(factors))
        size = len(scratch) // columns.shape[1]
        for start in range(0, len(columns), size):
            part = slice(start, start + size)
            seen = gather(whitened, columns[part], scratch)
            turned = seen.transpose(0, 2, 1)
            if seen.shape[1] < n_factors:
                systems = np.eye(seen.shape[1]) + ALPHA * (seen @ turned)
                solved = turned @ np.linalg.solve(systems, np.ones((len(seen), seen.shape[1], 1)))
            else:
                systems = np.eye(n_factors) + ALPHA * (turned @ seen)
                solved = np.linalg.solve(systems, seen.sum(1)[..., None])
            answer[block.rows[part]] = (1 + ALPHA) * solved[..., 0]
    found: Doubles = np.linalg.solve(root.T, answer.T).T
    return found


def item_factors(matrix: Csr, n_factors: int, rng: np.random.Generator, n_jobs: int | None) -> tuple[Doubles, Doubles]:
    """ALS vectors of items, exact for the last vectors of users, and their Gram matrix with the penalty."""
    n_users, n_items = (int(np.count_nonzero(matrix.getnnz(axis))) for axis in (1, 0))
    l2 = ALS_L2 * int(matrix.nnz) / np.sqrt(n_users * n_items)
    users, _ = als_factors(
        matrix, n_factors, alpha=ALPHA, regularization=l2, n_rounds=ALS_ROUNDS, rng=rng, n_jobs=n_jobs
    )
    # Items of the same users get the same vector.
    exact = users.astype(np.float64)
    penalty = l2 * np.eye(n_factors)
    factors = fold_in(matrix.T.tocsr(), exact, exact.T @ exact + penalty)
    return factors, factors.T @ factors + penalty


def complete(matrix: Csr, attributes: Csr, factors: Doubles) -> dict[str, Doubles]:
    """Dropout EASE in the space of the factors: what attributes, and what items in a history, say of all items."""
    left, singular, right = np.linalg.svd(factors, full_matrices=False)
    kept = singular > 1e-4 * max(singular[0], 1e-9)
    basis = left[:, kept].astype(np.float32)
    projection = right[kept].T / singular[kept]
    weights = user_weights(matrix)
    weighed = Csr(sparse.diags_array(np.sqrt(weights)) @ matrix).astype(np.float32)
    counts = np.asarray(weighed.multiply(weighed).sum(axis=0), dtype=np.float32).ravel()
    evidence = int(matrix.nnz) / int(np.count_nonzero(counts))
    expected, cross = attribute_ridge(matrix, attributes, weights, ATTRIBUTE_L2 * evidence)
    solve = FactorEASE.solver(basis, weighed, cross, expected, counts, EASE_L2 * evidence)
    told, completions = [(expected @ basis).astype(np.float64)], []
    for keep in KEEP_RATES:
        history = solve(keep).apply(basis)
        told.append((keep * (expected @ history)).astype(np.float64))
        # As histories enter as sums of factors, the map from these to the basis is all there is to keep.
        completions.append(projection @ (basis.T @ history))
    return {"projection": projection, "attributes": np.stack(told), "completions": np.stack(completions)}


def content_map(content: Csr, targets: Doubles, counts: npt.NDArray[Any]) -> Doubles:
    """A ridge regression from content to targets; coefficients, and the intercept as the last row."""
    known = np.flatnonzero(counts)
    trust = counts[known] / (counts[known] + TRUSTED_EVIDENCE)
    if not content[known].nnz:
        return np.vstack([np.zeros((content.shape[1], targets.shape[1])), np.average(targets[known], 0, trust)])
    if content.shape[1] > MOST_COLUMNS:
        ridge = Ridge(CONTENT_L2, solver="sparse_cg", tol=1e-6)
        ridge.fit(content[known].astype(np.float64), targets[known], sample_weight=trust)
        return np.vstack([ridge.coef_.T, ridge.intercept_])
    inputs = with_constant(content[known]).astype(np.float64)
    weighed = Csr(sparse.diags_array(trust) @ inputs)
    gram = (inputs.T @ weighed).toarray()
    gram[np.diag_indices(len(gram) - 1)] += CONTENT_L2
    found: Doubles = linalg.solve(gram, weighed.T @ targets[known], assume_a="pos")
    return found


def mean_contexts(context: ContextRows | None, n_items: int) -> Doubles:
    """The mean context in which each item was taken, less that of all."""
    if context is None:
        return np.zeros((n_items, 0))
    n, matrix = len(context.items), context.features.matrix.astype(np.float64)
    gather = Csr((np.ones(n), (context.items, np.arange(n))), shape=(n_items, n))
    overall = np.asarray(matrix.sum(0)).reshape(1, -1) / n
    counts = np.asarray(gather.sum(1)).reshape(-1, 1)
    means: Doubles = ((gather @ matrix).toarray() + overall) / (counts + 1) - overall
    return means
