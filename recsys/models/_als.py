"""Alternating least squares for implicit feedback: the mathematics, on shares of the rows.

The vector x of a user with positives P minimises ``sum_i c_i (p_i - x.y_i)^2 + l2 |x - m|^2``: it solves ``A x = b``
with ``A = Y'Y + l2 I + sum_P (c_i - 1) y_i y_i'`` and ``b = sum_P c_i y_i + l2 m``, where m is what is expected of the
user beforehand. Items are solved for in the same way.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from joblib import effective_n_jobs

from recsys._sparse import Csr, positives
from recsys.exceptions import InvalidInputError
from recsys.models import _als_systems
from recsys.models._als_systems import Block, make_system, solve_by_gradients, solve_exactly
from recsys.topk import run_on_threads

__all__ = ["PaddedRows", "als_directions", "als_factors", "als_half_step", "als_loss", "pad_rows"]

Floats = npt.NDArray[np.float32]

# A padded row costs vectors of its own besides its entries: about this many entries' worth.
ROW_SLOTS = 4
# The same for gradients, and what one call of them solves for: enough for its calls to cost little, in entries.
ROW_COST = 16
SHARE = 2**17


class PaddedRows(NamedTuple):
    """A sparse matrix as `pad_rows` lays it out."""

    slots: int
    blocks: list[Block]


def pad_rows(matrix: Csr, n_factors: int) -> PaddedRows:
    """Lay a matrix out in dense blocks.

    Rows are sorted by length and cut into blocks, each padded to its longest row. The result takes 8 bytes an entry.

    Parameters
    ----------
    matrix : scipy.sparse.csr_matrix of shape (n, m), float32
        Weights of the positives. Explicit zeros are no positives.
    n_factors : int
        A block of vectors of this length fits the cache.

    Returns
    -------
    PaddedRows
        Its `blocks` leave out rows without positives.

    Raises
    ------
    InvalidInputError
        If a weight is negative.

    Examples
    --------
    >>> padded = pad_rows(Csr(np.array([[1, 0, 2], [0, 0, 0], [0, 3, 0]], dtype=np.float32)), n_factors=2)
    >>> padded.blocks[0].rows, padded.blocks[0].weights
    (array([0, 2]), array([[1., 2.],
           [3., 0.]], dtype=float32))
    """
    matrix = _positives(matrix)
    slots = max(1, _als_systems.BLOCK_BYTES // (4 * n_factors))
    lengths = np.diff(matrix.indptr)
    order = np.argsort(-lengths, kind="stable")[: np.count_nonzero(lengths)]
    blocks = []
    start = 0
    while start < len(order):
        longest = int(lengths[order[start]])
        stop = start + max(1, slots // (longest + ROW_SLOTS))
        rows = order[start:stop]
        at = np.arange(longest)
        filled = at < lengths[rows, None]
        at = np.where(filled, at + matrix.indptr[rows, None], 0)
        weights = np.where(filled, matrix.data[at], 0).astype(np.float32, copy=False)
        blocks.append(Block(rows, np.where(filled, matrix.indices[at], 0), weights))
        start = stop
    return PaddedRows(slots, blocks)


def _positives(matrix: Csr) -> Csr:
    """The matrix without its explicit zeros."""
    if (matrix.data <= 0).any():
        if (matrix.data < 0).any():
            raise InvalidInputError(f"`matrix` has the weight {matrix.data.min()}; expected no negative ones.")
        matrix = positives(matrix)
    return matrix


def als_half_step(
    matrix: Csr,
    fixed: Floats,
    current: Floats | None = None,
    *,
    alpha: float,
    regularization: float,
    prior: Floats | None = None,
    gram: Floats | None = None,
    solver: Literal["cg", "cholesky"] = "cg",
    cg_steps: int = 3,
    n_jobs: int | None = None,
) -> Floats:
    r"""Solve for the vectors of all rows, those of the columns being fixed.

    Row u minimises :math:`\sum_i c_{ui} (p_{ui} - x_u^\top y_i)^2 + \lambda \|x_u - m_u\|^2`, where
    :math:`p_{ui} = 1` and :math:`c_{ui} = 1 + \alpha r_{ui}` for positives of weight :math:`r_{ui}`, 0 and 1
    elsewhere [1]_.

    Parameters
    ----------
    matrix : scipy.sparse.csr_matrix of shape (n, m), float32
        Weights of the positives. Explicit zeros are no positives.
    fixed : ndarray of shape (m, n_factors), float32
        The vectors of the columns.
    current : ndarray of shape (n, n_factors), float32, default=None
        Where the conjugate gradients start; None: from 0. Not changed. The exact solver ignores it.
    alpha : float
    regularization : float
        :math:`\lambda`, the same for every row, however many positives it has.
    prior : ndarray of shape (n, n_factors), float32, default=None
        The means :math:`m_u` that vectors are drawn towards. None: 0.
    gram : ndarray of shape (n_factors, n_factors), float32, default=None
        ``fixed.T @ fixed`` of the columns that count where they are no positives. None: of all.
    solver : {"cg", "cholesky"}, default="cg"
        `cg_steps` conjugate gradient steps [2]_, or the exact solution.
    cg_steps : int, default=3
    n_jobs : int, default=None
        Threads, as in scikit-learn; the answer is the same bit for bit whatever their number.

    Returns
    -------
    ndarray of shape (n, n_factors), float32
        Exactly 0 for rows without positives.

    Raises
    ------
    InvalidInputError
        If the solver is unknown, shapes do not fit, or the exact system is singular (only without regularisation).

    References
    ----------
    .. [1] Y. Hu, Y. Koren, C. Volinsky, "Collaborative Filtering for Implicit Feedback Datasets", ICDM 2008, section 4.
    .. [2] G. Takács, I. Pilászy, D. Tikk, "Applications of the Conjugate Gradient Method for Implicit Feedback
       Collaborative Filtering", RecSys 2011.

    Examples
    --------
    >>> matrix = Csr(np.array([[1, 0], [0, 0]], dtype=np.float32))
    >>> fixed = np.eye(2, dtype=np.float32)
    >>> als_half_step(matrix, fixed, alpha=1.0, regularization=0.5)
    array([[0.8, 0. ],
           [0. , 0. ]], dtype=float32)
    """
    if solver not in ("cg", "cholesky"):
        raise InvalidInputError(f"`solver` is {solver!r}; expected 'cg' or 'cholesky'.")
    n_columns, n_factors = fixed.shape
    n_rows = matrix.shape[0]
    of_rows = [None if vectors is None else vectors.shape for vectors in (current, prior)]
    if matrix.shape[1] != n_columns or any(shape not in (None, (n_rows, n_factors)) for shape in of_rows):
        raise InvalidInputError(
            f"`matrix`, `fixed`, `current` and `prior` have the shapes {matrix.shape}, {fixed.shape}, {of_rows[0]} and "
            f"{of_rows[1]}; expected (n, m), (m, n_factors), (n, n_factors) and (n, n_factors)."
        )
    matrix = _positives(matrix.astype(np.float32, copy=False))
    system = make_system(fixed, gram, alpha, regularization, prior)
    answer = np.zeros((n_rows, n_factors), dtype=np.float32)

    def step(rows: slice) -> None:
        start = np.zeros_like(answer[rows]) if current is None else current[rows].astype(np.float32)
        answer[rows] = solve_by_gradients(system, matrix, rows, start, cg_steps)

    def solve(blocks: list[Block]) -> None:
        scratch = np.empty((min(padded.slots, max(block.columns.size for block in blocks)), n_factors), np.float32)
        for block in blocks:
            answer[block.rows] = solve_exactly(system, block, scratch)

    if solver == "cg":
        # Shares do not depend on the number of threads, nor do, with them, the last bits of the answer.
        cost = np.cumsum(np.diff(matrix.indptr) + ROW_COST)
        bounds = [0, *(np.flatnonzero(np.diff(cost // SHARE)) + 1), n_rows]
        run_on_threads(step, [slice(*ends) for ends in pairwise(bounds)], n_jobs)
        answer[np.diff(matrix.indptr) == 0] = 0
    else:
        padded = pad_rows(matrix, n_factors)
        n_shares = min(4 * effective_n_jobs(n_jobs), len(padded.blocks))
        run_on_threads(solve, [padded.blocks[i::n_shares] for i in range(n_shares)], n_jobs)
    return answer


def als_factors(
    matrix: Csr,
    n_factors: int,
    *,
    alpha: float,
    regularization: float,
    n_rounds: int,
    rng: np.random.Generator | np.random.RandomState,
    n_jobs: int | None = None,
) -> tuple[Floats, Floats]:
    """Factorise: so many rounds of half steps for rows and for columns, from small random vectors.

    Parameters
    ----------
    matrix : scipy.sparse.csr_matrix of shape (n, m), float32
    n_factors : int
    alpha, regularization, n_jobs
        As in `als_half_step`.
    n_rounds : int
    rng : Generator or RandomState

    Returns
    -------
    rows : ndarray of shape (n, n_factors), float32
    columns : ndarray of shape (m, n_factors), float32

    Examples
    --------
    >>> matrix, rng = Csr(np.eye(2, dtype=np.float32)), np.random.default_rng(0)
    >>> rows, columns = als_factors(matrix, 2, alpha=1.0, regularization=0.01, n_rounds=20, rng=rng)
    >>> (rows @ columns.T).round(1) + 0.0
    array([[1., 0.],
           [0., 1.]], dtype=float32)
    """
    by_column = matrix.T.tocsr()
    rows, columns = ((rng.standard_normal((n, n_factors)) / 100).astype(np.float32) for n in matrix.shape)
    for _ in range(n_rounds):
        rows = als_half_step(matrix, columns, rows, alpha=alpha, regularization=regularization, n_jobs=n_jobs)
        columns = als_half_step(by_column, rows, columns, alpha=alpha, regularization=regularization, n_jobs=n_jobs)
    return rows, columns


def als_directions(
    matrix: Csr,
    fixed: Floats,
    targets: Floats,
    *,
    alpha: float,
    regularization: float,
    gram: Floats | None = None,
) -> Floats:
    r"""What a row's score of a target is linear in: :math:`A_u^{-1} t_u`.

    A row's vector is :math:`x_u = A_u^{-1} b_u`, so its product with a target is :math:`t_u^\top x_u = d_u^\top b_u`,
    and as :math:`b_u` is a sum over the positives and the prior mean, each has its part of the score.

    Parameters
    ----------
    matrix : scipy.sparse.csr_matrix of shape (n, m), float32
    fixed : ndarray of shape (m, n_factors), float32
    targets : ndarray of shape (n, n_factors), float32
    alpha, regularization, gram
        As in `als_half_step`.

    Returns
    -------
    ndarray of shape (n, n_factors), float32
        For a row without positives its target over `regularization`: its vector is the prior mean.

    Examples
    --------
    >>> matrix = Csr(np.array([[1, 0], [0, 0]], dtype=np.float32))
    >>> als_directions(matrix, np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32), alpha=1.0, regularization=0.5)
    array([[0.4, 0. ],
           [0. , 2. ]], dtype=float32)
    """
    padded = pad_rows(matrix, fixed.shape[1])
    system = make_system(fixed, gram, alpha, regularization)
    answer = targets / np.float32(regularization)
    scratch = np.empty((padded.slots, fixed.shape[1]), dtype=np.float32)
    for block in padded.blocks:
        answer[block.rows] = solve_exactly(system, block, scratch, targets)
    return answer


def als_loss(matrix: Csr, users: Floats, items: Floats, *, alpha: float, regularization: float) -> float:
    r"""The objective that the half steps lower, over all pairs, without the dense matrix.

    :math:`\sum_{ui} c_{ui} (p_{ui} - x_u^\top y_i)^2 + \lambda (\sum_u \|x_u\|^2 + \sum_i \|y_i\|^2)`. Were no pair a
    positive, the sum would be :math:`\mathrm{tr}(X^\top X\, Y^\top Y)`; the positives correct it.

    Parameters
    ----------
    matrix : scipy.sparse.csr_matrix of shape (n, m), float32
        Weights of the positives.
    users : ndarray of shape (n, n_factors), float32
    items : ndarray of shape (m, n_factors), float32
    alpha, regularization : float

    Returns
    -------
    float

    Examples
    --------
    >>> one, two = np.ones((1, 1), dtype=np.float32), np.ones((2, 1), dtype=np.float32)
    >>> als_loss(Csr([[3.0, 0.0]]), one, 2 * two, alpha=1.0, regularization=0.0)
    8.0
    """
    x, y = users.astype(np.float64), items.astype(np.float64)
    gram_x, gram_y = x.T @ x, y.T @ y
    loss = float(np.sum(gram_x * gram_y) + regularization * (np.trace(gram_x) + np.trace(gram_y)))
    rows = np.repeat(np.arange(len(x)), np.diff(matrix.indptr))
    for start in range(0, matrix.nnz, 2**16):
        piece = slice(start, start + 2**16)
        inner = np.einsum("ef,ef->e", x[rows[piece]], y[matrix.indices[piece]])
        confidence = 1 + alpha * matrix.data[piece].astype(np.float64)
        change = confidence * (1 - inner) ** 2 - inner**2
        loss += float(change[matrix.data[piece] > 0].sum())
    return loss
