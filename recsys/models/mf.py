"""Matrix factorisation of implicit feedback by alternating least squares."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval

from recsys.interactions import TrainingData, UserBatch
from recsys.models._als import als_half_step, pad_rows
from recsys.vectors import VectorRecommender

__all__ = ["MatrixFactorization"]

Codes = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


class MatrixFactorization(VectorRecommender):
    r"""Implicit-feedback matrix factorisation (iALS) with fold-in of new users.

    Minimises :math:`\sum_{ui} c_{ui} (p_{ui} - x_u^\top y_i)^2 + \lambda (\sum_u \|x_u\|^2 + \sum_i \|y_i\|^2)`
    over all pairs, where :math:`p_{ui}` is 1 for positives and 0 elsewhere and :math:`c_{ui} = 1 + \alpha r_{ui}`
    with the weight :math:`r_{ui}` of a positive (its `y`), 0 elsewhere [1]_. Users and items are solved for in turn,
    by conjugate gradients [2]_ while they still move and exactly at the end, so that a user's vector is what folding
    in the same history gives. A few-shot user costs one small linear system. It has no use for features: warm users
    get the prior, warm items score 0.

    Parameters
    ----------
    n_factors : int, default=64
    max_iter : int, default=15
        Rounds; each solves for all users and all items.
    alpha : float, default=1.0
        How much more a positive of weight 1 counts than an unobserved pair.
    l2 : float, default=30.0
        The regularisation :math:`\lambda`.
    min_rating : float, default=None
        Rows of `y` below it are no positives. None: rows that are not above 0.
    random_state : int, RandomState instance or None, default=None
        Seeds the initial factors.

    Attributes
    ----------
    user_factors_ : ndarray of shape (n_users, n_factors), float32
        Zero for users without positives.
    item_factors_ : ndarray of shape (n_items, n_factors), float32
        Zero for items without positives.

    References
    ----------
    .. [1] Y. Hu, Y. Koren, C. Volinsky, "Collaborative Filtering for Implicit Feedback Datasets", ICDM 2008,
       section 4.
    .. [2] G. Takács, I. Pilászy, D. Tikk, "Applications of the Conjugate Gradient Method for Implicit Feedback
       Collaborative Filtering", RecSys 2011.

    Examples
    --------
    >>> X = pd.DataFrame({"user_id": [1, 1, 2, 2, 3], "item_id": ["tea", "milk", "tea", "milk", "tea"]})
    >>> MatrixFactorization(n_factors=2, l2=0.1, random_state=0).fit(X).recommend([3], k=1)["item_id"].tolist()
    ['milk']
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_factors": [Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "l2": [Interval(Real, 0, None, closed="neither")],
        "min_rating": [Real, None],
        "random_state": ["random_state"],
    }

    user_factors_: Floats
    item_factors_: Floats

    def __init__(
        self,
        *,
        n_factors: int = 64,
        max_iter: int = 15,
        alpha: float = 1.0,
        l2: float = 30.0,
        min_rating: float | None = None,
        random_state: Any = None,
    ) -> None:
        self.n_factors = n_factors
        self.max_iter = max_iter
        self.alpha = alpha
        self.l2 = l2
        self.min_rating = min_rating
        self.random_state = random_state

    def _fit(self, data: TrainingData, warm: bool) -> None:
        by_user, by_item = pad_rows(data.matrix, self.n_factors), pad_rows(data.matrix.T.tocsr(), self.n_factors)
        rng = check_random_state(self.random_state)
        users = (rng.standard_normal((data.matrix.shape[0], self.n_factors)) / 100).astype(np.float32)
        items = (rng.standard_normal((data.matrix.shape[1], self.n_factors)) / 100).astype(np.float32)
        if warm:
            users[: len(self.user_factors_)] = self.user_factors_
            items[: len(self.item_factors_)] = self.item_factors_
        # What was fitted before is near its optimum: a third of the rounds moves it to the new one.
        for _ in range(max(1, self.max_iter // 3) if warm else self.max_iter):
            users = als_half_step(by_user, items, users, alpha=self.alpha, regularization=self.l2)
            items = als_half_step(by_item, users, items, alpha=self.alpha, regularization=self.l2)
        self.item_factors_ = items
        self.user_factors_ = self._fold_in(data.matrix, items)

    def _fold_in(self, history: Any, items: Floats) -> Floats:
        return als_half_step(history, items, None, alpha=self.alpha, regularization=self.l2, solver="cholesky")

    def _user_vectors(self, batch: UserBatch) -> Floats:
        vectors = np.empty((len(batch), self.item_factors_.shape[1]), dtype=np.float32)
        vectors[batch.trained] = self.user_factors_[batch.codes[batch.trained]]
        new = np.flatnonzero(~batch.trained)
        if len(new):
            vectors[new] = self._fold_in(batch.history[new][:, : len(self.item_factors_)], self.item_factors_)
        return vectors

    def _item_vectors(self) -> Floats:
        missing = len(self.items_) - len(self.item_factors_)
        return np.pad(self.item_factors_, ((0, missing), (0, 0))) if missing else self.item_factors_

    def _explain_pairs(self, batch: UserBatch, rows: Codes, items: Codes) -> pd.DataFrame:
        # x_u solves A x = sum of c_uj y_j over the history: linear in the history, so each item has its share.
        factors = self._item_vectors()
        gram = factors.T @ factors + self.l2 * np.eye(factors.shape[1], dtype=np.float32)
        parts = [
            _shares(batch.history[row], factors, gram, factors[item], self.alpha)
            for row, item in zip(rows, items, strict=True)
        ]
        lengths = [len(part[0]) for part in parts]
        return pd.DataFrame(
            {
                "row": np.repeat(np.arange(len(rows)), lengths),
                "source": "history",
                "field": self.items_.decode(np.concatenate([part[0] for part in parts])),
                "weight": np.concatenate([part[1] for part in parts]),
                "contribution": np.concatenate([part[2] for part in parts]),
            }
        )


def _shares(history: Any, factors: Floats, gram: Floats, target: Floats, alpha: float) -> tuple[Codes, Floats, Floats]:
    """The items of one history, their confidence, and their parts of the score of `target`."""
    seen = factors[history.indices]
    extra = alpha * history.data
    direction = np.linalg.solve(gram.astype(np.float64) + (seen.T * extra) @ seen, target)
    return history.indices, 1 + extra, ((1 + extra) * (seen @ direction)).astype(np.float32)
