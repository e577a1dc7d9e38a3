"""Interactions held out from a trial fit of both stages, on which the share of the ranker is chosen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recsys._requests import read_context
from recsys._sparse import Csr, keep, positives, random_places
from recsys._state import FEW_SHOT, HOT, WARM
from recsys.features import EncodedFeatures, FeatureEncoder
from recsys.interactions import UserBatch

__all__ = ["HeldOut", "Judges", "held_out"]

Codes = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

# Users of each kind who judge, at the most; of all users a fifth at the most are hidden from the trial fit altogether.
JUDGES = 1000
NEWCOMERS = 5
# Of the positives of a known judge, a fifth is held out, one at least.
SHARE = 5
# A new user comes with half of the positives, and with so many at the most.
FEW = 5


@dataclass(frozen=True)
class Judges:
    """Users and what they are to be recommended.

    Attributes
    ----------
    batch : UserBatch
    wanted : scipy.sparse.csr_matrix of shape (n_users, n_items)
        Held-out positives; every user has some.
    """

    batch: UserBatch
    wanted: Csr


@dataclass(frozen=True)
class HeldOut:
    """What a trial fit may see, and who judges it.

    Attributes
    ----------
    history : scipy.sparse.csr_matrix of shape (n_users, n_items)
        What is left to learn from.
    judges : dict of int to Judges
        By how the users are answered: ``HOT``, ``FEW_SHOT``, ``WARM``; empty where nobody has two positives.
    """

    history: Csr
    judges: dict[int, Judges]


def held_out(
    history: Csr, features: EncodedFeatures, context: FeatureEncoder | None, rng: np.random.Generator
) -> HeldOut:
    """Draw users who judge, and hold out what they are to be recommended.

    A part of the positives of known users is held out, and all that some others have: these judge as newcomers, who
    show a few interactions or, where they have features, none.

    Parameters
    ----------
    history : scipy.sparse.csr_matrix of shape (n_users, n_items)
        Weights; explicit zeros were only seen.
    features : EncodedFeatures of n_users
    context : FeatureEncoder or None
        Judges are asked without context.
    rng : Generator

    Returns
    -------
    HeldOut
    """
    liked = positives(history)
    counts = np.diff(liked.indptr)
    drawn = rng.permutation(np.flatnonzero(counts >= 2))
    n_new = min(JUDGES, len(drawn) // NEWCOMERS)
    new, known = np.sort(drawn[:n_new]), np.sort(drawn[n_new : n_new + JUDGES])
    places, row = random_places(liked, rng), np.repeat(np.arange(len(counts)), counts)
    hidden = np.isin(row, known) & (places < np.maximum(counts // SHARE, 1)[row])
    few = keep(liked, np.isin(row, new) & (places < np.minimum(counts // 2, FEW)[row]))[new]
    rest = keep(liked, np.isin(row, new) & (places >= np.minimum(counts // 2, FEW)[row]))[new]
    told = features.take(new)
    warm = np.flatnonzero(told.present.any(axis=1))
    nothing = keep(few, np.zeros(few.nnz, dtype=bool))
    asked = {
        HOT: (known, keep(liked, ~hidden)[known], features.take(known), keep(liked, hidden)[known]),
        FEW_SHOT: (np.full(len(new), -1), few, told, rest),
        WARM: (np.full(len(warm), -1), nothing[warm], told.take(warm), liked[new[warm]]),
    }
    judges = {
        path: Judges(_batch(path, codes, shown, about, context), wanted)
        for path, (codes, shown, about, wanted) in asked.items()
        if len(codes)
    }
    return HeldOut(_without(history, liked, hidden, new), judges)


def _batch(path: int, codes: Codes, shown: Csr, features: EncodedFeatures, context: FeatureEncoder | None) -> UserBatch:
    n = len(codes)
    trained, paths = np.full(n, path == HOT), np.full(n, path, dtype=np.int8)
    return UserBatch(codes, trained, shown, features, paths, read_context(None, n, context))


def _without(history: Csr, liked: Csr, hidden: Mask, users: Codes) -> Csr:
    """The history but for some positives, and for all rows of some users."""
    row = np.repeat(np.arange(history.shape[0]), np.diff(history.indptr))
    kept = ~np.isin(row, users)
    # Positives are in the same order in both.
    positive = np.flatnonzero(history.data > 0)
    kept[positive[hidden]] = False
    return keep(history, kept)
