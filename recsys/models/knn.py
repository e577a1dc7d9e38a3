"""Content kNN: items that look like what a user has."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse
from sklearn.utils._param_validation import Interval

from recsys._sparse import Csr, to_csr
from recsys.base import BaseRecommender
from recsys.interactions import TrainingData, UserBatch
from recsys.topk import top_k

__all__ = ["ContentKNN"]

Codes = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

# Rows of dense similarities computed at a time.
CHUNK = 256


class ContentKNN(BaseRecommender):
    """Nearest neighbours by content: an item scores the similarities of the user's items that are its neighbours.

    The similarity of two items is the cosine of their encoded features. Neighbours are items that have positives, so a
    warm item gets as good a score as a hot one.

    Parameters
    ----------
    n_neighbors : int, default=100
        Neighbours kept an item.
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

    def __init__(self, *, n_neighbors: int = 100, min_rating: float | None = None) -> None:
        self.n_neighbors = n_neighbors
        self.min_rating = min_rating

    def _fit(self, data: TrainingData, warm: bool) -> None:
        n_items = data.matrix.shape[1]
        self.neighbors_ = self._find_neighbors(np.arange(n_items))

    def _items_appended(self) -> None:
        n_known, n_items = self.neighbors_.shape[0], len(self.items_)
        known = self.neighbors_
        widened = Csr((known.data, known.indices, known.indptr), shape=(n_known, n_items))
        self.neighbors_ = sparse.vstack([widened, self._find_neighbors(np.arange(n_known, n_items))], format="csr")

    def _find_neighbors(self, items: Codes) -> Csr:
        content = self.item_features_.matrix
        norms = np.sqrt(np.asarray(content.multiply(content).sum(axis=1))).ravel()
        unit = Csr(sparse.diags_array(1 / np.maximum(norms, 1e-12)) @ content).astype(np.float32)
        hot = np.flatnonzero(self.popularity_ > 0)
        pool = Csr(unit[hot].T)
        rows, columns, values = [], [], []
        for start in range(0, len(items), CHUNK):
            chunk = items[start : start + CHUNK]
            similarity = (unit[chunk] @ pool).toarray()
            itself = hot[None, :] == chunk[:, None]
            similarity[itself | (similarity <= 0)] = -np.inf
            found, scores = top_k(similarity, self.n_neighbors)[:2]
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
        return np.asarray((history @ self.neighbors_.T).toarray(), dtype=np.float32)

    def _similarity(self, items: Codes) -> Floats:
        return np.asarray(self.neighbors_[items].toarray(), dtype=np.float32)

    def _explain_pairs(self, batch: UserBatch, rows: Codes, items: Codes) -> pd.DataFrame:
        history = batch.history[rows]
        history.data = np.ones_like(history.data)
        heeded = history.multiply(self.neighbors_[items]).tocoo()
        return pd.DataFrame(
            {
                "row": heeded.row,
                "source": "history",
                "field": self.items_.decode(heeded.col),
                "weight": np.float32(1),
                "contribution": heeded.data.astype(np.float32),
            }
        )
