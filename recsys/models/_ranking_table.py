"""What a ranker is trained on: positives and negatives of held-out folds, described by what the other folds tell."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from joblib import effective_n_jobs

from recsys._sparse import Csr, distinct_rows, find_entries, keep, pattern, random_places, take_rows
from recsys.features import EncodedFeatures
from recsys.interactions import ContextRows, TrainingData
from recsys.models._ranking_features import PairFeatures, Queries
from recsys.topk import single_threaded_blas

__all__ = ["RankingTable", "ranking_table"]

Codes = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

# The shares of items that are hidden in a fold, of histories that are cut short, and of queries whose attributes, or
# whose context, are hidden; and lengths that histories are cut to, where it is not to a random share of themselves.
HIDDEN_ITEMS, CUT_HISTORIES, HIDDEN_FIELDS = 0.15, 0.5, 0.1
SHORT, SHARES = np.array([0, 0, 1, 2, 3, 5, 10, 20]), 0.2
# Positives of a user over all folds, and users in a fold, at the most.
MAX_POSITIVES, MAX_USERS = 20, 10_000
# Draws until a negative is none of the user's positives.
MAX_DRAWS = 10


class RankingTable(NamedTuple):
    """What a ranker is trained on.

    Attributes
    ----------
    values : ndarray of shape (n_pairs, n_features), float32
        NaN where something is unknown.
    labels : ndarray of shape (n_pairs,), int64
        1 for positives, 0 for negatives.
    groups : ndarray of int64
        How many pairs each query has; they stand one after the other.
    """

    values: Floats
    labels: Codes
    groups: Codes


def ranking_table(
    data: TrainingData,
    *,
    n_factors: int,
    n_folds: int,
    n_negatives: int,
    seed: int,
    n_jobs: int | None = None,
) -> tuple[RankingTable, PairFeatures]:
    """Pairs to train a ranker on, each described without its own fold, and what describes pairs in use.

    Positives are split into folds at random. While a fold is ranked, everything is learned from the other folds; some
    items are hidden besides, histories are cut short, and attributes and contexts are hidden, so that new items and new
    users come up as they do in use. Negatives are drawn uniformly from the items that have positives, and are none of
    the user's: were popular ones drawn more often, popularity would seem a fault. A user brings at most 20 positives.

    Parameters
    ----------
    data : TrainingData
    n_factors : int
    n_folds : int
        At least 2.
    n_negatives : int
        A positive.
    seed : int
    n_jobs : int, default=None
        Threads, as in scikit-learn: a task is to learn from a fold's complement or from everything, or to describe the
        pairs of a fold.

    Returns
    -------
    table : RankingTable
        Without queries that have no negatives, as those of users who have everything.
    features : PairFeatures
        What was learned from everything.

    Examples
    --------
    >>> data = TrainingData(Csr(np.eye(9, dtype=np.float32)), EncodedFeatures.empty(9), EncodedFeatures.empty(9), None)
    >>> table, features = ranking_table(data, n_factors=2, n_folds=3, n_negatives=1, seed=0)
    >>> table.labels[:4], table.groups[:2]
    (array([1, 0, 1, 0]), array([2, 2]))
    """
    rng = np.random.default_rng(seed)
    matrix = pattern(data.matrix)
    matrix.sort_indices()
    fold_of = rng.permutation(matrix.nnz) % n_folds
    hot = np.bincount(matrix.indices, minlength=matrix.shape[1]) > 0
    rows, row_folds = _positive_rows(data, matrix, fold_of)

    def learn(fold: int, rng: np.random.Generator) -> tuple[PairFeatures, TrainingData, ContextRows] | None:
        hidden = rng.random(matrix.shape[1]) < HIDDEN_ITEMS * hot
        kept = (fold_of != fold) & ~hidden[matrix.indices]
        wanted = _take(rows, _some_of_each(rows.users, row_folds == fold, -(-MAX_POSITIVES // n_folds), rng))
        if not kept.any() or not len(wanted.users):
            return None
        visible = _visible(data, matrix, kept, row_folds != fold, hidden)
        return PairFeatures.fit(visible, n_factors, rng), visible, wanted

    def rank(fold: int, rng: np.random.Generator) -> RankingTable | None:
        known = learned[fold].result()
        return None if known is None else _rank(*known, matrix, n_negatives, rng)

    # Sums of one thread come in one order: the same seed gives the same bits, on a busy machine too.
    with single_threaded_blas(), ThreadPoolExecutor(effective_n_jobs(n_jobs)) as pool:
        rngs = rng.spawn(n_folds)
        # Tasks begin in this order: none waits for one that has not begun.
        learned = [pool.submit(learn, fold, rng) for fold, rng in enumerate(rngs)]
        everything = pool.submit(PairFeatures.fit, data, n_factors, np.random.default_rng(seed))
        ranked = [pool.submit(rank, fold, rng) for fold, rng in enumerate(rngs)]
        try:
            features, parts = everything.result(), [task.result() for task in ranked]
        finally:
            pool.shutdown(cancel_futures=True)
    found = [part for part in parts if part is not None]
    if not found:
        return RankingTable(np.zeros((0, 0), np.float32), np.zeros(0, np.int64), np.zeros(0, np.int64)), features
    return RankingTable(*(np.concatenate(part) for part in zip(*found, strict=True))), features


def _positive_rows(data: TrainingData, matrix: Csr, fold_of: Codes) -> tuple[ContextRows, Codes]:
    """The positives one by one, and the fold of each: that of its pair."""
    if data.context is None:
        users = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
        return ContextRows(users, matrix.indices.astype(np.int64), EncodedFeatures.empty(matrix.nnz)), fold_of
    rows = data.context
    return rows, fold_of[find_entries(matrix, rows.users, rows.items)[0]]


def _take(rows: ContextRows, at: Codes) -> ContextRows:
    """Some of the positives."""
    return ContextRows(rows.users[at], rows.items[at], rows.features.take(at))


def _visible(data: TrainingData, matrix: Csr, kept: Mask, kept_rows: Mask, hidden: Mask) -> TrainingData:
    """What is learned from while a fold is ranked."""
    context = data.context
    if context is not None:
        context = _take(context, np.flatnonzero(kept_rows & ~hidden[context.items]))
    return TrainingData(keep(matrix, kept), data.user_features, data.item_features, context)


def _some_of_each(users: Codes, eligible: Mask, n: int, rng: np.random.Generator) -> Codes:
    """At most n of the eligible rows of each of at most `MAX_USERS` users, drawn at random; ascending."""
    at = rng.permutation(np.flatnonzero(eligible))
    drawn = np.unique(users[at])
    if len(drawn) > MAX_USERS:
        at = at[np.isin(users[at], rng.permutation(drawn)[:MAX_USERS])]
    at = at[np.argsort(users[at], kind="stable")]
    return np.sort(at[_ranks(users[at]) < n])


def _ranks(groups: Codes) -> Codes:
    """How many equals stand before each entry of a sorted array."""
    return np.arange(len(groups)) - np.searchsorted(groups, groups)


def _rank(
    learned: PairFeatures,
    visible: TrainingData,
    wanted: ContextRows,
    matrix: Csr,
    n_negatives: int,
    rng: np.random.Generator,
) -> RankingTable:
    """The positives of a fold and negatives, query after query."""
    first, query = distinct_rows(wanted.users, None if visible.context is None else wanted.features.matrix)
    users = wanted.users[first]
    attributes = visible.user_features.take(np.where(rng.random(len(users)) < HIDDEN_FIELDS, -1, users))
    context = wanted.features.take(np.where(rng.random(len(first)) < HIDDEN_FIELDS, -1, first))
    history = _cut(take_rows(visible.matrix, users), rng)
    queries = Queries(history, attributes, None if visible.context is None else context)
    negative_query, negative = _negatives(matrix, users, query, n_negatives, rng)
    queries_of, items = np.append(query, negative_query), np.append(wanted.items, negative)
    labels = np.repeat([1, 0], [len(query), len(negative)])
    # A query without negatives teaches nothing.
    kept = np.isin(queries_of, negative_query)
    order = np.argsort(queries_of[kept], kind="stable")
    queries_of, items, labels = queries_of[kept][order], items[kept][order], labels[kept][order]
    groups = np.bincount(queries_of, minlength=len(first))
    return RankingTable(learned.pairs(queries, queries_of, items), labels, groups[groups > 0])


def _cut(history: Csr, rng: np.random.Generator) -> Csr:
    """Cut some histories short, keeping entries at random."""
    n = history.shape[0]
    lengths = np.diff(history.indptr)
    share = np.ceil(rng.random(n) * lengths).astype(np.int64)
    short = np.where(rng.random(n) < SHARES, share, rng.choice(SHORT, n))
    limits = np.where(rng.random(n) < CUT_HISTORIES, short, lengths)
    return keep(history, random_places(history, rng) < np.repeat(limits, lengths))


def _negatives(
    matrix: Csr, users: Codes, query: Codes, n_negatives: int, rng: np.random.Generator
) -> tuple[Codes, Codes]:
    """Distinct negatives of queries, at the most `n_negatives` for each of their positives."""
    hot = np.unique(matrix.indices).astype(np.int64)
    asking = np.repeat(query, n_negatives)
    items = np.empty(len(asking), dtype=np.int64)
    left = np.arange(len(asking))
    for _ in range(MAX_DRAWS):
        items[left] = hot[rng.integers(0, len(hot), len(left))]
        left = left[find_entries(matrix, users[asking[left]], items[left])[1]]
    drawn = np.ones(len(asking), dtype=bool)
    drawn[left] = False
    keys = np.unique(asking[drawn] * matrix.shape[1] + items[drawn])
    return keys // matrix.shape[1], keys % matrix.shape[1]
