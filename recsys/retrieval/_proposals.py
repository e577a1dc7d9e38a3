"""Candidates of users who are asked for, and what a retriever and a ranker say of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from recsys._state import COLD, WARM
from recsys.base import BaseRecommender
from recsys.interactions import UserBatch
from recsys.retrieval._blending import Moments, candidate_mask, moments, stored_entries

__all__ = ["Proposals", "as_known_to", "proposer"]

Codes = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

# Where more than this part of the catalogue are candidates, scores of all of it cost less than those of pairs.
DENSE = 0.5


class Proposals(NamedTuple):
    """Candidates of a batch of users, pair by pair, and what both stages say of them.

    Attributes
    ----------
    retrieved : ndarray of shape (n_users, n_items), float32
        Scores of the retriever.
    rows, items : ndarray of shape (n_pairs,), int64
        The candidates, user by user.
    ranked : ndarray of shape (n_pairs,), float32
        Scores of the ranker.
    fresh : ndarray of shape (n_pairs,), bool
        Whether the item was there in fit, and is not in the history of the user.
    first, second : Moments
        Of the scores of the retriever and of the ranker, over the fresh ones.
    """

    retrieved: Floats
    rows: Codes
    items: Codes
    ranked: Floats
    fresh: Mask
    first: Moments
    second: Moments

    def blended(self, weights: Doubles, heard: Mask) -> Floats:
        """The scores of the pairs, (n_pairs,).

        Parameters
        ----------
        weights : ndarray of shape (n_users,), float64
            The share of the ranker for each user.
        heard : ndarray of shape (n_items,), bool
            The items on which the ranker is heard.
        """
        share = weights.astype(np.float32)[self.rows] * heard[self.items]
        scores = self.second.standardise(self.ranked, self.rows)
        scores *= share
        np.subtract(1, share, out=share)
        share *= self.first.standardise(self.retrieved[self.rows, self.items], self.rows)
        scores += share
        return scores


def as_known_to(stage: BaseRecommender, batch: UserBatch) -> UserBatch:
    """The same users; who is known by features alone is cold to a stage without use for them."""
    if stage._uses_user_features:
        return batch
    return replace(batch, path=np.where(batch.path == WARM, COLD, batch.path).astype(np.int8))


def proposer(
    retriever: BaseRecommender, ranker: BaseRecommender, n: int, n_known: int
) -> Callable[[UserBatch, Doubles], Proposals]:
    """A function that finds the candidates of users who are not cold, and what both stages say of them.

    Where all shares of the ranker are 0, it is not asked.
    """
    retrieve = retriever._scorer()

    def propose(batch: UserBatch, weights: Doubles) -> Proposals:
        retrieved = retrieve(as_known_to(retriever, batch))
        inside = candidate_mask(retrieved, batch.history, n, n_known)
        rows, items = np.nonzero(inside)
        new = np.ones(inside.shape, dtype=bool)
        new[stored_entries(batch.history)] = False
        new[:, n_known:] = False
        fresh = new[inside]
        first = moments(retrieved[inside][fresh], rows[fresh], len(batch))
        if not weights.any():
            return Proposals(retrieved, rows, items, np.zeros(len(rows), dtype=np.float32), fresh, first, first)
        asked = as_known_to(ranker, batch)
        dense = len(rows) > DENSE * inside.size
        ranked = ranker._scorer()(asked)[inside] if dense else ranker._score_pairs(asked, rows, items)
        second = moments(ranked[fresh], rows[fresh], len(batch))
        return Proposals(retrieved, rows, items, ranked, fresh, first, second)

    return propose
