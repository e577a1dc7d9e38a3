"""Nearest neighbours by features: items that look like what a user has, and what users who look alike have."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse
from sklearn.utils._param_validation import Interval

from recsys._sparse import Csr, pattern, to_csr, unit_rows
from recsys.base import BaseRecommender
from recsys.interactions import TrainingData, UserBatch
from recsys.topk import top_k

__all__ = ["ContentKNN", "DemographicKNN"]

Codes = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

# Rows of dense similarities computed at a time.
CHUNK = 256


class ContentKNN(BaseRecommender):
    """Nearest neighbours by content: an item scores the similarities of the user's items that are its neighbours.

    The similarity of two items is the cosine of their encoded features. Neighbours are items that have positives, so a
    warm item gets as good a score as a hot one. Who has nothing that is like anything gets the prior.

    Parameters
    ----------
    n_neighbors : int, default=6
        Neighbours kept an item; of equally similar ones those that came first. Where features cannot tell items apart,
        and many are alike, more are better.
    min_rating : float, default=None
        Rows of `y` below it are no positives. None: rows that are not above 0.

    Attributes
    ----------
    neighbors_ : scipy.sparse.csr_matrix of shape (n_items, n_items), float32
        In row i the similarities of item i to its neighbours.

    Examples
    --------
    >>> X = pd.DataFrame({"user_id": ["ann", "bob"], "item_id": ["tea", "nails"]})
    >>> items = pd.DataFrame({"kind": ["drink", "tool", "drink"]}, index=["tea", "nails", "milk"])
    >>> ContentKNN().fit(X, item_features=items).recommend(["ann"], k=1)["item_id"].tolist()
    ['milk']
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_neighbors": [Interval(Integral, 1, None, closed="left")],
        "min_rating": [Real, None],
    }

    def __init__(self, *, n_neighbors: int = 6, min_rating: float | None = None) -> None:
        self.n_neighbors = n_neighbors
        self.min_rating = min_rating

    def _fit(self, data: TrainingData, warm: bool) -> None:
        n_items = data.matrix.shape[1]
        self.fitted_n_neighbors_ = int(self.n_neighbors)
        self.neighbors_ = self._find_neighbors(np.arange(n_items))

    def _items_appended(self) -> None:
        n_known, n_items = self.neighbors_.shape[0], len(self.items_)
        known = self.neighbors_
        widened = Csr((known.data, known.indices, known.indptr), shape=(n_known, n_items))
        self.neighbors_ = sparse.vstack([widened, self._find_neighbors(np.arange(n_known, n_items))], format="csr")

    def _find_neighbors(self, items: Codes) -> Csr:
        unit = unit_rows(self.item_features_.matrix).astype(np.float32)
        hot = np.flatnonzero(self.popularity_ > 0)
        pool = Csr(unit[hot].T)
        rows, columns, values = [], [], []
        for start in range(0, len(items), CHUNK):
            chunk = items[start : start + CHUNK]
            similarity = (unit[chunk] @ pool).toarray()
            itself = hot[None, :] == chunk[:, None]
            similarity[itself | (similarity <= 0)] = -np.inf
            found, scores = top_k(similarity, self.fitted_n_neighbors_)[:2]
            kept = found >= 0
            rows.append(start + np.nonzero(kept)[0])
            columns.append(hot[found[kept]])
            values.append(scores[kept])
        shape = (len(items), len(self.items_))
        if not rows:
            return to_csr(items[:0], items[:0], np.zeros(0, dtype=np.float32), shape)
        return to_csr(np.concatenate(rows), np.concatenate(columns), np.concatenate(values), shape)

    def _score_batch(self, batch: UserBatch) -> Floats:
        history = batch.history.copy()
        history.data = np.ones_like(history.data)
        scores = np.asarray((history @ self.neighbors_.T).toarray(), dtype=np.float32)
        # Who has nothing that is like anything gets the prior.
        scores[~scores.any(axis=1)] = self.popularity_
        return scores

    def _similarity(self, items: Codes) -> Floats:
        return np.asarray(self.neighbors_[items].toarray(), dtype=np.float32)

    def _explain_pairs(self, batch: UserBatch, rows: Codes, items: Codes) -> pd.DataFrame:
        history = batch.history[rows]
        history.data = np.ones_like(history.data)
        heeded = history.multiply(self.neighbors_[items]).tocoo()
        silent = np.flatnonzero((history @ self.neighbors_.T).sum(axis=1) == 0)
        return pd.DataFrame(
            {
                "row": np.concatenate([heeded.row, silent]),
                "source": np.repeat(["history", "prior"], [len(heeded.row), len(silent)]),
                "field": [*self.items_.decode(heeded.col), *["popularity"] * len(silent)],
                "weight": np.float32(1),
                "contribution": np.concatenate([heeded.data, self.popularity_[items[silent]]]).astype(np.float32),
            }
        )


