"""Every estimator: what is recommended, in which order, to whom, and what is left out."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from recsys.exceptions import ColdStartWarning, DataWarning
from recsys.interactions import PATHS
from tests.contract.suite import (
    CASES,
    NAMES,
    PERSONAL,
    assert_close,
    checkerboard,
    fit,
    fitted,
    make_world,
    new_users,
    product,
)

every = pytest.mark.parametrize("name", NAMES)


@pytest.mark.parametrize("name", PERSONAL)
def test_the_withheld_item_of_a_checkerboard_comes_first(name: str) -> None:
    world, answer = checkerboard()
    model = fit(CASES[name].make(), world)
    found = model.recommend(answer.index, k=1)
    assert found["item_id"].tolist() == answer.tolist()
    assert found["rank"].tolist() == [1] * len(answer)
    # The rest of the list is what was withheld from others: nothing that the user has seen.
    full = model.recommend(answer.index, k=len(answer)).merge(world.X, on=["user_id", "item_id"])
    assert full.empty


@every
def test_recommend_is_predict_over_the_catalogue_in_order(name: str) -> None:
    model, world = fitted(name)
    users = [1000, int(world.warm_users[0]), 1001, 5000]
    catalogue = model.items_.ids
    pairs = product(users, catalogue)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ColdStartWarning)
        found = model.recommend(users, k=len(catalogue), exclude_seen=False, user_features=new_users())
        pairs["score"] = model.predict(pairs, user_features=new_users())
    assert len(found) == len(pairs)
    both = found.merge(pairs, on=["user_id", "item_id"], validate="one_to_one")
    assert_close(both["score_x"], both["score_y"])
    for user in users:
        mine = found[found["user_id"] == user]
        assert mine["rank"].tolist() == list(range(1, len(catalogue) + 1))
        score, code = mine["score"].to_numpy(), model.items_.encode(mine["item_id"])
        falls = np.diff(score) < 0
        # Equal scores stand in catalogue order.
        assert (falls | ((np.diff(score) == 0) & (np.diff(code) > 0))).all()


@every
def test_ties_break_by_catalogue_order(name: str) -> None:
    # All items are equally popular, and the prior is all that is left for someone unknown.
    items = ["pear", "fig", "apple", "plum", "date", "kiwi"]
    X = pd.DataFrame({"user_id": np.repeat([1, 2, 3, 4], 6), "item_id": items * 4})
    model = CASES[name].make().fit(X)
    found = model.recommend([99], k=4, on_cold="popular")
    assert found["item_id"].tolist() == items[:4]
    assert found["score"].tolist() == [1.0] * 4


@every
def test_dtypes_and_columns(name: str) -> None:
    model, _ = fitted(name)
    found = model.recommend([1000, 1001], k=3)
    assert list(found) == ["user_id", "item_id", "score", "rank", "path"]
    assert found["score"].dtype == np.float32
    assert found["rank"].dtype == np.int64
    assert found["path"].cat.categories.tolist() == list(PATHS)
    assert isinstance(found.index, pd.RangeIndex)
    assert model.predict(product([1000], model.items_.ids)).dtype == np.float32


@every
def test_never_pads(name: str) -> None:
    model, world = fitted(name)
    seen = world.X.loc[world.X["user_id"] == 1000, "item_id"].tolist()
    unseen = [item for item in model.items_.ids if item not in seen]
    assert model.recommend([1000], k=10, candidates=[*seen, *unseen[:2]])["item_id"].isin(unseen[:2]).sum() == 2
    assert model.recommend([1000], k=10, candidates=seen).empty
    everything = model.recommend([1000], k=10_000)
    assert sorted(everything["item_id"]) == sorted(unseen)
    assert np.isfinite(everything["score"]).all()
    nothing = model.recommend([], k=3)
    assert nothing.empty
    assert list(nothing) == ["user_id", "item_id", "score", "rank", "path"]


@every
def test_users_come_back_in_the_order_asked(name: str) -> None:
    model, _ = fitted(name)
    users = [1004, 1000, 1004, 1001]
    found = model.recommend(users, k=3)
    assert found["user_id"].tolist() == [user for user in users for _ in range(3)]
    for position, user in enumerate(users):
        alone = model.recommend([user], k=3)
        mine = found.iloc[3 * position : 3 * position + 3]
        assert mine["item_id"].tolist() == alone["item_id"].tolist()
        assert_close(mine["score"], alone["score"])


@every
@pytest.mark.parametrize("users", [np.array([1000, 1001]), pd.Series([1000, 1001], index=[7, 7]), (1000, 1001)])
def test_users_may_be_any_list(name: str, users: object) -> None:
    model, _ = fitted(name)
    expected = model.recommend([1000, 1001], k=3)
    pd.testing.assert_frame_equal(model.recommend(users, k=3), expected)


def _text(ids: pd.Series) -> pd.Series:
    return "id " + ids.astype(str)


LABELS: dict[str, Callable[[pd.Series], pd.Series]] = {
    "int64": lambda ids: ids,
    "uint16": lambda ids: ids.astype("uint16"),
    "float": lambda ids: ids + 0.5,
    "text": _text,
    "object": lambda ids: _text(ids).astype(object),
    "string": lambda ids: _text(ids).astype("string"),
    "mixed": lambda ids: pd.Series([i if i % 3 else f"id {i}" for i in ids], dtype=object),
    "pairs": lambda ids: pd.Series([(i // 7, str(i % 7)) for i in ids], dtype=object),
    "Int32": lambda ids: ids.astype("Int32"),
    "category": lambda ids: _text(ids).astype("category"),
    "times": lambda ids: pd.Timestamp("2024-01-01") + pd.to_timedelta(ids, unit="D"),
}


@every
@pytest.mark.parametrize("kind", LABELS)
def test_ids_are_labels_and_come_out_as_they_went_in(name: str, kind: str) -> None:
    world = make_world(n_users=12, n_items=12)
    label = LABELS[kind]
    X = pd.DataFrame({"user_id": label(world.X["user_id"]), "item_id": label(world.X["item_id"])})
    plain = CASES[name].make().fit(world.X, world.y).recommend(world.hot_users, k=5)
    users = X["user_id"].drop_duplicates()
    found = CASES[name].make().fit(X, world.y).recommend(users, k=5)
    for column in ("user_id", "item_id"):
        expected = label(plain[column])
        if kind == "category":
            expected = expected.astype(X[column].cat.categories.dtype)
        pd.testing.assert_series_equal(found[column], expected, check_names=False, check_index_type=False)
        assert {type(value) for value in found[column]} == {type(value) for value in expected}
    np.testing.assert_array_equal(found["score"], plain["score"])


@every
def test_seen_items_are_left_out_whatever_their_rating(name: str) -> None:
    model, world = fitted(name)
    disliked = world.X[world.y == 0]
    assert len(disliked) > 10
    everything = model.recommend(world.hot_users, k=1000)
    assert everything.merge(world.X, on=["user_id", "item_id"]).empty
    assert len(everything) + len(world.X) == len(world.hot_users) * len(model.items_)
    again = model.recommend(world.hot_users, k=1000, exclude_seen=False)
    assert len(again.merge(world.X, on=["user_id", "item_id"])) == len(world.X)


@every
def test_new_interactions_are_seen_too(name: str) -> None:
    model, _ = fitted(name)
    clicks = pd.DataFrame({"user_id": [1000, 7777, 7777], "item_id": [1, 2, 4], "rating": [5, 5, 0]})
    found = model.recommend([1000, 7777], k=1000, interactions=clicks)
    assert found.merge(clicks, on=["user_id", "item_id"]).empty
    # An item that was only seen is left out and says nothing of taste.
    assert (found["user_id"] == 7777).sum() == len(model.items_) - 2
    alone = model.recommend([7777], k=1000, interactions=clicks.iloc[[1]])
    alone = alone[alone["item_id"] != 4].reset_index(drop=True)
    mine = found[found["user_id"] == 7777].reset_index(drop=True)
    assert mine["item_id"].tolist() == alone["item_id"].tolist()
    assert_close(mine["score"], alone["score"])


@every
def test_candidates_for_everyone(name: str) -> None:
    model, world = fitted(name)
    stock = [3, 4, 11, 12, 26]
    found = model.recommend(world.hot_users, k=10, candidates=stock, exclude_seen=False)
    assert (found.groupby("user_id", sort=False)["item_id"].apply(sorted).map(tuple) == tuple(stock)).all()
    full = model.recommend(world.hot_users, k=1000, exclude_seen=False)
    expected = full[full["item_id"].isin(stock)].reset_index(drop=True)
    assert found["item_id"].tolist() == expected["item_id"].tolist()
    assert model.recommend([1000], candidates=[]).empty


@every
def test_candidates_pair_by_pair(name: str) -> None:
    model, _ = fitted(name)
    allowed = pd.DataFrame({"user_id": [1000, 1001, 1001, 8888], "item_id": [3, 4, 6, 7]})
    found = model.recommend([1001, 1000, 1002], candidates=allowed, exclude_seen=False)
    assert found[["user_id", "rank"]].to_numpy().tolist() == [[1001, 1], [1001, 2], [1000, 1]]
    assert set(found.loc[found["user_id"] == 1001, "item_id"]) == {4, 6}
    assert found["item_id"].iloc[-1] == 3


@every
def test_exclude_for_everyone_and_pair_by_pair(name: str) -> None:
    model, _ = fitted(name)
    first = model.recommend([1000, 1001], k=2)
    blocked = first.loc[first["user_id"] == 1000, "item_id"].tolist()
    everyone = model.recommend([1000, 1001], k=1000, exclude=[*blocked, 424242])
    assert not everyone["item_id"].isin(blocked).any()
    pairs = pd.DataFrame({"user_id": [1000, 1000, 9999], "item_id": [*blocked, 3]})
    found = model.recommend([1000, 1001], k=1000, exclude=pairs)
    full = model.recommend([1000, 1001], k=1000)
    dropped = full[(full["user_id"] == 1000) & full["item_id"].isin(blocked)].index
    expected = full.drop(dropped).reset_index(drop=True)
    assert found[["user_id", "item_id"]].equals(expected[["user_id", "item_id"]])
    # With seen items allowed, what is excluded stays out.
    allowed = model.recommend([1000], k=1000, exclude=pairs, exclude_seen=False)
    assert len(allowed) == len(model.items_) - 2


@every
def test_exclude_wins_over_candidates(name: str) -> None:
    model, _ = fitted(name)
    found = model.recommend([1000], candidates=[1, 2, 3], exclude=[2], exclude_seen=False)
    assert sorted(found["item_id"]) == [1, 3]


@every
def test_unknown_candidates_warn_and_are_skipped(name: str) -> None:
    model, _ = fitted(name)
    with pytest.warns(DataWarning, match="2 items that are not in the catalogue: 4242, 4243"):
        found = model.recommend([1000], candidates=[1, 4242, 4243], exclude_seen=False)
    assert found["item_id"].tolist() == [1]


@every
def test_similar_items(name: str) -> None:
    model, _ = fitted(name)
    found = model.similar_items([4, 3], k=5)
    assert list(found) == ["item_id", "similar_item_id", "score", "rank"]
    assert (found["item_id"] != found["similar_item_id"]).all()
    assert found["item_id"].drop_duplicates().tolist() == [4, 3]
    for _, mine in found.groupby("item_id"):
        assert mine["rank"].tolist() == list(range(1, len(mine) + 1))
        assert (np.diff(mine["score"]) <= 0).all()
    if CASES[name].personal:
        same = found["item_id"] % 2 == found["similar_item_id"] % 2
        assert same.mean() >= 0.8
    assert len(model.similar_items([4], k=1000)) <= len(model.items_) - 1


@every
def test_score_is_ndcg_at_10(name: str) -> None:
    model, _ = fitted(name)
    test = make_world(seed=5)
    X, y = test.X, test.y
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ColdStartWarning)
        found = model.recommend(X["user_id"].unique(), k=10)
    values = []
    for user, rows in X[y > 0].groupby("user_id"):
        relevant = set(rows["item_id"])
        mine = found.loc[found["user_id"] == user, "item_id"].tolist()
        gain = sum(1 / np.log2(rank + 2) for rank, item in enumerate(mine) if item in relevant)
        values.append(gain / sum(1 / np.log2(rank + 2) for rank in range(min(10, len(relevant)))))
    assert model.score(X, y) == pytest.approx(np.mean(values), abs=1e-9)
    assert 0 < model.score(X, y) < 1
    # A user whose only relevant item is unknown is a user who was served badly.
    assert model.score(pd.DataFrame({"user_id": [1000], "item_id": [424242]})) == 0
    assert model.score(X, np.zeros(len(X))) == 0


@every
def test_contributions_sum_to_the_prediction(name: str) -> None:
    model, world = fitted(name)
    users = [1000, int(world.warm_users[0]), 5000, 6000, 7000]
    items = pd.Index([0, 3, 11, int(world.warm_items[0]), 424242])
    X = product(users, items)
    clicks = pd.DataFrame({"user_id": [6000, 6000, 1000], "item_id": [2, 4, 5]})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ColdStartWarning)
        expected = model.predict(X, user_features=new_users().rename({5001: 7000}), interactions=clicks)
    told = model.explain(X, user_features=new_users().rename({5001: 7000}), interactions=clicks)
    assert list(told) == ["row", "user_id", "item_id", "source", "field", "weight", "contribution"]
    assert set(told["source"]) <= {"user", "item", "history", "prior"}
    assert told["row"].is_monotonic_increasing
    assert (told["user_id"].to_numpy() == X["user_id"].to_numpy()[told["row"]]).all()
    assert (told["item_id"].to_numpy() == X["item_id"].to_numpy()[told["row"]]).all()
    assert np.isfinite(told["weight"]).all()
    sums = told.groupby("row")["contribution"].sum().reindex(range(len(X)), fill_value=0)
    assert_close(sums, expected)


@every
def test_explaining_what_scores_nothing_is_an_empty_frame_or_zeros(name: str) -> None:
    X = pd.DataFrame({"user_id": [1, 1, 2], "item_id": ["a", "b", "a"]})
    model = CASES[name].make().fit(X)
    rows = pd.DataFrame({"user_id": [1], "item_id": ["unheard of"]})
    told = model.explain(rows)
    assert list(told) == ["row", "user_id", "item_id", "source", "field", "weight", "contribution"]
    assert told["contribution"].sum() == pytest.approx(float(model.predict(rows)[0]), abs=1e-6)
