"""Interactions held out from a trial fit of both stages, on which the share of the ranker is chosen."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from recsys._sparse import Csr, distinct_rows, find_entries, keep, positives, random_places, to_csr
from recsys._state import FEW_SHOT, HOT, WARM
from recsys.features import EncodedFeatures
from recsys.interactions import ContextRows, UserBatch

__all__ = ["HeldOut", "Judges", "held_out"]

Codes = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

# Users of each kind who judge, at the most. The more is held out, the more a stage that learns much from little is
# preferred; so of all users a tenth is hidden altogether, at the most,
JUDGES = 1000
NEWCOMERS = 10
# and of the positives of a known judge a tenth, but one at least. Fewer new users than these tell nothing.
SHARE = 10
LEAST = 20
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
        By how the users are answered: ``HOT``, ``FEW_SHOT``, ``WARM``; empty where nobody has two positives, without
        the others where too few are there.
    """

    history: Csr
    judges: dict[int, Judges]


def held_out(history: Csr, features: EncodedFeatures, context: ContextRows | None, rng: np.random.Generator) -> HeldOut:
    """Draw users who judge, and hold out what they are to be recommended.

    A part of the positives of known users is held out, and all that some others have: these judge as newcomers, who
    show a few interactions or, where they have features, none.

    Parameters
    ----------
    history : scipy.sparse.csr_matrix of shape (n_users, n_items)
        Weights; explicit zeros were only seen.
    features : EncodedFeatures of n_users
    context : ContextRows or None
        Of all positives.
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
    of_known = UserBatch(
        known, np.ones(len(known), dtype=bool), keep(liked, ~hidden)[known], features.take(known), _paths(known, HOT)
    )
    # To a model, a new user has no code.
    strangers, unfitted = np.full(len(new), -1), np.zeros(len(new), dtype=bool)
    of_few = UserBatch(strangers, unfitted, few, told, _paths(new, FEW_SHOT))
    of_warm = UserBatch(strangers, unfitted, keep(few, np.zeros(few.nnz, dtype=bool)), told, _paths(new, WARM))
    drawn_judges = {
        HOT: (known, Judges(of_known, keep(liked, hidden)[known])),
        FEW_SHOT: (new, Judges(of_few, rest)),
        WARM: (new[warm], Judges(of_warm.take(warm), liked[new[warm]])),
    }
    judges = {
        path: found if context is None else _in_context(found, users, context, rng)
        for path, (users, found) in drawn_judges.items()
        if len(users) >= (1 if path == HOT else LEAST)
    }
    return HeldOut(_without(history, liked, hidden, new), judges)


def _paths(users: Codes, path: int) -> npt.NDArray[np.int8]:
    return np.full(len(users), path, dtype=np.int8)


def _in_context(judges: Judges, users: Codes, context: ContextRows, rng: np.random.Generator) -> Judges:
    """The same users, each in the contexts in which what is held out happened, and what was wanted there."""
    place = np.searchsorted(users, context.users)
    rows = np.flatnonzero(users[np.minimum(place, len(users) - 1)] == context.users)
    rows = rows[find_entries(judges.wanted, place[rows], context.items[rows])[1]]
    first, query = distinct_rows(place[rows], context.features.matrix[rows])
    asked = np.sort(rng.permutation(len(first))[:JUDGES])
    batch = judges.batch.take(place[rows[first[asked]]])
    kept = np.isin(query, asked)
    wanted = to_csr(
        np.searchsorted(asked, query[kept]),
        context.items[rows[kept]],
        np.ones(int(kept.sum()), dtype=np.float32),
        (len(asked), judges.wanted.shape[1]),
    )
    return Judges(replace(batch, context=context.features.take(rows[first[asked]])), wanted)


def _without(history: Csr, liked: Csr, hidden: Mask, users: Codes) -> Csr:
    """The history but for some positives, and for all rows of some users."""
    row = np.repeat(np.arange(history.shape[0]), np.diff(history.indptr))
    kept = ~np.isin(row, users)
    # Positives are in the same order in both.
    positive = np.flatnonzero(history.data > 0)
    kept[positive[hidden]] = False
    return keep(history, kept)
