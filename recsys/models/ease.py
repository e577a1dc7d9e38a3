"""EASE: a linear autoencoder over items, in closed form."""

from __future__ import annotations

import os
from numbers import Real
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import linalg
from sklearn.utils._param_validation import Interval

from recsys._sparse import Csr
from recsys.base import BaseRecommender
from recsys.exceptions import InvalidInputError
from recsys.interactions import TrainingData, UserBatch

__all__ = ["EASE"]

Codes = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


class EASE(BaseRecommender):
    r"""Embarrassingly shallow autoencoder: a regression of every item on all the others.

    With `X` the binary matrix of positives, minimise :math:`\|X - XB\|_F^2 + \lambda \|B\|_F^2` with a zero
    diagonal. With :math:`P = (X^\top X + \lambda I)^{-1}` the solution is :math:`B_{ij} = -P_{ij} / P_{jj}` off the
    diagonal [1]_. A user's scores are the sum of the rows of `B` of the items in the history, so new users
    need no training; who has none of these items gets the prior. Time grows with the cube and memory with the square
    of the number of items that have positives.

    Parameters
    ----------
    l2 : float, default=1500.0
        The regularisation :math:`\lambda`. It counts in interactions: small data want a smaller one.
    min_rating : float, default=None
        Rows of `y` below it are no positives. None: rows that are not above 0.

    Attributes
    ----------
    weights_ : ndarray of shape (n_hot_items, n_hot_items), float32
        The matrix `B`.
    hot_items_ : ndarray of shape (n_hot_items,), int64
        The codes of the items in `weights_`; all others score 0.

    References
    ----------
    .. [1] H. Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019, section 3.

    Examples
    --------
    >>> X = pd.DataFrame({"user_id": [1, 1, 2, 2, 3], "item_id": ["tea", "milk", "tea", "milk", "tea"]})
    >>> EASE(l2=1.0).fit(X).recommend([3], k=1)["item_id"].tolist()
    ['milk']
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "l2": [Interval(Real, 0, None, closed="neither")],
        "min_rating": [Real, None],
    }

    def __init__(self, *, l2: float = 1500.0, min_rating: float | None = None) -> None:
        self.l2 = l2
        self.min_rating = min_rating

    def _fit(self, data: TrainingData, warm: bool) -> None:
        counts = np.bincount(data.matrix.indices, minlength=data.matrix.shape[1])
        hot = np.flatnonzero(counts)
        _refuse_if_too_large(len(hot))
        gram = _gram(data.matrix, hot)
        gram[np.diag_indices_from(gram)] += self.l2
        factor, info = linalg.lapack.dpotrf(gram, lower=True, overwrite_a=True)
        inverse, info_inverse = linalg.lapack.dpotri(factor, lower=True, overwrite_c=True)
        if info or info_inverse:
            raise InvalidInputError(
                f"`l2` is {self.l2}, too small for this data: the regression is singular; raise it."
            )
        # Fortran order: the lower triangle that LAPACK filled is mirrored into the upper one, block by block.
        weights = np.tril(inverse) + np.tril(inverse, -1).T
        weights /= -np.diag(weights).copy()
        np.fill_diagonal(weights, 0)
        self.weights_ = np.ascontiguousarray(weights, dtype=np.float32)
        self.hot_items_ = hot.astype(np.int64)

    def _hot_history(self, history: Csr) -> Csr:
        binary = history[:, self.hot_items_]
        binary.data = np.ones_like(binary.data)
        return binary

    def _score_batch(self, batch: UserBatch) -> Floats:
        scores = np.zeros((len(batch), len(self.items_)), dtype=np.float32)
        history = self._hot_history(batch.history)
        scores[:, self.hot_items_] = history @ self.weights_
        # Who has nothing that was met in training gets the prior.
        scores[np.diff(history.indptr) == 0] = self.popularity_
        return scores

    def _explain_pairs(self, batch: UserBatch, rows: Codes, items: Codes) -> pd.DataFrame:
        column_of = np.full(len(self.items_), -1, dtype=np.int64)
        column_of[self.hot_items_] = np.arange(len(self.hot_items_))
        history = self._hot_history(batch.history)[rows]
        row = np.repeat(np.arange(len(rows)), np.diff(history.indptr))
        target = column_of[items][row]
        contribution = np.where(target >= 0, self.weights_[history.indices, target], np.float32(0))
        silent = np.flatnonzero(np.diff(history.indptr) == 0)
        return pd.DataFrame(
            {
                "row": np.concatenate([row, silent]),
                "source": np.repeat(["history", "prior"], [len(row), len(silent)]),
                "field": [*self.items_.decode(self.hot_items_[history.indices]), *["popularity"] * len(silent)],
                "weight": np.float32(1),
                "contribution": np.concatenate([contribution, self.popularity_[items[silent]]]),
            }
        )


def _gram(matrix: Csr, hot: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
    """X'X of the binary matrix of hot items, dense, in Fortran order for LAPACK."""
    binary = matrix[:, hot]
    binary.data = np.ones_like(binary.data)
    return np.asfortranarray((binary.T @ binary).toarray(), dtype=np.float64)


def _refuse_if_too_large(n_items: int) -> None:
    # The Gram matrix, its inverse and the mirrored copy, in float64.
    needed = 3 * 8 * n_items**2
    available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > available:
        raise InvalidInputError(
            f"EASE needs about {needed / 2**30:.1f} GiB for {n_items} items with positives, and the machine has "
            f"{available / 2**30:.1f} GiB; expected fewer items: drop rare ones, or use MatrixFactorization."
        )
