"""`ranking_metrics`: from tidy frames of ids to the metrics of every user."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from recsys.evaluation import metrics as core
from recsys.exceptions import InvalidInputError, InvalidTypeError, did_you_mean, examples
from recsys.vocabulary import Vocabulary, as_ids

__all__ = ["METRICS", "ranking_metrics", "read_cuts", "read_names"]

# The names of the table, in its order.
METRICS: dict[str, Callable[[core.Hits, core.Codes, int], core.Values]] = {
    "HR": lambda hits, n, k: core.hit_rate(hits, k),
    "Recall": core.recall,
    "RecallCalibrated": core.recall_calibrated,
    "Precision": lambda hits, n, k: core.precision(hits, k),
    "NDCG": core.ndcg,
    "MRR": lambda hits, n, k: core.mrr(hits, k),
    "MAP": core.average_precision,
}


def ranking_metrics(
    recommendations: pd.DataFrame,
    relevant: pd.DataFrame,
    k: int | Sequence[int] = 10,
    metrics: Sequence[str] = ("HR", "Recall", "NDCG", "MRR"),
) -> pd.DataFrame:
    """Metrics of every user, from tidy frames of ids.

    Every user of `relevant` has a row: those who were recommended nothing score 0. Users who were recommended
    something but have nothing relevant are left out, and counted. Nothing is averaged, as intervals and tests
    need every user.

    Parameters
    ----------
    recommendations : DataFrame with columns user_id, item_id, rank and, optionally, score
        As `recommend` returns it; ranks of a user run 1, 2, 3, ... in any row order.
    relevant : DataFrame with columns user_id, item_id
        What the users turned out to like. Repeated rows count once; further columns are ignored.
    k : int or sequence of int, default=10
        Where to cut the lists.
    metrics : sequence of str, default=("HR", "Recall", "NDCG", "MRR")
        Among HR, Recall, RecallCalibrated, Precision, NDCG, MRR and MAP.

    Returns
    -------
    DataFrame of shape (n_users, n_cuts * n_metrics)
        Indexed by user_id, in order of first appearance in `relevant`; columns such as "NDCG@10". Its `attrs`
        count the users "left_out" (recommended something, nothing relevant) and "without_recommendations".

    Raises
    ------
    InvalidInputError
        If a column is missing, `relevant` is empty, an item comes twice in a list, ranks do not run from 1, a
        score is not finite, ids are of different kinds (numbers and text), no recommended user is in
        `relevant`, or a metric is unknown.

    Examples
    --------
    >>> lists = pd.DataFrame({"user_id": [7, 7], "item_id": [30, 10], "rank": [1, 2]})
    >>> liked = pd.DataFrame({"user_id": [7, 8], "item_id": [10, 10]})
    >>> ranking_metrics(lists, liked, k=2, metrics=["HR", "MRR"])
             HR@2  MRR@2
    user_id
    7         1.0    0.5
    8         0.0    0.0
    """
    cuts = read_cuts(k)
    names = read_names(metrics)
    _require_columns(recommendations, ("user_id", "item_id", "rank"), "recommendations")
    _require_columns(relevant, ("user_id", "item_id"), "relevant")
    if not len(relevant):
        raise InvalidInputError("`relevant` has no rows; expected at least one relevant item to score against.")
    liking, asked, n_codes = _encode(relevant, recommendations, "user_id")
    liked, offered, n_items = _encode(relevant, recommendations, "item_id")
    first, row_of = _order(liking, n_codes)
    users = as_ids(relevant["user_id"].iloc[first]).rename("user_id")
    lists, counts = _to_lists(recommendations, asked, offered, n_items, users, row_of, max(cuts))

    hits, n_relevant = _look_up(lists, row_of[liking], liked, n_items)
    # Without a hit every metric is 0.
    some = hits.any(axis=1)
    hits, n_of_some = hits[some], n_relevant[some]
    values = {}
    for name, cut in ((name, cut) for cut in cuts for name in names):
        values[f"{name}@{cut}"] = column = np.zeros(len(users))
        column[some] = METRICS[name](hits, n_of_some, cut)
    result = pd.DataFrame(values, index=users)
    result.attrs.update(counts)
    return result


def _encode(relevant: pd.DataFrame, recommendations: pd.DataFrame, column: str) -> tuple[core.Codes, core.Codes, int]:
    """Codes of a column of both frames, in one numbering, and how many codes there may be."""
    ours = as_ids(relevant[column], f"relevant.{column}")
    theirs = as_ids(recommendations[column], f"recommendations.{column}") if len(recommendations) else ours[:0]
    if all(pd.api.types.is_integer_dtype(ids.dtype) for ids in (ours, theirs)):
        low = min(int(ids.min()) for ids in (ours, theirs) if len(ids))
        high = max(int(ids.max()) for ids in (ours, theirs) if len(ids))
        if high <= np.iinfo(np.int64).max:
            # Of one width, or pandas would cut the wider ones down to the others.
            ours, theirs = (pd.Index(ids.to_numpy(dtype=np.int64)) for ids in (ours, theirs))
            # Whole numbers that lie close to each other are codes as they are, which spares hashing millions of them.
            if high - low < 2 * (len(ours) + len(theirs)):
                return ours.to_numpy() - low, theirs.to_numpy() - low, high - low + 1
    known, mine = Vocabulary.from_values(ours)
    met, others = Vocabulary.from_values(theirs)
    if hint := known.mismatch(met.ids):
        raise InvalidInputError(f"`recommendations.{column}` and `relevant.{column}` cannot match.{hint}")
    union = known.extend(met)
    return mine, union.encode(met)[others], len(union)


def _order(codes: core.Codes, n_codes: int) -> tuple[core.Codes, core.Codes]:
    """Where each code comes first, in that order, and the place of each in it; -1 of those that never come."""
    first = np.full(n_codes, len(codes))
    np.minimum.at(first, codes, np.arange(len(codes)))
    found = np.sort(first[first < len(codes)])
    place = np.full(n_codes, -1)
    place[codes[found]] = np.arange(len(found))
    return found, place


def _look_up(lists: core.Codes, rows: core.Codes, columns: core.Codes, n_items: int) -> tuple[core.Hits, core.Codes]:
    """Which recommended items are relevant, and how many are to each user, from pairs in any order."""
    wanted = (np.arange(len(lists))[:, None] * n_items + lists)[lists >= 0]
    # One sort brings each pair that is both relevant (even) and recommended (odd) together, and repetitions as well.
    keys = np.concatenate([rows * n_items + columns, wanted])
    keys *= 2
    keys[len(rows) :] += 1
    keys.sort()
    step = keys[1:] - keys[:-1]
    close = np.flatnonzero(step <= 1)
    keys, step = keys[close + 1], step[close]
    n_relevant = np.bincount(rows, minlength=len(lists))
    n_relevant -= np.bincount(keys[step == 0] // (2 * n_items), minlength=len(lists))
    row, column = np.divmod(keys[(step == 1) & (keys % 2 == 1)] // 2, n_items)
    hits = np.zeros(lists.shape, dtype=bool)
    hits[row, (lists[row] == column[:, None]).argmax(axis=1)] = True
    return hits, n_relevant


def read_names(metrics: Sequence[str]) -> list[str]:
    """`metrics` as a list of known names."""
    if isinstance(metrics, str):
        raise InvalidTypeError(f"`metrics` is {metrics!r}; expected a sequence of names: pass [{metrics!r}].")
    if not isinstance(metrics, Sequence) or not len(metrics):
        raise InvalidTypeError(f"`metrics` is {metrics!r}; expected names, such as ['NDCG', 'Recall'].")
    for name in metrics:
        if not isinstance(name, str) or name not in METRICS:
            raise InvalidInputError(f"`metrics` holds {name!r}. {did_you_mean(str(name), METRICS)}")
    return list(dict.fromkeys(metrics))


def _require_columns(frame: pd.DataFrame, columns: Sequence[str], name: str) -> None:
    if not isinstance(frame, pd.DataFrame):
        raise InvalidTypeError(f"`{name}` is a {type(frame).__name__}; expected a pandas DataFrame.")
    twice = frame.columns[frame.columns.duplicated() & frame.columns.isin([*columns, "score"])]
    if len(twice):
        raise InvalidInputError(f"`{name}` has several columns {examples(twice)}; expected one: drop the others.")
    missing = [column for column in columns if column not in frame.columns]
    if missing:
        raise InvalidInputError(
            f"`{name}` lacks {examples(missing)}; expected the columns {', '.join(columns)}, "
            f"got {examples(frame.columns, 6)}."
        )


def read_cuts(k: int | Sequence[int]) -> list[int]:
    """`k` as a list of integers."""
    cuts = list(k) if isinstance(k, (Sequence, np.ndarray)) and not isinstance(k, str) else [k]
    if not cuts:
        raise InvalidInputError("`k` is empty; expected a positive integer, or several.")
    return list(dict.fromkeys(core.check_rank(cut) for cut in cuts))


def _to_lists(
    recommendations: pd.DataFrame,
    user: core.Codes,
    item: core.Codes,
    n_items: int,
    users: pd.Index,
    row_of: core.Codes,
    k: int,
) -> tuple[core.Codes, dict[str, int]]:
    """Codes of the first recommendations of each user, k at most, and how many users are on one side only."""
    if not len(recommendations):
        return np.full((len(users), 1), -1, dtype=np.int64), {"left_out": 0, "without_recommendations": len(users)}
    row = row_of[user]
    if (row < 0).all():
        asked = as_ids(recommendations["user_id"]).unique()
        raise InvalidInputError(
            f"None of the {len(asked)} users of `recommendations` ({examples(asked)}) is in `relevant` "
            f"({examples(users)}); expected the same ids: check that both frames use labels, not codes."
        )
    rank = _check_lists(recommendations, user, item, n_items)
    width = min(k, int(rank.max()))
    lists = np.full((len(users), width), -1, dtype=np.int64)
    place = row * width + (rank - 1)
    keep = (row >= 0) & (rank <= width)
    if not keep.all():
        place, item = place[keep], item[keep]
    lists.reshape(-1)[place] = item
    # Every list has a first rank.
    found, n_lists = int((row[rank == 1] >= 0).sum()), int((rank == 1).sum())
    return lists, {"left_out": n_lists - found, "without_recommendations": len(users) - found}


def _check_lists(recommendations: pd.DataFrame, user: core.Codes, item: core.Codes, n_items: int) -> core.Codes:
    """Check scores, ranks and items of the lists; return the ranks."""
    if "score" in recommendations:
        score = recommendations["score"]
        if score.dtype.kind not in "iuf":
            raise InvalidTypeError(f"`recommendations.score` has dtype {score.dtype}; expected numbers.")
        bad = ~np.isfinite(score.to_numpy(dtype=np.float64, na_value=np.nan))
        if bad.any():
            raise InvalidInputError(
                f"`recommendations.score` is not finite in {int(bad.sum())} rows (positions "
                f"{examples(np.flatnonzero(bad))}); expected numbers: a model that scores NaN is broken."
            )
    if recommendations["rank"].dtype.kind not in "iu":
        raise InvalidTypeError(
            f"`recommendations.rank` has dtype {recommendations['rank'].dtype}; expected integers from 1."
        )
    rank = recommendations["rank"].to_numpy(dtype=np.int64, na_value=0)
    # As `recommend` returns them, users come one after the other with their ranks in order, and need no sorting.
    starts = np.flatnonzero(np.append(True, user[1:] != user[:-1]))
    in_order = np.append(0, rank[:-1]) + 1 == rank
    in_order[starts] = rank[starts] == 1
    scattered = np.bincount(user[starts]).max() > 1
    if scattered or not in_order.all():
        _check_ranks(rank, user, recommendations["user_id"])
    if not scattered and len(user) % len(starts) == 0 and (np.diff(starts) == len(user) // len(starts)).all():
        # Lists of one length, one after the other, are sorted each by itself, which is faster.
        ordered = np.sort(item.reshape(len(starts), -1), axis=1)
        if (ordered[:, 1:] > ordered[:, :-1]).all():
            return rank
    pairs = user * n_items + item
    keys = np.sort(pairs)
    twice = keys[1:][keys[1:] == keys[:-1]]
    if len(twice):
        who, what = (recommendations[name].iloc[[(pairs == twice[0]).argmax()]] for name in ("user_id", "item_id"))
        raise InvalidInputError(
            f"`recommendations` holds item {examples(what)} twice for user {examples(who)} ({len(twice)} "
            f"repetitions in all); expected each item once a list."
        )
    return rank


def _check_ranks(rank: core.Codes, user: core.Codes, ids: pd.Series) -> None:
    """Check that the ranks of each user run 1, 2, 3, ..., in whatever order the rows come."""
    order = np.lexsort((rank, user))
    start = np.flatnonzero(np.diff(user[order], prepend=-1))
    place = np.arange(1, len(order) + 1) - np.repeat(start, np.diff(start, append=len(order)))
    wrong = order[rank[order] != place]
    if len(wrong):
        raise InvalidInputError(
            f"`recommendations.rank` of user {examples(ids.iloc[wrong[:1]])} has {rank[wrong[0]]} out of sequence; "
            f"expected the ranks of each user to run 1, 2, 3, ... without gaps or repetitions."
        )
