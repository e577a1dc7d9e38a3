"""Every estimator: users and items that `fit` saw little of or nothing, features, context, and vectors."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest

from recsys import DeepFM, FeatureTable, MatrixFactorization
from recsys.exceptions import ColdStartError, ColdStartWarning, DataWarning, InvalidInputError
from recsys.vectors import VectorRecommender
from tests.contract.suite import (
    CASES,
    CLOSED_FORM,
    NAMES,
    PERSONAL,
    RETRIEVERS,
    assert_close,
    checkerboard,
    fit,
    fitted,
    make_world,
    new_items,
    new_users,
    product,
)

every = pytest.mark.parametrize("name", NAMES)
WITH_USER_FEATURES = [name for name in NAMES if CASES[name].uses_user_features]
WITH_ITEM_FEATURES = [name for name in NAMES if CASES[name].uses_item_features]
WITH_CONTEXT = [name for name in NAMES if CASES[name].uses_context]
WITHOUT_CONTEXT = [name for name in NAMES if not CASES[name].uses_context]
# Answers everybody alike, so that nobody is cold to it.
KNOWS_EVERYBODY = [name for name in NAMES if CASES[name].knows_everybody]


@every
def test_paths_and_one_warning_a_call(name: str) -> None:
    model, world = fitted(name)
    warm = int(world.warm_users[0])
    users = [1000, warm, 5000, 6000, 7000, 7001]
    clicks = pd.DataFrame({"user_id": [6000, 1000], "item_id": [2, 5]})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = model.recommend(users, k=2, user_features=new_users(), interactions=clicks)
    path = found.drop_duplicates("user_id").set_index("user_id")["path"].astype(str)
    by_features = "warm" if CASES[name].uses_user_features else "cold"
    assert path.tolist() == ["hot", by_features, by_features, "few-shot", "cold", "cold"]
    assert found["user_id"].tolist() == [user for user in users for _ in range(2)]
    if name in KNOWS_EVERYBODY:
        assert caught == []
    else:
        assert [warning.category for warning in caught] == [ColdStartWarning]
        n_cold = 2 if by_features == "warm" else 4
        assert f"is known of {n_cold} of 6 users: they were answered with the most popular" in str(caught[0].message)
        # It points at the line that asked.
        assert caught[0].filename == __file__


@every
def test_predict_warns_once_too(name: str) -> None:
    model, _ = fitted(name)
    X = product([1000, 7000, 7001], model.items_.ids[:3])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        scores = model.predict(X)
    np.testing.assert_array_equal(scores[3:6], model.popularity_[:3])
    expected = [] if name in KNOWS_EVERYBODY else [(ColdStartWarning, __file__)]
    assert [(warning.category, warning.filename) for warning in caught] == expected


@every
def test_cold_users_get_the_prior(name: str) -> None:
    model, world = fitted(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ColdStartWarning)
        found = model.recommend([7000], k=1000)
    liked = world.X[world.y > 0]
    share = liked.groupby("item_id")["user_id"].nunique() / liked["user_id"].nunique()
    expected = share.reindex(found["item_id"], fill_value=0).to_numpy(np.float32)
    np.testing.assert_allclose(found["score"], expected, rtol=1e-6)
    assert len(found) == len(model.items_)


@every
def test_on_cold_popular(name: str) -> None:
    model, world = fitted(name)
    users = [1000, int(world.warm_users[0]), 5000, 7000]
    found = model.recommend(users, k=1000, on_cold="popular", user_features=new_users())
    hot = found[found["user_id"] == 1000].reset_index(drop=True)
    alone = model.recommend([1000], k=1000)
    assert hot["item_id"].tolist() == alone["item_id"].tolist()
    others = found[found["user_id"] != 1000]
    assert (others["path"] == "cold").all()
    np.testing.assert_array_equal(others["score"], model.popularity_[model.items_.encode(others["item_id"])])


@every
def test_on_cold_raise(name: str) -> None:
    model, _ = fitted(name)
    assert model.recommend([1000], k=1, on_cold="raise")["path"].tolist() == ["hot"]
    helps = "`user_features` or `interactions`" if CASES[name].uses_user_features else "`interactions`"
    with pytest.raises(ColdStartError, match=rf"known of 4 of `users`: 7000, 7001, 7002, \.\.\.; pass {helps}, or "):
        model.recommend([1000, 7000, 7001, 7002, 7003], on_cold="raise")
    clicks = pd.DataFrame({"user_id": [7000], "item_id": [2]})
    assert model.recommend([7000], k=1, interactions=clicks, on_cold="raise")["path"].tolist() == ["few-shot"]


@pytest.mark.parametrize("name", PERSONAL)
def test_few_interactions_tell_the_taste_of_a_new_user(name: str) -> None:
    model = fit(CASES[name].make(), checkerboard()[0])
    clicks = pd.DataFrame({"user_id": [6000, 6000, 6001, 6001], "item_id": [2, 4, 3, 5]})
    found = model.recommend([6000, 6001], k=8, interactions=clicks)
    assert found["path"].tolist() == ["few-shot"] * 16
    assert (found["item_id"] % 2).tolist() == [0] * 8 + [1] * 8


@pytest.mark.parametrize("name", CLOSED_FORM)
def test_a_new_user_is_answered_like_a_hot_one_of_the_same_history(name: str) -> None:
    model, world = fitted(name)
    rows = world.X["user_id"] == 1000
    clicks = world.X[rows].assign(user_id=6000, rating=world.y[rows])
    found = model.recommend([6000], k=1000, interactions=clicks)
    expected = model.recommend([1000], k=1000)
    assert found["item_id"].tolist() == expected["item_id"].tolist()
    assert_close(found["score"], expected["score"])


@every
def test_interactions_with_unknown_items_warn(name: str) -> None:
    model, _ = fitted(name)
    clicks = pd.DataFrame({"user_id": [6000, 6000], "item_id": [2, 4242]})
    with pytest.warns(DataWarning, match=r"`interactions` names 1 items that are not in the catalogue: 4242"):
        found = model.recommend([6000], k=2, interactions=clicks)
    assert (found["path"] == "few-shot").all()


@pytest.mark.parametrize("name", WITH_USER_FEATURES)
def test_features_tell_the_taste_of_a_new_user(name: str) -> None:
    model = fit(CASES[name].make(), checkerboard()[0])
    found = model.recommend([5000, 5001], k=8, user_features=new_users())
    assert found["path"].tolist() == ["warm"] * 16
    assert (found["item_id"] % 2).tolist() == [0] * 8 + [1] * 8


@every
def test_features_in_the_column_or_the_index(name: str) -> None:
    model, _ = fitted(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ColdStartWarning)
        by_index = model.recommend([5001], k=5, user_features=new_users())
        by_column = model.recommend([5001], k=5, user_features=new_users().reset_index())
        by_table = model.recommend([5001], k=5, user_features=FeatureTable(new_users()))
    pd.testing.assert_frame_equal(by_index, by_column)
    pd.testing.assert_frame_equal(by_index, by_table)


@every
def test_warm_items_are_in_the_catalogue(name: str) -> None:
    model, world = fitted(name)
    assert model.items_.ids.tolist() == [*world.hot_items, *world.warm_items]
    found = model.recommend([1000], k=1000, candidates=world.warm_items)
    assert sorted(found["item_id"]) == sorted(world.warm_items)


@pytest.mark.parametrize("name", WITH_ITEM_FEATURES)
def test_features_tell_who_likes_a_new_item(name: str) -> None:
    model, world = fitted(name)
    users = world.hot_users.tolist()
    X = product(users, pd.Index([600, 601]))
    scores = model.predict(X, item_features=new_items()).reshape(-1, 2)
    right = (scores[:, 0] > scores[:, 1]) == (np.array(users) % 2 == 0)
    assert right.mean() >= 0.8
    # The same features say the same of an item that has joined.
    model.add_items(new_items())
    assert_close(model.predict(X).reshape(-1, 2), scores)
    assert len(world.warm_items) == 3


@every
def test_unknown_items_in_predict_leave_the_model_as_it_was(name: str) -> None:
    model, world = fitted(name)
    before = model.recommend(world.hot_users, k=1000)
    X = product([1000, 1001], pd.Index([600, 3, 424242]))
    scores = model.predict(X, item_features=new_items())
    assert np.isfinite(scores).all()
    assert_close(scores[1::3], model.predict(X.iloc[1::3]))
    assert_close(model.predict(X)[1::3], scores[1::3])
    assert 600 not in model.items_
    pd.testing.assert_frame_equal(model.recommend(world.hot_users, k=1000), before)


@every
def test_add_items(name: str) -> None:
    model, _ = fitted(name)
    before = model.recommend([1000, 1001], k=1000, exclude_seen=False)
    catalogue = model.items_.ids.tolist()
    assert model.add_items(new_items()) is model
    model.add_items(["no features", 424242])
    assert model.items_.ids.tolist() == [*catalogue, 600, 601, "no features", 424242]
    after = model.recommend([1000, 1001], k=1000, exclude_seen=False)
    known = after[after["item_id"].isin(catalogue)]
    both = before.merge(known, on=["user_id", "item_id"], validate="one_to_one")
    assert len(both) == len(before)
    assert_close(both["score_x"], both["score_y"])
    assert set(after["item_id"]) - set(catalogue) == {600, 601, "no features", 424242}
    # What has joined can be clicked, excluded, explained and compared.
    clicks = pd.DataFrame({"user_id": [6000, 6000], "item_id": [2, 600]})
    assert 600 not in set(model.recommend([6000], k=1000, interactions=clicks)["item_id"])
    assert 601 not in set(model.recommend([1000], k=1000, exclude=[601])["item_id"])
    assert len(model.similar_items([600], k=3)) <= 3
    X = product([1000], pd.Index([600, 424242]))
    sums = model.explain(X).groupby("row")["contribution"].sum().reindex([0, 1], fill_value=0)
    assert_close(sums, model.predict(X))


@every
def test_adding_known_items_is_refused_and_changes_nothing(name: str) -> None:
    model, _ = fitted(name)
    n = len(model.items_)
    with pytest.raises(InvalidInputError, match="2 ids that are in the catalogue already: 3, 4; expected new"):
        model.add_items([3, 600, 4])
    with pytest.raises(InvalidInputError, match="`items` has more than one row for 1 ids: 600"):
        model.add_items(pd.concat([new_items(), new_items().iloc[:1]]))
    with pytest.raises(InvalidInputError, match="`items` holds 1 ids more than once: 600"):
        model.add_items([600, 600])
    assert len(model.items_) == n


@every
def test_context_is_accepted_everywhere(name: str) -> None:
    model, world = fitted(name, context=True)
    assert model.n_features_in_ == 3
    assert np.isfinite(model.predict(world.X)).all()
    users = [1000, 1001]
    by_dict = model.recommend(users, k=5, context={"daytime": "morning"})
    by_frame = model.recommend(users, k=5, context=pd.DataFrame({"daytime": ["morning", "morning"]}))
    pd.testing.assert_frame_equal(by_dict, by_frame)
    unknown = model.recommend(users, k=5)
    unseen = model.recommend(users, k=5, context={"daytime": "never seen"})
    pd.testing.assert_frame_equal(unknown, unseen)
    told = model.explain(world.X.iloc[:5])
    assert_close(
        told.groupby("row")["contribution"].sum().reindex(range(5), fill_value=0),
        model.predict(world.X.iloc[:5]),
    )
    more = make_world(context=True, seed=3)
    assert np.isfinite(model.partial_fit(more.X, more.y).predict(more.X)).all()


@pytest.mark.parametrize("name", WITHOUT_CONTEXT)
def test_context_changes_nothing_where_it_is_not_used(name: str) -> None:
    model, world = fitted(name, context=True)
    flipped = world.X.assign(daytime=world.X["daytime"].map({"morning": "evening", "evening": "morning"}))
    np.testing.assert_array_equal(model.predict(world.X), model.predict(flipped))


@pytest.mark.parametrize("name", WITH_CONTEXT)
def test_context_decides_where_it_is_used(name: str) -> None:
    model, _ = fitted(name, context=True)
    users = [1000, 1001, 1002, 1003]
    X = product(users, pd.Index([0, 1]))
    morning = model.predict(X.assign(daytime="morning")).reshape(4, 2)
    evening = model.predict(X.assign(daytime="evening")).reshape(4, 2)
    # Even items are those of the morning: their lead is longer then.
    assert (morning[:, 0] - morning[:, 1] > evening[:, 0] - evening[:, 1]).all()
    both = model.recommend([1000, 1000], k=30, context=pd.DataFrame({"daytime": ["morning", "evening"]}))
    top = both[both["rank"] <= 5]["item_id"].to_numpy().reshape(2, 5) % 2 == 0
    assert top[0].sum() >= top[1].sum()


@pytest.mark.parametrize("name", WITH_CONTEXT)
def test_the_score_is_of_users_in_their_contexts(name: str) -> None:
    model, world = fitted(name, context=True)
    more = make_world(context=True, seed=5)
    X = more.X[more.y > 0].reset_index(drop=True)
    values = []
    for (user, daytime), part in X.groupby(["user_id", "daytime"]):
        found = model.recommend([user], k=10, context={"daytime": daytime})["item_id"].tolist()
        relevant = set(part["item_id"])
        gains = sum(1 / np.log2(rank + 2) for rank, item in enumerate(found) if item in relevant)
        values.append(gains / sum(1 / np.log2(rank + 2) for rank in range(min(10, len(relevant)))))
    assert model.score(X) == pytest.approx(np.mean(values))
    assert len(values) > world.X["user_id"].nunique()


@every
def test_pairs_go_by_the_names_of_fit(name: str) -> None:
    world = make_world()
    X = world.X.rename(columns={"user_id": "customer", "item_id": "product"})
    model = CASES[name].make().fit(X, world.y)
    top = model.recommend([1000], k=2)["item_id"].tolist()
    pairs = pd.DataFrame({"product": top[:1], "customer": [1000]})
    assert model.recommend([1000], k=1, exclude=pairs)["item_id"].tolist() == top[1:]
    assert model.recommend([1000], candidates=pairs)["item_id"].tolist() == top[:1]


@every
def test_a_score_of_items_of_another_type_of_id_is_refused(name: str) -> None:
    model, world = fitted(name)
    with pytest.raises(InvalidInputError, match=r"`X` names no item of the catalogue, but '.*They are text"):
        model.score(world.X.astype(str), world.y)


@every
def test_those_that_join_under_ids_of_another_type_are_told(name: str) -> None:
    model, world = fitted(name)
    first = world.X.head(1)
    text, people = (frame.set_index(frame.index.astype(str)) for frame in (world.items, world.users))
    as_text = {side: first.astype({f"{side}_id": str}) for side in ("user", "item")}
    calls: list[tuple[Any, str]] = [
        (lambda model: model.add_items(text), "items"),
        (lambda model: model.add_items(["1", "2"]), "items"),
        (lambda model: model.partial_fit(first, [1], item_features=text), "item_features"),
        (lambda model: model.partial_fit(first, [1], user_features=people), "user_features"),
        (lambda model: model.partial_fit(as_text["item"], [1], item_features=world.items), "X"),
        (lambda model: model.partial_fit(as_text["user"], [1]), "X"),
    ]
    for call, argument in calls:
        message = (
            rf"`{argument}` names none that is known, but .*: all join as new. They are text \(.*\), but the known ones"
        )
        with pytest.warns(DataWarning, match=message):
            call(copy.deepcopy(model))


@every
def test_newcomers_may_have_names_of_another_type(name: str) -> None:
    model, world = fitted(name)
    model = copy.deepcopy(model)
    X = pd.concat([world.X.head(1), world.X.head(1).assign(user_id="ann")], ignore_index=True)
    ann = world.users.head(1).set_index(pd.Index(["ann"], name="user_id"))
    # Known together with what `X` has: no slip.
    model.partial_fit(X, [1, 1], user_features=ann)
    assert model.recommend(["ann"], k=1)["path"].tolist() == ["hot"]


@every
def test_users_of_another_type_of_id_are_told(name: str) -> None:
    model, _ = fitted(name)
    if name not in KNOWS_EVERYBODY:
        with pytest.warns(ColdStartWarning, match=r"They are text \('1000'\), but .* are numbers"):
            model.recommend(["1000", "1001"], k=1)


@pytest.mark.parametrize("name", RETRIEVERS)
def test_inner_products_of_vectors_are_the_scores(name: str) -> None:
    model, world = fitted(name)
    assert isinstance(model, VectorRecommender)
    model.add_items(new_items())
    users = [1000, int(world.warm_users[0]), 5000, 6000, 7000, 1000]
    clicks = pd.DataFrame({"user_id": [6000, 6000, 1000], "item_id": [2, 600, 5]})
    told: dict[str, Any] = {"user_features": new_users(), "interactions": clicks}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        vectors = model.user_vectors(users, **told)
    assert [warning.category for warning in caught] == ([] if name in KNOWS_EVERYBODY else [ColdStartWarning])
    scores = vectors @ model.item_vectors().T
    assert scores.dtype == np.float32
    assert scores.shape == (6, len(model.items_))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ColdStartWarning)
        found = model.recommend(users[:5], k=1000, exclude_seen=False, **told)
    at = pd.Index(users[:5]).get_indexer(pd.Index(found["user_id"])), model.items_.encode(found["item_id"])
    assert_close(scores[at], found["score"])
    np.testing.assert_array_equal(vectors[4], np.eye(vectors.shape[1], dtype=np.float32)[-1])


@pytest.mark.parametrize("name", RETRIEVERS)
def test_vectors_of_some_items_and_of_popular_answers(name: str) -> None:
    model, _ = fitted(name)
    assert isinstance(model, VectorRecommender)
    everything = model.item_vectors()
    np.testing.assert_array_equal(model.item_vectors([4, 3]), everything[model.items_.encode([4, 3])])
    popular = model.user_vectors([1000, 7000], on_cold="popular")
    np.testing.assert_array_equal(popular[1] @ everything.T, model.popularity_)
    with pytest.raises(ColdStartError, match="known of 1 of `users`: 7000"):
        model.user_vectors([1000, 7000], on_cold="raise")
    with pytest.raises(InvalidInputError, match="`items` holds 1 ids that are not in the catalogue: 424242"):
        model.item_vectors([4, 424242])


@pytest.mark.parametrize("name", RETRIEVERS)
def test_vectors_are_the_callers_to_change(name: str) -> None:
    model, world = fitted(name)
    assert isinstance(model, VectorRecommender)
    before = model.recommend(world.hot_users, k=5)
    model.item_vectors()[:] = np.nan
    model.item_vectors([3])[:] = np.nan
    model.user_vectors(world.hot_users)[:] = np.nan
    pd.testing.assert_frame_equal(model.recommend(world.hot_users, k=5), before)


@every
def test_asking_does_not_change_the_model(name: str) -> None:
    model, world = fitted(name)
    model.similar_items([3], k=2)
    first = copy.deepcopy(model)
    clicks = pd.DataFrame({"user_id": [1000], "item_id": [2]})
    model.recommend([1000], k=3, interactions=clicks)
    model.similar_items([3, 4], k=3)
    model.score(world.X, world.y)
    pd.testing.assert_frame_equal(model.recommend(world.hot_users, k=30), first.recommend(world.hot_users, k=30))


@every
def test_features_alone_may_stay_out(name: str) -> None:
    world = make_world()
    model = CASES[name].make().fit(world.X, world.y)
    assert len(model.users_) == len(world.hot_users)
    found = model.recommend(world.hot_users, k=3)
    assert len(found) == 3 * len(world.hot_users)
    only_items = CASES[name].make().fit(world.X, world.y, item_features=FeatureTable(world.items))
    assert len(only_items.items_) == len(world.items)
    assert fit(CASES[name].make(), world).users_.ids.tolist() == [*world.hot_users, *world.warm_users]


@pytest.mark.parametrize("name", RETRIEVERS)
@pytest.mark.parametrize("n_items", [77, 130, 163, 201])
def test_items_that_are_alike_come_in_catalogue_order(name: str, n_items: int) -> None:
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"user_id": rng.integers(0, 60, 900), "item_id": rng.integers(0, 40, 900)}).drop_duplicates()
    kinds = ["a", "b"] * 20 + ["a"] * (n_items - 40)
    items = pd.DataFrame({"kind": kinds}, index=pd.RangeIndex(n_items, name="item_id"))
    model = CASES[name].make().set_params(**CASES[name].battery).fit(X, item_features=FeatureTable(items))
    for users in ([0], list(range(7)), list(range(60))):
        found = model.recommend(users, k=n_items)
        alike = found[found["item_id"] >= 40]
        assert (alike.groupby("user_id")["item_id"].diff().dropna() > 0).all()


@every
def test_a_history_that_says_nothing_is_answered_by_more_than_the_order_of_the_catalogue(name: str) -> None:
    world = make_world()
    model = CASES[name].make().fit(world.X, world.y)
    model.add_items([999])
    clicks = pd.DataFrame({"user_id": [7], "item_id": [999]})
    found = model.recommend([7], k=1000, interactions=clicks)
    assert found["score"].nunique() > 5
    pairs = found[["user_id", "item_id"]]
    told = model.explain(pairs, interactions=clicks)
    np.testing.assert_allclose(told.groupby("row")["contribution"].sum(), found["score"], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("model", [DeepFM(max_iter=2, random_state=0), MatrixFactorization(loss="bpr", random_state=0)])
def test_a_row_that_only_counts_as_seen_leaves_a_hot_user_as_it_was(model: Any) -> None:
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"user_id": rng.integers(0, 30, 400), "item_id": rng.integers(0, 20, 400)}).drop_duplicates()
    model.set_params(min_rating=4).fit(X, np.full(len(X), 5.0))
    new = np.setdiff1d(np.arange(20), X["item_id"][X["user_id"] == 3])[:1]
    disliked = pd.DataFrame({"user_id": [3], "item_id": new, "rating": [1.0]})
    plain, told = model.recommend([3], exclude=new), model.recommend([3], exclude=new, interactions=disliked)
    np.testing.assert_array_equal(plain["item_id"], told["item_id"])
    np.testing.assert_array_equal(plain["score"], told["score"])
