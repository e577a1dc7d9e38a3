"""From frames of ids to metrics: joins, missing users, and everything that must not pass silently."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.evaluation import ranking_metrics
from recsys.exceptions import InvalidInputError, InvalidTypeError

ALL = ("HR", "Recall", "RecallCalibrated", "Precision", "NDCG", "MRR", "MAP")


def frame(rows: list[tuple[Any, Any, Any]], score: Any = None) -> pd.DataFrame:
    made = pd.DataFrame(rows, columns=["user_id", "item_id", "rank"])
    return made if score is None else made.assign(score=score)


LISTS = frame([(1, 10, 1), (1, 20, 2), (2, 30, 1), (2, 10, 2)])
LIKED = pd.DataFrame({"user_id": [2, 1, 1], "item_id": [10, 20, 40]})


def test_known_answers_and_shape() -> None:
    result = ranking_metrics(LISTS.assign(score=0.5), LIKED, k=[1, 2], metrics=["Recall", "MRR"])
    assert result.columns.tolist() == ["Recall@1", "MRR@1", "Recall@2", "MRR@2"]
    assert result.index.tolist() == [2, 1]
    assert result.index.name == "user_id"
    assert result.to_numpy().tolist() == [[0.0, 0.0, 1.0, 0.5], [0.0, 0.0, 0.5, 0.5]]
    assert result.attrs == {"left_out": 0, "without_recommendations": 0}


def test_defaults_are_the_four_at_ten() -> None:
    assert ranking_metrics(LISTS, LIKED).columns.tolist() == ["HR@10", "Recall@10", "NDCG@10", "MRR@10"]


def test_users_of_one_side_only() -> None:
    lists = frame([(1, 10, 1), (9, 10, 1), (8, 10, 1)])
    liked = pd.DataFrame({"user_id": [1, 5], "item_id": [10, 10]})
    result = ranking_metrics(lists, liked, metrics=["HR"])
    # 5 was recommended nothing: it counts as a failure. 8 and 9 have nothing relevant: they cannot be judged.
    assert result["HR@10"].to_dict() == {1: 1.0, 5: 0.0}
    assert result.attrs == {"left_out": 2, "without_recommendations": 1}


def test_no_recommendation_at_all_scores_zero() -> None:
    result = ranking_metrics(frame([]), LIKED)
    assert (result.to_numpy() == 0).all()
    assert result.attrs["without_recommendations"] == 2


def test_relevant_items_nobody_was_offered_score_zero() -> None:
    # A model that never ranks a new item high is bad, not an error.
    result = ranking_metrics(LISTS, LIKED.assign(item_id=[77, 88, 99]))
    assert (result.to_numpy() == 0).all()


def test_repeated_relevant_rows_count_once() -> None:
    twice = pd.concat([LIKED, LIKED], ignore_index=True)
    pd.testing.assert_frame_equal(ranking_metrics(LISTS, twice), ranking_metrics(LISTS, LIKED))


@st.composite
def evaluations(draw: st.DrawFn) -> tuple[pd.DataFrame, pd.DataFrame]:
    users = draw(st.lists(st.integers(0, 6), min_size=1, max_size=5, unique=True))
    lists: list[tuple[int, int, int]] = []
    for user in users:
        items = draw(st.lists(st.integers(0, 9), max_size=8, unique=True))
        lists += [(user, item, rank) for rank, item in enumerate(items, start=1)]
    pair = st.tuples(st.integers(0, 6), st.integers(0, 9))
    liked = pd.DataFrame(draw(st.lists(pair, min_size=1, max_size=20)), columns=["user_id", "item_id"])
    order = draw(st.permutations(range(len(lists))))
    return frame([lists[i] for i in order]), liked


@given(evaluations(), st.integers(1, 10))
def test_equal_to_a_loop_over_users(case: tuple[pd.DataFrame, pd.DataFrame], k: int) -> None:
    lists, liked = case
    wanted: dict[int, set[int]] = {}
    for user, item in liked.itertuples(index=False):
        wanted.setdefault(user, set()).add(item)
    offered: dict[int, dict[int, int]] = {}
    for user, item, rank in lists.itertuples(index=False):
        offered.setdefault(user, {})[rank] = item
    if offered and not set(offered) & set(wanted):
        with pytest.raises(InvalidInputError, match=r"None of the .* users of `recommendations`"):
            ranking_metrics(lists, liked, k)
        return
    result = ranking_metrics(lists, liked, k, metrics=ALL)
    assert result.index.tolist() == list(wanted)
    for row, (user, items) in zip(result.to_numpy(), wanted.items(), strict=True):
        hits = [offered.get(user, {}).get(rank) in items for rank in range(1, k + 1)]
        n, gains = len(items), [1 / math.log2(rank + 1) for rank in range(1, k + 1)]
        precisions = [sum(hits[:rank]) / rank for rank in range(1, k + 1)]
        expected = [
            float(any(hits)),
            sum(hits) / n,
            sum(hits) / min(k, n),
            sum(hits) / k,
            np.dot(hits, gains) / sum(gains[:n]),
            1 / (hits.index(True) + 1) if any(hits) else 0.0,
            np.dot(hits, precisions) / min(k, n),
        ]
        assert row.tolist() == pytest.approx(expected, abs=1e-12)
    assert result.attrs == {
        "left_out": len(set(offered) - set(wanted)),
        "without_recommendations": len(set(wanted) - set(offered)),
    }


@pytest.mark.parametrize(
    "convert",
    [
        lambda ids: ids.astype("int32"),
        lambda ids: ids.astype("float64"),
        lambda ids: ids.astype("Int64"),
        lambda ids: ids.astype("category"),
        lambda ids: ids.astype(object),
    ],
    ids=["int32", "float64", "Int64", "category", "object"],
)
def test_ids_match_by_value_whatever_their_dtype(convert: Any) -> None:
    lists = LISTS.assign(user_id=convert(LISTS["user_id"]), item_id=convert(LISTS["item_id"]))
    assert ranking_metrics(lists, LIKED).to_numpy().tolist() == ranking_metrics(LISTS, LIKED).to_numpy().tolist()
    liked = LIKED.assign(user_id=convert(LIKED["user_id"]), item_id=convert(LIKED["item_id"]))
    assert ranking_metrics(LISTS, liked).to_numpy().tolist() == ranking_metrics(LISTS, LIKED).to_numpy().tolist()


def test_text_ids_keep_their_dtype() -> None:
    lists = LISTS.assign(user_id="u" + LISTS["user_id"].astype(str), item_id="i" + LISTS["item_id"].astype(str))
    liked = LIKED.assign(user_id="u" + LIKED["user_id"].astype(str), item_id="i" + LIKED["item_id"].astype(str))
    result = ranking_metrics(lists, liked)
    assert result.index.tolist() == ["u2", "u1"]
    assert result.index.dtype == pd.Index(liked["user_id"]).dtype
    assert result.to_numpy().tolist() == ranking_metrics(LISTS, LIKED).to_numpy().tolist()


@pytest.mark.parametrize("column", ["user_id", "item_id"])
def test_numbers_and_text_cannot_match(column: str) -> None:
    lists = LISTS.assign(**{column: LISTS[column].astype(str)})
    with pytest.raises(InvalidInputError, match=rf"`recommendations.{column}` and .* cannot match. They are text"):
        ranking_metrics(lists, LIKED)


def test_a_stranger_to_every_user_is_an_error() -> None:
    with pytest.raises(InvalidInputError, match=r"None of the 2 users .* use labels, not codes"):
        ranking_metrics(LISTS.assign(user_id=LISTS["user_id"] + 100), LIKED)


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        (frame([(1, 10, 0), (1, 20, 1)]), "rank` of user 1 has 0 out of sequence"),
        (frame([(1, 10, 1), (1, 20, 3)]), "rank` of user 1 has 3 out of sequence"),
        (frame([(1, 10, 1), (2, 10, 1), (2, 20, 1)]), "rank` of user 2 has 1 out of sequence"),
        (frame([(1, 10, 2)]), "ranks of each user to run 1, 2, 3, ... without gaps"),
        (frame([(1, 10, 1), (1, 10, 2)]), "holds item 10 twice for user 1 .1 repetitions"),
        (frame([(1, 10, 1), (2, 20, 1), (1, 10, 2), (2, 30, 2)]), "holds item 10 twice for user 1 .1 repetitions"),
        (frame([(1, 10, 1), (1, 20, 2), (2, 10, 1), (1, 20, 3)]), "holds item 20 twice for user 1 .1 repetitions"),
        (frame([(1, 10, 1.0)]), "rank` has dtype float64; expected integers from 1"),
        (frame([(1, 10, 1)]).assign(rank=pd.array([None], dtype="Int64")), "user 1 has 0 out of sequence"),
        (frame([(1, 10, 1)], score=np.nan), "score` is not finite in 1 rows .positions 0."),
        (frame([(1, 10, 1)], score=np.inf), "score` is not finite"),
        (frame([(1, 10, 1)], score="high"), "score` has dtype .*; expected numbers"),
        (frame([(None, 10, 1)]), "recommendations.user_id` has 1 null ids"),
        (pd.concat([LISTS, LISTS["rank"]], axis=1), "`recommendations` has several columns 'rank'; expected one: drop"),
        (LISTS.drop(columns="rank"), "`recommendations` lacks 'rank'; expected the columns user_id, item_id, rank"),
    ],
)
def test_bad_recommendations_are_refused(lists: pd.DataFrame, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        ranking_metrics(lists, LIKED)


def test_k_may_be_far_beyond_the_lists() -> None:
    names = ["HR", "Recall", "NDCG", "MRR", "MAP"]
    far, near = (ranking_metrics(LISTS, LIKED, k, names) for k in (10**9, 1000))
    assert far.columns.tolist() == [f"{name}@1000000000" for name in names]
    assert far["HR@1000000000"].any()
    np.testing.assert_array_equal(far, near)
    nothing = ranking_metrics(LISTS.iloc[:0], LIKED, 10**9, names)
    assert nothing.eq(0).all(axis=None)


def test_bad_relevant_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="`relevant` has no rows"):
        ranking_metrics(LISTS, LIKED.iloc[:0])
    with pytest.raises(InvalidInputError, match="`relevant` lacks 'item_id'"):
        ranking_metrics(LISTS, LIKED[["user_id"]])
    with pytest.raises(InvalidInputError, match=r"relevant\.item_id` has 1 null ids"):
        ranking_metrics(LISTS, LIKED.assign(item_id=[1.0, np.nan, 2.0]))
    as_dict: Any = {"user_id": [1], "item_id": [2]}
    with pytest.raises(InvalidTypeError, match="`relevant` is a dict; expected a pandas DataFrame"):
        ranking_metrics(LISTS, as_dict)


def test_bad_parameters_are_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"`metrics` holds .NDGC.\. Did you mean .NDCG.\?"):
        ranking_metrics(LISTS, LIKED, metrics=["NDGC"])
    with pytest.raises(InvalidTypeError, match=r"pass \['NDCG'\]"):
        ranking_metrics(LISTS, LIKED, metrics="NDCG")
    with pytest.raises(InvalidInputError, match="`k` is 0; expected a positive integer"):
        ranking_metrics(LISTS, LIKED, k=[10, 0])
    with pytest.raises(InvalidInputError, match="`k` is empty"):
        ranking_metrics(LISTS, LIKED, k=[])
    text: Any = "10"
    with pytest.raises(InvalidTypeError, match="`k` is '10'; expected a positive integer"):
        ranking_metrics(LISTS, LIKED, k=text)


@pytest.mark.parametrize("kind", ["uint8", "int16", "UInt8", "uint64", "Int64"])
@pytest.mark.parametrize("far", [11, 2**53 + 1])
def test_whole_numbers_of_any_width_are_matched_by_value(kind: str, far: int) -> None:
    # 2**53 + 1 ends in the bits of 1, and is no code as it is.
    liked = pd.DataFrame({"user_id": [1, 2], "item_id": [1, 7]}).astype({"item_id": kind})
    lists = pd.DataFrame({"user_id": [1, 1, 2, 2], "item_id": [far, 9, far, 7], "rank": [1, 2, 1, 2]})
    assert ranking_metrics(lists, liked, k=2, metrics=["HR", "MRR"]).to_numpy().tolist() == [[0, 0], [1, 0.5]]
