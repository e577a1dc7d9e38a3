"""Popularity: the same list for everybody, and the bar that every model must clear."""

from __future__ import annotations

from numbers import Real
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from recsys.interactions import TrainingData, UserBatch
from recsys.vectors import VectorRecommender

__all__ = ["Popularity"]

Codes = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


class Popularity(VectorRecommender):
    """Recommend the items that most users have among their positives.

    The score of an item is the share of users who have it among their positives.

    Parameters
    ----------
    min_rating : float, default=None
        Rows of `y` below it are no positives. None: rows that are not above 0.

    Attributes
    ----------
    popularity_ : ndarray of shape (n_items,), float32
        The score of each item.

    Examples
    --------
    >>> X = pd.DataFrame({"user_id": ["ann", "bob", "bob"], "item_id": ["tea", "tea", "milk"]})
    >>> Popularity().fit(X).recommend(["eve"], k=2)[["item_id", "score"]].values.tolist()
    [['tea', 1.0], ['milk', 0.5]]
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {"min_rating": [Real, None]}

    def __init__(self, *, min_rating: float | None = None) -> None:
        self.min_rating = min_rating

    def _fit(self, data: TrainingData, warm: bool) -> None:
        """Nothing to learn beyond `popularity_`."""

    def _warn_cold(self, batch: UserBatch, ids: pd.Index) -> None:
        """Nobody is cold to a model that answers everybody alike."""

    def _user_vectors(self, batch: UserBatch) -> Floats:
        return np.ones((len(batch), 1), dtype=np.float32)

    def _item_vectors(self) -> Floats:
        return self.popularity_[:, None]

    def _similarity(self, items: Codes) -> Floats:
        return np.tile(self.popularity_, (len(items), 1))

    def _explain_pairs(self, batch: UserBatch, rows: Codes, items: Codes) -> pd.DataFrame:
        return pd.DataFrame(
            {
                "row": np.arange(len(rows)),
                "source": "item",
                "field": "popularity",
                "weight": np.float32(1),
                "contribution": self.popularity_[items],
            }
        )
