r"""Dropout EASE: a linear autoencoder whose inputs are kept at random, in closed form.

With the binary matrix X of users and items, attributes F of the users that are never dropped, and user weights W, let
``a = (F'WF + L)^-1 F'WX`` be what attributes alone say and ``R = X'WX - X'WF a`` the Gram matrix of what they leave
unsaid. Keeping each interaction with probability q in the regression of X on [X, F] adds ``(1 - q) / q diag(X'WX)`` to
R. With P the inverse of that plus ``l2 I``, a user of history h and attributes f scores

    f a + (h - q f a) B,   B_ij = -P_ij / (q P_jj),  B_jj = 0:

what attributes say, and what the history says beyond what they would lead to expect. As q goes to 0, B goes to
conditional probabilities and suits a user of one interaction; at 1 it is EASE, for users of many.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import linalg, sparse

from recsys._asked import AskedUsers, History, ItemTable
from recsys._graphs import Value
from recsys._sparse import Csr
from recsys.exceptions import InvalidInputError
from recsys.features import Field

__all__ = [
    "DropoutEASE",
    "FactorEASE",
    "attribute_ridge",
    "completed",
    "leading_basis",
    "refuse_if_too_large",
    "user_weights",
]

Floats = npt.NDArray[np.float32]

# A user of n interactions weighs n to this power: between one user, one vote (-1) and one interaction, one vote (0).
WEIGHT_POWER = -0.5
# More directions than are asked for, and rounds, of the subspace iteration.
OVERSAMPLING, ROUNDS = 32, 3
# The penalty of attributes, relative to the largest entry of their Gram matrix, is at least this.
LEAST_PENALTY = 1e-9


class DropoutEASE(NamedTuple):
    """One keep rate, solved: `B` above without ever being formed.

    Attributes
    ----------
    inverse : ndarray of shape (n_items, n_items), float32
        P; only its lower triangle counts.
    keep : float
        q.
    """

    inverse: Floats
    keep: float

    @classmethod
    def solve(cls, residual: Floats, counts: Floats, l2: float, keep: float) -> DropoutEASE:
        """Invert the Gram matrix of one keep rate.

        Parameters
        ----------
        residual : ndarray of shape (n_items, n_items), float32
            R. Not changed.
        counts : ndarray of shape (n_items,), float32
            The diagonal of X'WX.
        l2 : float
        keep : float

        Returns
        -------
        DropoutEASE

        Raises
        ------
        InvalidInputError
            If the matrix is singular: `l2` is too small.

        Examples
        --------
        >>> gram = np.array([[2, 1], [1, 2]], dtype=np.float32)
        >>> solved = DropoutEASE.solve(gram, gram.diagonal(), l2=1.0, keep=0.5)
        >>> solved.apply(np.eye(2, dtype=np.float32)).round(2)
        array([[0. , 0.4],
               [0.4, 0. ]], dtype=float32)
        """
        gram = np.asfortranarray(residual)
        if gram is residual:
            gram = residual.copy(order="F")
        gram[np.diag_indices_from(gram)] += (1 - keep) / keep * counts + l2
        factor, failed = linalg.lapack.spotrf(gram, lower=True, overwrite_a=True)
        if not failed:
            inverse, failed = linalg.lapack.spotri(factor, lower=True, overwrite_c=True)
        if failed:
            raise InvalidInputError(f"`l2` is {l2}, too small for this data: the regression is singular; raise it.")
        return cls(inverse, keep)

    def apply(self, vectors: Floats) -> Floats:
        """``B @ vectors``, for vectors of shape (n_items, r)."""
        return self._minus(vectors, self.inverse.diagonal()[:, None], before=True)

    def apply_transposed(self, vectors: Floats) -> Floats:
        """``B.T @ vectors``, for vectors of shape (n_items, r)."""
        return self._minus(vectors, self.inverse.diagonal()[:, None], before=False)

    def _minus(self, vectors: Floats, diagonal: Floats, before: bool) -> Floats:
        scaled = vectors / diagonal if before else vectors
        product = linalg.blas.ssymm(1.0, self.inverse, scaled, lower=1)
        if not before:
            product /= diagonal
        return np.asarray((vectors - product) / np.float32(self.keep), dtype=np.float32)


def user_weights(matrix: Csr) -> Floats:
    """Weights of users by the length of their history, 1 in the mean over those who have any.

    Parameters
    ----------
    matrix : scipy.sparse.csr_matrix of shape (n_users, n_items)

    Returns
    -------
    ndarray of shape (n_users,), float32

    Examples
    --------
    >>> user_weights(Csr(np.array([[1, 1, 1, 1], [1, 0, 0, 0], [0, 0, 0, 0]]))).round(2)
    array([0.67, 1.33, 0.  ], dtype=float32)
    """
    lengths = np.diff(matrix.indptr)
    weights = np.where(lengths > 0, np.maximum(lengths, 1.0) ** WEIGHT_POWER, 0.0)
    return np.asarray(weights * np.count_nonzero(lengths) / weights.sum(), dtype=np.float32)


def attribute_ridge(matrix: Csr, attributes: Csr, weights: Floats, l2: float) -> tuple[Floats, Floats]:
    """What attributes of users alone say of items; the last attribute is the constant, which is not shrunk.

    Parameters
    ----------
    matrix : scipy.sparse.csr_matrix of shape (n_users, n_items)
        Ones for positives.
    attributes : scipy.sparse.csr_matrix of shape (n_users, p)
    weights : ndarray of shape (n_users,), float32
    l2 : float

    Returns
    -------
    coefficients : ndarray of shape (p, n_items), float32
        a: the score of an item for a user of attributes f is ``f @ a``.
    cross : ndarray of shape (p, n_items), float32
        F'WX.

    Examples
    --------
    >>> constant, one = Csr(np.ones((4, 1), np.float32)), Csr(np.array([[1], [1], [1], [0]], np.float32))
    >>> attribute_ridge(one, constant, np.ones(4, np.float32), l2=1.0)[0].round(2)
    array([[0.75]], dtype=float32)
    """
    weighed = Csr(sparse.diags_array(weights.astype(np.float64)) @ attributes)
    cross = (weighed.T @ matrix).toarray()
    gram = Csr(weighed.T @ attributes)
    # Next to nothing is no penalty: attributes that say the same would leave the system singular.
    l2 = max(l2, LEAST_PENALTY * float(gram.diagonal().max()))
    penalties = np.full(gram.shape[0], l2)
    penalties[-1] = 1e-6 * max(gram[-1, -1], 1.0)
    # Attributes that never meet, as most codes of a large category, have a diagonal block: it is eliminated first.
    alone = _apart(attributes)
    rest = np.flatnonzero(~alone)
    diagonal = gram.diagonal()[alone] + l2
    between = gram[alone][:, rest]
    lifted = Csr(sparse.diags_array(1 / diagonal) @ between)
    schur = (gram[rest][:, rest] - between.T @ lifted).toarray().astype(np.float64)
    schur[np.diag_indices_from(schur)] += penalties[rest]
    coefficients = np.empty(cross.shape)
    coefficients[rest] = linalg.solve(schur, cross[rest] - lifted.T @ cross[alone], assume_a="pos")
    coefficients[alone] = cross[alone] / diagonal[:, None] - lifted @ coefficients[rest]
    return coefficients.astype(np.float32), cross.astype(np.float32)


def _apart(attributes: Csr) -> npt.NDArray[np.bool_]:
    """Columns of which no row has two, and not the last one: those that are the rarest in each of their rows."""
    counts = np.bincount(attributes.indices, minlength=attributes.shape[1])
    rank = np.empty(len(counts), dtype=np.int64)
    rank[np.lexsort((np.arange(len(counts)), counts))] = np.arange(len(counts))
    rows = np.repeat(np.arange(attributes.shape[0]), np.diff(attributes.indptr))
    rarest = np.full(attributes.shape[0], len(counts))
    np.minimum.at(rarest, rows, rank[attributes.indices])
    apart = np.ones(len(counts), dtype=bool)
    apart[attributes.indices[rank[attributes.indices] != rarest[rows]]] = False
    apart[-1] = False
    return apart


def leading_basis(apply: Any, n: int, rank: int, rng: np.random.RandomState) -> tuple[Floats, Floats]:
    """Leading eigenvectors of a positive semidefinite operator, by subspace iteration.

    Parameters
    ----------
    apply : callable
        Multiplies with the operator: (n, r) float32 to (n, r).
    n : int
        Its dimension.
    rank : int
        How many are wanted; n at the most are there.
    rng : RandomState

    Returns
    -------
    vectors : ndarray of shape (n, min(rank, n)), float32
        Orthonormal, the leading one first.
    values : ndarray of shape (min(rank, n),), float32

    References
    ----------
    N. Halko, P. Martinsson, J. Tropp, "Finding Structure with Randomness", SIAM Review 2011, algorithm 4.4.

    Examples
    --------
    >>> operator = np.diag([1, 4, 2]).astype(np.float32)
    >>> vectors, values = leading_basis(lambda x: operator @ x, 3, 1, np.random.RandomState(0))
    >>> values.round(3), np.abs(vectors).round(3).ravel()
    (array([4.], dtype=float32), array([0., 1., 0.], dtype=float32))
    """
    rank = min(rank, n)
    basis = rng.standard_normal((n, min(rank + OVERSAMPLING, n))).astype(np.float32)
    for _ in range(ROUNDS):
        basis, _ = np.linalg.qr(apply(basis))
    inner = basis.T @ apply(basis)
    values, rotation = np.linalg.eigh((inner + inner.T) / 2)
    vectors = basis @ rotation[:, ::-1][:, :rank]
    # The sign of an eigenvector is arbitrary: the largest component is positive.
    signs = np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(rank)])
    return vectors * signs, np.maximum(values[::-1][:rank], 0)


class FactorEASE(NamedTuple):
    """One keep rate, solved for inputs that are combinations of items: for catalogues too large for a Gram matrix.

    A history enters as the sum of its items' factors T, so the regression has as many unknowns as factors. What an item
    says of itself need not be ruled out: few factors cannot tell items apart.

    Attributes
    ----------
    factors : ndarray of shape (n_items, f), float32
        T.
    system : ndarray of shape (f, f), float64
        ``T'(R + (1 - q) / q diag(X'WX) + l2) T``.
    right : callable
        Multiplies R with vectors (n_items, r).
    keep : float
        q.
    """

    factors: Floats
    system: npt.NDArray[np.float64]
    right: Any
    keep: float

    @classmethod
    def solver(cls, factors: Floats, weighed: Csr, cross: Floats, expected: Floats, counts: Floats, l2: float) -> Any:
        """A function that solves for a keep rate.

        Parameters
        ----------
        factors : ndarray of shape (n_items, f), float32
        weighed : scipy.sparse.csr_matrix of shape (n_users, n_items)
            X with rows scaled by the roots of the users' weights.
        cross, expected : ndarray of shape (p, n_items), float32
            As `attribute_ridge` gives them.
        counts : ndarray of shape (n_items,), float32
            The diagonal of X'WX.
        l2 : float

        Returns
        -------
        callable
            From a keep rate to a FactorEASE.
        """

        def residual(vectors: Floats) -> Floats:
            return np.asarray(weighed.T @ (weighed @ vectors) - cross.T @ (expected @ vectors), dtype=np.float32)

        by_rows = factors.T.astype(np.float64) @ residual(factors)

        def solve(keep: float) -> FactorEASE:
            diagonal = (1 - keep) / keep * counts + l2
            return cls(factors, by_rows + factors.T.astype(np.float64) @ (diagonal[:, None] * factors), residual, keep)

        return solve

    def apply(self, vectors: Floats) -> Floats:
        """``B @ vectors``, for vectors of shape (n_items, r)."""
        solved = linalg.solve(self.system, self.factors.T @ self.right(vectors), assume_a="pos")
        return np.asarray(self.factors @ solved / self.keep, dtype=np.float32)


def refuse_if_too_large(n_items: int) -> None:
    """Raise where the Gram matrix, its residual and an inverse would not fit the memory of the machine.

    Parameters
    ----------
    n_items : int

    Raises
    ------
    InvalidInputError
    """
    needed = 4 * 4 * n_items**2
    available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > available:
        raise InvalidInputError(
            f"ContentEASE needs about {needed / 2**30:.1f} GiB for {n_items} items with positives, and the machine has "
            f"{available / 2**30:.1f} GiB; expected fewer items: drop rare ones."
        )


def completed(
    asked: AskedUsers,
    alone: Value,
    attribute_vectors: Floats,
    history_vectors: ItemTable,
    keep_rates: npt.NDArray[np.float64],
    mean_history: float,
) -> Value:
    """As a graph: vectors of users by what they have and are, from those of `ContentEASE`.

    Of the keep rates a user's lies between, the lower one comes first.

    Parameters
    ----------
    asked : AskedUsers
    alone : Value of shape (n_users, d)
        What attributes alone say: the vectors of users without a history.
    attribute_vectors : ndarray of shape (r, n_attributes + 1, d), float32
    history_vectors : ItemTable of r rows an item
    keep_rates : ndarray of shape (r,), float64
    mean_history : float

    Returns
    -------
    Value of shape (n_users, d)
    """
    history, n_attributes = asked.history.pattern, attribute_vectors.shape[1]
    attributes, beside = asked.features.with_constant(n_attributes - 1), np.concatenate(attribute_vectors)
    told: Value | float = 0.0
    for at, share in _blends(history, keep_rates, mean_history):
        heard = history.of_many(len(keep_rates), at).product(history_vectors)
        told = told + share * (heard + attributes.moved(at * n_attributes).product(beside))
    return asked.graph.where(history.lengths, told, alone)


def completed_parts(
    asked: AskedUsers,
    alone: Value,
    fields: Sequence[Field],
    attribute_vectors: Floats,
    history_vectors: ItemTable,
    keep_rates: npt.NDArray[np.float64],
    mean_history: float,
) -> tuple[Value, Value]:
    """As a graph: what the vectors of `completed` are the sum of.

    Parameters
    ----------
    asked, attribute_vectors, history_vectors, keep_rates, mean_history
        As in `completed`.
    alone : Value of shape (n_users, n_fields, d)
        What attributes alone say, field by field.
    fields : sequence of Field
        The last is that of the constant.

    Returns
    -------
    of_fields : Value of shape (n_users, n_fields, d)
    of_history : Value of shape (n_users, length, d)
        Entry by entry.
    """
    history, n_attributes = asked.history.pattern, attribute_vectors.shape[1]
    attributes, beside = asked.features.with_constant(n_attributes - 1), np.concatenate(attribute_vectors)
    told: Value | float = 0.0
    heard: Value | float = 0.0
    for at, share in _blends(history, keep_rates, mean_history):
        heard = heard + share.expand(2) * history.of_many(len(keep_rates), at).gather(history_vectors)
        told = told + share.expand(2) * attributes.by_field(beside, fields, moved=at * n_attributes)
    of_fields = asked.graph.where(history.lengths.expand(2), told, alone)
    return of_fields, history.is_entry.expand(2) * heard


def _blends(history: History, keep_rates: npt.NDArray[np.float64], mean_history: float) -> list[tuple[Value, Value]]:
    """The keep rates that a history lies between, (n_users, 1), int64, and how much each counts."""
    graph = history.lengths.graph
    lengths, rates = history.lengths.as_type(np.float64), np.log(keep_rates)
    keep = (lengths / (lengths + np.array(mean_history))).at_least(keep_rates[:1] / 2)
    steps = (graph.apply("Log", keep) - rates[:-1]) / np.diff(rates)
    place = steps.at_least(np.zeros(1)).at_most(np.ones(1)).sum(1)
    lower = graph.apply("Floor", place).at_most(np.array([len(rates) - 2.0]))
    upper_share = (place - lower).as_type(np.float32)
    return [(lower.as_type(np.int64), 1.0 - upper_share), ((lower + np.ones(1)).as_type(np.int64), upper_share)]
