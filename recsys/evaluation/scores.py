"""`score_metrics`: from scores of all items to the metrics of every user, whichever way ties are broken."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse

from recsys.evaluation import metrics as core
from recsys.evaluation.ranking import METRICS, read_cuts, read_names
from recsys.exceptions import InvalidInputError, did_you_mean, examples
from recsys.topk import top_k

__all__ = ["EXPECTED_METRICS", "TiedRanks", "read_ties", "score_metrics", "tied_ranks"]

TIES = ("catalogue", "expected")


class TiedRanks(NamedTuple):
    """The best ranks of each user, each with the group of equal scores that it lies in: arrays (n_users, n_ranks).

    Attributes
    ----------
    size : ndarray of int64
        Items in the group, also those beyond the last rank.
    relevant : ndarray of int64
        Those of them that are relevant.
    offset : ndarray of int64
        Ranks of the group before this one.
    before : ndarray of int64
        Relevant items in the groups before.
    """

    size: core.Codes
    relevant: core.Codes
    offset: core.Codes
    before: core.Codes

    def hits(self, k: int) -> core.Values:
        """The probability of a hit at each rank."""
        return self.relevant[:, :k] / self.size[:, :k]

    def misses(self, k: int) -> core.Values:
        """The probability that there is no hit up to each rank: drawn without replacement, group after group."""
        left = self.size - self.offset
        # Below 0 where the relevant items of a group must have come already.
        return np.cumprod(np.maximum(left - self.relevant, 0)[:, :k] / left[:, :k], axis=1)


# By the names of `METRICS`: the mean of the metric over all orders of items with equal scores.
EXPECTED_METRICS: dict[str, Callable[[TiedRanks, core.Codes, int], core.Values]] = {
    "HR": lambda ranks, n, k: 1 - ranks.misses(k)[:, -1],
    "Recall": lambda ranks, n, k: ranks.hits(k).sum(axis=1) / n,
    "RecallCalibrated": lambda ranks, n, k: ranks.hits(k).sum(axis=1) / np.minimum(n, k),
    "Precision": lambda ranks, n, k: ranks.hits(k).sum(axis=1) / k,
    "NDCG": lambda ranks, n, k: core.discounted_gain(ranks.hits(k), n, k),
    "MRR": lambda ranks, n, k: _mrr(ranks.misses(k)),
    "MAP": lambda ranks, n, k: _average_precision(ranks, k) / np.minimum(n, k),
}


def _mrr(misses: core.Values) -> core.Values:
    first: core.Values = np.diff(-misses, axis=1, prepend=-1.0)
    return core.total(first / np.arange(1, misses.shape[1] + 1))


def _average_precision(ranks: TiedRanks, k: int) -> core.Values:
    """The sum over ranks of P(hit) times the precision there that is expected of a list with a hit there."""
    # Each rank of the same group holds one of the other relevant items with equal probability.
    others = (ranks.relevant - 1) / np.maximum(ranks.size - 1, 1)
    expected = (1 + ranks.before + ranks.offset * others)[:, :k]
    return core.total(ranks.hits(k) * (expected / np.arange(1, expected.shape[1] + 1)))


def score_metrics(
    scores: npt.ArrayLike,
    relevant: core.Matrix,
    k: int | Sequence[int] = 10,
    metrics: Sequence[str] = ("HR", "Recall", "NDCG", "MRR"),
    *,
    ties: str = "catalogue",
) -> pd.DataFrame:
    """Metrics of every user, from the scores of all items.

    Parameters
    ----------
    scores : array-like of shape (n_users, n_items)
        ``-inf`` marks items that are no candidates, such as those a user has seen.
    relevant : sparse matrix or array-like of shape (n_users, n_items)
        Not zero where an item is relevant to a user; at least one item is to each.
    k : int or sequence of int, default=10
        Where to cut the lists.
    metrics : sequence of str, default=("HR", "Recall", "NDCG", "MRR")
        Among HR, Recall, RecallCalibrated, Precision, NDCG, MRR and MAP.
    ties : {"catalogue", "expected"}, default="catalogue"
        How items with equal scores are ranked: in the order of the columns, or in all orders, each as likely as the
        others. The values are then the means over these orders, in closed form.

    Returns
    -------
    DataFrame of shape (n_users, n_cuts * n_metrics)
        A row a user, in the order of `scores`; columns such as "NDCG@10".

    Raises
    ------
    InvalidInputError
        If shapes do not fit, a score or a relevance is NaN, nothing is relevant to a user, or a metric or `ties` is
        unknown.

    References
    ----------
    McSherry and Najork, "Computing information retrieval performance measures efficiently in the presence of tied
    scores", ECIR 2008.

    Examples
    --------
    The relevant item shares the highest score with two others:

    >>> scores, relevant = [[5.0, 5.0, 5.0, 1.0]], [[0, 0, 1, 0]]
    >>> score_metrics(scores, relevant, k=2, metrics=["HR", "MRR"])
       HR@2  MRR@2
    0   0.0    0.0
    >>> score_metrics(scores, relevant, k=2, metrics=["HR", "MRR"], ties="expected").round(3)
        HR@2  MRR@2
    0  0.667    0.5
    """
    cuts, names, ties = read_cuts(k), read_names(metrics), read_ties(ties)
    try:
        values = np.asarray(scores)
    except ValueError as error:
        raise InvalidInputError(
            f"`scores` is no array ({error}); expected numbers of shape (n_users, n_items)."
        ) from error
    if values.ndim != 2 or not values.shape[1] or values.dtype.kind not in "iuf":
        raise InvalidInputError(
            f"`scores` has dtype {values.dtype} and shape {values.shape}; expected numbers of shape (n_users, n_items)."
        )
    if values.dtype.kind != "f":
        values = values.astype(np.float64)
    wanted = _read_relevant(relevant, values.shape)
    n = np.diff(wanted.indptr).astype(np.int64)
    if ties == "expected":
        ranks = tied_ranks(values, wanted, max(cuts))
        found = {f"{name}@{cut}": EXPECTED_METRICS[name](ranks, n, cut) for cut in cuts for name in names}
    else:
        hits = core.hit_matrix(top_k(values, max(cuts)).columns, wanted)
        found = {f"{name}@{cut}": METRICS[name](hits, n, cut) for cut in cuts for name in names}
    return pd.DataFrame(found)


def read_ties(ties: Any) -> str:
    """`ties`, checked."""
    if not isinstance(ties, str) or ties not in TIES:
        raise InvalidInputError(f"`ties` is {ties!r}. {did_you_mean(str(ties), TIES)}")
    return ties


def _read_relevant(relevant: Any, shape: tuple[int, ...]) -> core.Matrix:
    """The relevant pairs as a CSR matrix of the shape of the scores."""
    try:
        wanted = sparse.csr_array(relevant, copy=True)
        missing = np.isnan(wanted.data).any()
    except (TypeError, ValueError) as error:
        raise InvalidInputError(
            f"`relevant` is no matrix of numbers ({error}); expected one of shape {shape}, not zero where an item is "
            f"relevant."
        ) from error
    if missing:
        raise InvalidInputError("`relevant` holds NaN; expected 0 where an item is not relevant: fill it in.")
    wanted.sum_duplicates()
    wanted.eliminate_zeros()
    if wanted.shape != shape:
        raise InvalidInputError(f"`relevant` has shape {wanted.shape}; expected {shape}, as `scores` has.")
    without = np.flatnonzero(np.diff(wanted.indptr) == 0)
    if len(without):
        raise InvalidInputError(
            f"`relevant` holds nothing for {len(without)} users (rows {examples(without)}); expected at least one "
            f"relevant item to judge a ranking by: leave these users out."
        )
    return wanted


def tied_ranks(scores: npt.NDArray[np.floating[Any]], relevant: core.Matrix, k: int) -> TiedRanks:
    """The groups of equal scores that the k best ranks of each user lie in.

    Parameters
    ----------
    scores : ndarray of shape (n_users, n_items), float
        ``-inf`` marks what is no candidate.
    relevant : CSR matrix of shape (n_users, at least n_items)
        Not zero where an item is relevant to a user.
    k : int

    Returns
    -------
    TiedRanks
        Of min(k, n_items) ranks; ranks beyond the candidates are those of groups without relevant items.
    """
    best = top_k(scores, k)
    hits = core.hit_matrix(best.columns, relevant)
    n_ranks = hits.shape[1]
    starts = np.ones(hits.shape, dtype=bool)
    starts[:, 1:] = best.values[:, 1:] != best.values[:, :-1]
    group = np.cumsum(starts).reshape(starts.shape) - 1
    size = np.bincount(group.ravel())[group]
    n_hits = np.bincount(group.ravel(), weights=hits.ravel()).astype(np.int64)[group]
    # The last group may go on beyond the last rank.
    last = best.values[:, -1]
    rows = np.repeat(np.arange(len(last)), np.diff(relevant.indptr))
    known = relevant.indices < scores.shape[1]
    rows, columns = rows[known], relevant.indices[known]
    tied = (scores[rows, columns] == last[rows]) & (last[rows] > -np.inf)
    in_last = group == group[:, -1:]
    size = np.where(in_last, np.count_nonzero(scores == last[:, None], axis=1)[:, None], size)
    n_hits = np.where(in_last, np.bincount(rows[tied], minlength=len(last))[:, None], n_hits)
    first = np.maximum.accumulate(np.where(starts, np.arange(n_ranks), 0), axis=1)
    before: core.Codes = np.take_along_axis(np.cumsum(hits, axis=1) - hits, first, axis=1)
    return TiedRanks(size, n_hits, np.arange(n_ranks) - first, before)
