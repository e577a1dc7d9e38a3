"""Recommendations made elsewhere are judged as a model's are, and refused where they cannot be."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest

from recsys import EASE, Popularity
from recsys.datasets import make_movielens_like
from recsys.evaluation import Evaluator, ItemColdSplit, LeaveLastOut, RandomSplit, UserColdSplit, ranking_metrics
from recsys.exceptions import DataWarning, InvalidInputError, InvalidTypeError, RecsysWarning

SPLITTER = RandomSplit(test_size=0.2, validation_size=0.2)


@pytest.fixture(scope="module")
def data() -> Any:
    return make_movielens_like(n_users=40, n_items=50, n_interactions=900, random_state=0)


def pairs_of(data: Any) -> tuple[pd.DataFrame, Any]:
    X = data.interactions[["user_id", "item_id"]]
    [split] = RandomSplit(test_size=0.2, validation_size=0.2, random_state=0).splits(X)
    return X, split


@pytest.fixture(scope="module")
def lists(data: Any) -> pd.DataFrame:
    """What EASE recommends in the scenario of `SPLITTER` with seed 0."""
    X, split = pairs_of(data)
    model = EASE(l2=20.0).fit(X.iloc[split.train], item_features=data.items)
    return model.recommend(X["user_id"].iloc[split.test].unique(), 5, exclude=X.iloc[split.validation])


def judged(source: Any, data: Any, **options: Any) -> Any:
    evaluator = Evaluator([SPLITTER], k=5, n_resamples=10, **options)
    return evaluator.evaluate({"Popularity": Popularity(), "Theirs": source}, data)


def test_a_frame_is_judged_by_its_ranks(data: Any, lists: pd.DataFrame) -> None:
    X, split = pairs_of(data)
    found = judged(lists[["user_id", "item_id", "rank"]].sample(frac=1, random_state=0), data)
    values = found.values("random", "NDCG@5")["Theirs"]
    expected = ranking_metrics(lists, X.iloc[split.test], 5)["NDCG@5"]
    assert values.to_dict() == expected.to_dict()
    assert values.mean() > 0
    assert found.compare("Theirs", "Popularity", "random", "NDCG@5").mean == pytest.approx(
        values.mean() - found.values("random", "NDCG@5")["Popularity"].mean()
    )
    assert found.failures.empty
    assert found.costs["cold_share"].tolist() == [0.0, 0.0]


def test_scores_rank_where_there_are_no_ranks_and_equal_ones_by_row(data: Any, lists: pd.DataFrame) -> None:
    expected = judged(lists, data).values("random", "NDCG@5")["Theirs"]
    bare = lists[["user_id", "item_id", "score"]].sample(frac=1, random_state=1)
    assert judged(bare, data).values("random", "NDCG@5")["Theirs"].to_dict() == expected.to_dict()
    ordered = lists[["user_id", "item_id"]].assign(score=0.0).set_axis(np.zeros(len(lists), dtype=int))
    assert judged(ordered, data).values("random", "NDCG@5")["Theirs"].to_dict() == expected.to_dict()
    backwards = judged(ordered[::-1], data).values("random", "MRR@5")["Theirs"]
    assert backwards.mean() != judged(ordered, data).values("random", "MRR@5")["Theirs"].mean()


@pytest.mark.parametrize("dtype", ["float64", "Int64", "category", object])
def test_ids_match_by_value_whatever_their_dtype(data: Any, lists: pd.DataFrame, dtype: Any) -> None:
    converted = lists.assign(user_id=lists["user_id"].astype(dtype), item_id=lists["item_id"].astype(dtype))
    expected = judged(lists, data).per_user
    pd.testing.assert_frame_equal(judged(converted, data).per_user, expected)


def test_lists_of_other_users_do_not_count(data: Any, lists: pd.DataFrame) -> None:
    few = type(data)(interactions=data.interactions, users=data.users, items=data.items)
    tested = set(lists["user_id"])
    newcomer = max(tested) + 1
    few.users = pd.concat([data.users, data.users.iloc[:1].assign(user_id=newcomer)], ignore_index=True)
    one_more = pd.concat([lists, pd.DataFrame({"user_id": [newcomer], "item_id": [lists["item_id"][0]], "rank": [1]})])
    one_more = one_more.drop(columns="score")
    theirs = judged(one_more, few).values("random", "HR@5")["Theirs"]
    assert set(theirs.index) == tested
    assert theirs.to_dict() == judged(lists, data).values("random", "HR@5")["Theirs"].to_dict()


def test_users_without_a_list_count_as_0_and_are_told_of(data: Any, lists: pd.DataFrame) -> None:
    full = judged(lists, data).values("random", "NDCG@5")["Theirs"]
    best, second = full.nlargest(2).index
    with pytest.warns(DataWarning, match=f"has no list for 2 of {len(full)} users: .*; each counts as 0: "):
        found = judged(lists[~lists["user_id"].isin([best, second])], data)
    assert found.values("random", "NDCG@5")["Theirs"].to_dict() == {**full.to_dict(), best: 0.0, second: 0.0}


def seen(data: Any, role: str) -> Any:
    """The first item in this role of the first user asked for."""
    X, split = pairs_of(data)
    user = X["user_id"].iloc[split.test[0]]
    rows = X.iloc[getattr(split, role)]
    return rows.loc[rows["user_id"] == user, "item_id"].iloc[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f, _: pd.concat([f, f.iloc[:1].assign(rank=5)]).query("rank != 5 or index == 0"), "twice for user"),
        (lambda f, _: f.assign(rank=f["rank"] + 1), "expected the ranks of each user to run 1, 2, 3"),
        (
            lambda f, _: f.iloc[:0],
            "has no list for any of the 40 users asked for",
        ),
        (lambda f, _: f.assign(score=np.nan), "`recommendations.score` is not finite"),
        (lambda f, _: f.drop(columns="rank").assign(score=np.nan), "`recommendations.score` is not finite"),
        (lambda f, _: f.drop(columns="rank").assign(score="high"), "`recommendations.score` has dtype"),
        (lambda f, _: f.drop(columns=["rank", "score"]), "`recommendations` lacks 'rank', 'score' and has 'user_id'"),
        (lambda f, _: f.drop(columns="item_id"), "`recommendations` lacks 'item_id' and has 'user_id', 'score'"),
        (lambda f, _: f.assign(item_id=f["item_id"].replace(f["item_id"][0], 999)), "has 1 labels that the data does "),
        (lambda f, _: f.assign(item_id=f["item_id"].astype(str)), "They are text ("),
        (lambda f, _: f.assign(user_id="u" + f["user_id"].astype(str)), "They are text ("),
        (lambda f, _: f.assign(item_id=f["item_id"].where(f.index > 0)), "`recommendations.item_id` has 1 null ids"),
        (
            lambda f, d: f.assign(item_id=f["item_id"].where(f.index > 0, seen(d, "train"))),
            "1 items that the user has ",
        ),
        (
            lambda f, d: f.assign(item_id=f["item_id"].where(f.index > 0, seen(d, "validation"))),
            "1 items that the user",
        ),
    ],
)
def test_a_frame_that_cannot_be_judged_is_refused_before_any_fit(
    data: Any, lists: pd.DataFrame, change: Any, message: str
) -> None:
    class Unfit(Popularity):
        def fit(self, *_: Any, **__: Any) -> Any:
            raise AssertionError("fitted")

    changed = change(lists, data)
    with pytest.raises(InvalidInputError, match=re.escape(message)):
        Evaluator([SPLITTER], k=5).evaluate({"Popularity": Unfit(), "Theirs": changed}, data)


def test_longer_lists_than_asked_for_are_refused(data: Any, lists: pd.DataFrame) -> None:
    message = f"more than 4 items for {lists['user_id'].nunique()} users: .*; expected at most the `k` of the evaluator"
    with pytest.raises(InvalidInputError, match=message):
        Evaluator([SPLITTER], k=4).evaluate({"Popularity": Popularity(), "Theirs": lists}, data)
    assert judged(lists[lists["rank"] <= 2], data).values("random", "HR@5")["Theirs"].mean() > 0


def test_a_frame_is_for_one_scenario(data: Any, lists: pd.DataFrame) -> None:
    message = r"`models` holds a frame as 'Theirs', but there are 2 scenarios and seeds; expected .*: pass a function"
    with pytest.raises(InvalidInputError, match=message):
        judged(lists, data, seeds=(0, 1))


def test_a_function_answers_in_every_scenario(data: Any) -> None:
    calls: list[Any] = []

    def theirs(train: pd.DataFrame, users: Any, k: int, **request: Any) -> pd.DataFrame:
        calls.append((len(train), k, request["random_state"], request["interactions"] is None))
        del request["random_state"]
        return EASE(l2=20.0).fit(train, item_features=data.items).recommend(users, k, **request)

    splitters = [LeaveLastOut(n_negatives=9), UserColdSplit(k=(0, 2)), ItemColdSplit(), SPLITTER]
    models = {"EASE": EASE(l2=20.0), "Theirs": theirs}
    evaluator = Evaluator(splitters, seeds=(0, 1), baseline="EASE", k=3, n_resamples=10)
    found = evaluator.evaluate(models, data)
    assert found.failures.empty
    assert len(calls) == 2 * 6
    assert {call[1:] for call in calls} == {(3, 0, True), (3, 1, True), (3, 0, False), (3, 1, False)}
    table = found.table().query("model == 'Theirs'")
    # Where scores differ, the order of the catalogue does not matter.
    hot = table[table["scenario"].isin(["leave-last-out (1 + 9 sampled)", "random", "user-cold k=2"])]
    assert len(hot)
    assert (hot["difference"] == 0).all()


def test_a_function_that_answers_badly_has_failed(data: Any) -> None:
    def unasked(train: pd.DataFrame, users: Any, k: int, **_: Any) -> pd.DataFrame:
        item = data.interactions["item_id"].iloc[0]
        return pd.DataFrame({"user_id": users, "item_id": item, "rank": 1})

    def nothing(*_: Any, **__: Any) -> None:
        return None

    models = {"Popularity": Popularity(), "Unasked": unasked, "Nothing": nothing}
    evaluator = Evaluator([LeaveLastOut(n_negatives=2)], k=2, n_resamples=10)
    with pytest.warns(RecsysWarning, match="failed in"):
        found = evaluator.evaluate(models, data)
    errors = found.failures.set_index("model")["error"]
    assert re.match(r"InvalidInputError: `recommendations` has \d+ items that the user has in", errors["Unasked"])
    assert errors["Nothing"].startswith("InvalidTypeError: `recommendations` is of type NoneType; expected a DataFrame")
    assert set(found.values("leave-last-out (1 + 2 sampled)", "sampled HR@2")) == {"Popularity"}


def test_only_candidates_may_be_recommended(data: Any) -> None:
    X = data.interactions[["user_id", "item_id"]]
    [split, _] = ItemColdSplit(random_state=0).splits(X)
    train = X.iloc[split.train]
    user = X["user_id"].iloc[split.test[0]]
    own = set(train.loc[train["user_id"] == user, "item_id"])
    hot = next(item for item in train["item_id"] if item not in own)

    def theirs(*_: Any, **__: Any) -> pd.DataFrame:
        return pd.DataFrame({"user_id": [user], "item_id": [hot], "rank": [1]})

    evaluator = Evaluator([ItemColdSplit()], n_resamples=10)
    with pytest.warns(RecsysWarning):
        found = evaluator.evaluate({"Popularity": Popularity(), "Theirs": theirs}, data)
    [failure] = found.failures.to_dict("records")
    assert failure["scenario"] == "item-cold (cold candidates)"
    assert f"1 items that are no candidates of the scenario, such as {hot} for user {user}" in failure["error"]


def test_a_class_is_no_function(data: Any) -> None:
    with pytest.raises(InvalidTypeError, match="expected an estimator"):
        judged(EASE, data)


def test_lists_are_no_longer_than_a_small_catalogue(data: Any, lists: pd.DataFrame) -> None:
    evaluator = Evaluator([SPLITTER], k=500, n_resamples=10)
    found = evaluator.evaluate({"Popularity": Popularity(), "Theirs": lists}, data).values("random", "Recall@500")
    assert (found["Theirs"] <= found["Popularity"] + 1e-12).all()
    assert found["Popularity"].mean() == 1.0


def test_a_function_may_change_what_it_gets(data: Any) -> None:
    def recommend(
        train: pd.DataFrame, users: Any, k: int, *, change: bool, exclude: pd.DataFrame, **_: Any
    ) -> pd.DataFrame:
        found = Popularity().fit(train).recommend(users, k, exclude=exclude)
        if change:
            train["item_id"] = train["item_id"].iloc[0]
            users[:] = users[0]
        return found

    def cheat(train: pd.DataFrame, users: Any, k: int, **_: Any) -> pd.DataFrame:
        known = train.drop_duplicates("user_id").query("user_id in @users").assign(rank=1)
        train["item_id"] = -1
        return known

    still, changed = (
        judged(lambda *a, change=change, **b: recommend(*a, change=change, **b), data) for change in (False, True)
    )
    columns = ["user_id", "NDCG@5"]
    expected, found = (each.per_user.query("model == 'Theirs'")[columns] for each in (still, changed))
    pd.testing.assert_frame_equal(found, expected)
    with pytest.warns(RecsysWarning, match="items that the user has in rows of train"):
        judged(cheat, data)