class DemographicKNN(BaseRecommender):
    r"""Nearest neighbours by attributes: what users like this one have.

    The score of an item is the share of the user's neighbours who have it among their positives, each weighing its
    similarity, the cosine of encoded attributes: :math:`\sum_v s_{uv} x_{vi} / \sum_v s_{uv}`. Neighbours are users
    with positives, the user among them; of equally similar ones those who came first. Who has interactions but no
    attributes gets the prior.

    Parameters
    ----------
    n_neighbors : int, default=625
    min_rating : float, default=None
        Rows of `y` below it are no positives. None: rows that are not above 0.

    Attributes
    ----------
    hot_users_ : ndarray of shape (n_hot_users,), int64
        Codes of the users with positives.
    attributes_ : scipy.sparse.csr_matrix of shape (n_columns, n_hot_users), float32
        Their encoded attributes, each of length 1.

    Examples
    --------
    >>> X = pd.DataFrame({"user_id": ["ann", "bob"], "item_id": ["tea", "ale"]})
    >>> users = pd.DataFrame({"club": ["chess", "darts", "darts"]}, index=["ann", "bob", "eve"])
    >>> DemographicKNN(n_neighbors=1).fit(X, user_features=users).recommend(["eve"], k=1)["item_id"].tolist()
    ['ale']
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_neighbors": [Interval(Integral, 1, None, closed="left")],
        "min_rating": [Real, None],
    }

    _uses_user_features = True

    def __init__(self, *, n_neighbors: int = 625, min_rating: float | None = None) -> None:
        self.n_neighbors = n_neighbors
        self.min_rating = min_rating

    def _fit(self, data: TrainingData, warm: bool) -> None:
        self.fitted_n_neighbors_ = int(self.n_neighbors)
        self.hot_users_ = np.flatnonzero(np.diff(data.matrix.indptr))
        self.attributes_ = Csr(unit_rows(data.user_features.matrix).astype(np.float32)[self.hot_users_].T)
        self.neighbor_history_ = self._widened(pattern(data.matrix)[self.hot_users_])

    def _items_appended(self) -> None:
        self.neighbor_history_ = self._widened(self.neighbor_history_)

    def _widened(self, matrix: Csr) -> Csr:
        return Csr((matrix.data, matrix.indices, matrix.indptr), (matrix.shape[0], len(self.items_)))

    def _shares(self, batch: UserBatch) -> Csr:
        """How much each hot user counts for each user asked for: rows sum to 1, or are empty."""
        unit, found = unit_rows(batch.features.matrix).astype(np.float32), []
        for start in range(0, len(batch), CHUNK):
            chunk = slice(start, start + CHUNK)
            similarity = (unit[chunk] @ self.attributes_).toarray()
            similarity[similarity <= 0] = -np.inf
            codes, scores = top_k(similarity, self.fitted_n_neighbors_)[:2]
            kept = codes >= 0
            rows = start + np.nonzero(kept)[0]
            found.append((rows, codes[kept], scores[kept]))
        rows, columns, weights = (np.concatenate(parts) for parts in zip(*found, strict=True))
        total = np.bincount(rows, weights, minlength=len(batch))
        return to_csr(rows, columns, (weights / total[rows]).astype(np.float32), (len(batch), len(self.hot_users_)))

    def _score_batch(self, batch: UserBatch) -> Floats:
        shares = self._shares(batch)
        scores: Floats = (shares @ self.neighbor_history_).toarray()
        scores[np.diff(shares.indptr) == 0] = self.popularity_
        return scores

    def _similarity(self, items: Codes) -> Floats:
        """Cosine of the sets of users who have the items."""
        columns = self.neighbor_history_.T.tocsr()
        norms = np.sqrt(np.diff(columns.indptr)).astype(np.float32)
        unit = Csr(sparse.diags_array(1 / np.maximum(norms, 1)) @ columns).astype(np.float32)
        return np.asarray((unit[items] @ unit.T).toarray(), dtype=np.float32)

    def _explain_pairs(self, batch: UserBatch, rows: Codes, items: Codes) -> pd.DataFrame:
        asked, distinct = np.unique(rows, return_inverse=True)
        shares = self._shares(batch.take(asked))[distinct]
        heeded = shares.multiply(self.neighbor_history_.T.tocsr()[items]).tocoo()
        alone = np.flatnonzero(np.diff(shares.indptr) == 0)
        neighbors = self.users_.decode(self.hot_users_[heeded.col])
        frames = [
            pd.DataFrame({"row": heeded.row, "source": "user", "field": neighbors, "contribution": heeded.data}),
            pd.DataFrame(
                {"row": alone, "source": "prior", "field": "popularity", "contribution": self.popularity_[items[alone]]}
            ),
        ]
        told = pd.concat([frame for frame in frames if len(frame)] or frames[:1], ignore_index=True)
        told.insert(3, "weight", np.float32(1))
        return told.astype({"contribution": np.float32})
