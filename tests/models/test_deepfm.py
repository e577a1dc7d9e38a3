from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning

from recsys import ContentKNN, FeatureTable, Popularity
from recsys.base import BaseRecommender
from recsys.datasets import make_movielens_like
from recsys.exceptions import ColdStartWarning, InvalidInputError
from recsys.models import deepfm
from recsys.models.deepfm import DeepFM
from tests.models.worlds import assert_better, movielens_like, ndcg_at_10, sums_to_predictions, two_groups

N = 32


def make(**params: Any) -> DeepFM:
    settings: dict[str, Any] = {
        "n_factors": 8,
        "hidden_units": (8, 8),
        "max_iter": 12,
        "learning_rate": 0.01,
        "batch_size": 512,
    }
    return DeepFM(**(settings | {"random_state": 0} | params))


def fitted(*, context: bool = False, **params: Any) -> DeepFM:
    X, users, items = two_groups(N, context=context)
    return make(**params).fit(X, user_features=FeatureTable(users), item_features=FeatureTable(items))


def test_predictions_are_the_formula_of_the_paper() -> None:
    model = fitted()
    X, users, items = two_groups(N)
    weights = {name: value.detach().numpy().astype(float) for name, value in model.net_.named_parameters()}
    liked = X.loc[X["user_id"] == 0, "item_id"]

    def item_vectors(item: str) -> list[np.ndarray]:
        code = int(model.items_.encode([item])[0])
        metadata = model.item_features_.matrix[[code]].toarray()[0] @ weights["item_columns"]
        return [weights["items"][code] if code < X["item_id"].nunique() else 0 * metadata, metadata]

    def history_vector(item: str) -> np.ndarray:
        total = np.sum(item_vectors(item), axis=0)
        own = weights["history_ids"][int(model.items_.encode([item])[0])]
        return np.asarray(own + total[:-1] @ weights["history_map"])

    row = model.user_features_.matrix[[0]].toarray()[0]
    blocks = [row[f.start : f.stop] @ weights["user_columns"][f.start : f.stop] for f in model.user_features_.fields]
    history = sum(history_vector(item) for item in liked) / len(liked) ** float(weights["history_power"])
    for item in ("i2", "i1", "i7"):
        fields = [weights["users"][0], *blocks, history, *item_vectors(item)]
        score = weights["biases.2"][0] + sum(field[-1] for field in fields)
        score += sum(float(a[:-1] @ b[:-1]) for i, a in enumerate(fields) for b in fields[i + 1 :])
        first = np.concatenate([weights["first.user"], weights["first.item"]])
        hidden = np.maximum(np.concatenate([field[:-1] for field in fields]) @ first + weights["biases.0"], 0)
        hidden = np.maximum(hidden @ weights["weights.0"] + weights["biases.1"], 0)
        score += float((hidden @ weights["weights.1"])[0])
        found = model.predict(pd.DataFrame({"user_id": [0], "item_id": [item]}))
        np.testing.assert_allclose(found, score, rtol=1e-4, atol=1e-4)
    assert len(users) == len(items) == N


@pytest.mark.parametrize("context", [False, True])
@pytest.mark.parametrize("hidden_units", [(8, 8), [5], (8, 4, 3)])
def test_explanations_sum_to_predictions(context: bool, hidden_units: Any) -> None:
    model = fitted(context=context, hidden_units=hidden_units, max_iter=4)
    model.add_items(pd.DataFrame({"genres": [["ball"]]}, index=["late"]))
    X = pd.DataFrame({"user_id": [0, 7, 500, 600, 0, 0], "item_id": ["i2", "i1", "i3", "i5", "i7", "late"]})
    if context:
        X["daytime"] = ["morning", "evening", None, "morning", "noon", "evening"]
    clicks = pd.DataFrame({"user_id": [500], "item_id": ["i1"]})
    explained = sums_to_predictions(model, X, interactions=clicks)
    fields = {row: set(part["source"] + " " + part["field"]) for row, part in explained.groupby("row")}
    of_user = {"user club", "user age"} | ({"user daytime"} if context else set())
    of_item = {"item id", "item genres", "prior bias"}
    assert fields[0] == {"user id", "user history"} | of_user | of_item
    assert fields[1] == of_user | of_item
    assert fields[2] == {"user history"} | of_item
    assert fields[3] == {"prior popularity"}
    # A warm item has no id to speak of; an unseen value of the context tells nothing.
    assert fields[4] == {"user id", "user history", "user club", "user age"} | (of_item - {"item id"})
    assert fields[5] == {"user id", "user history"} | of_user | (of_item - {"item id"})
    assert (explained["weight"] == 1).all()


def test_a_known_user_with_new_interactions_is_answered_without_the_id() -> None:
    model = fitted()
    X = two_groups(N)[0]
    clicks = pd.DataFrame({"user_id": [0], "item_id": ["i3"]})
    told = sums_to_predictions(model, X[:1], interactions=clicks)
    assert "id" not in set(told.loc[told["source"] == "user", "field"])
    # Like someone unknown of the same history and attributes.
    mine = X.loc[X["user_id"] == 0, "item_id"].tolist()
    same = pd.DataFrame({"user_id": 900, "item_id": [*mine, "i3"]})
    users = two_groups(N)[1].iloc[[0]].set_axis(pd.Index([900], name="user_id"))
    first = model.recommend([0], k=N, interactions=clicks)
    second = model.recommend([900], k=N, interactions=same, user_features=users)
    assert first["item_id"].tolist() == second["item_id"].tolist()
    np.testing.assert_allclose(first["score"], second["score"], rtol=1e-4, atol=1e-5)


def test_warm_items_and_users_of_the_right_group_come_first() -> None:
    model = fitted(max_iter=25)
    warm = [f"i{i}" for i in range(N) if i % 8 == 7]
    model.add_items(pd.DataFrame({"genres": [["board", "calm"]]}, index=["even"]))
    # All warm items of the data are of the odd group; the added one is of the even group.
    X = pd.DataFrame({"user_id": np.repeat([0, 2, 1, 3], 5), "item_id": [*warm, "even"] * 4})
    scores = model.predict(X).reshape(4, 5)
    assert (scores[:2, 4:] > scores[:2, :4]).all()
    assert (scores[2:, 4:] < scores[2:, :4]).all()
    found = model.recommend([7, 15], k=10, exclude=["even"])
    assert (found["path"] == "warm").all()
    assert (found["item_id"].str[1:].astype(int) % 2 == 1).all()
    few = model.recommend(
        [900], k=5, exclude=["even"], interactions=pd.DataFrame({"user_id": [900, 900], "item_id": ["i0", "i2"]})
    )
    assert (few["item_id"].str[1:].astype(int) % 2 == 0).all()


@cache
def trained(kind: type[BaseRecommender]) -> BaseRecommender:
    ml, train, _, _ = movielens_like()
    model = DeepFM(n_factors=32, hidden_units=(32, 32), random_state=0) if kind is DeepFM else kind()
    fitted: BaseRecommender = model.fit(
        train, user_features=FeatureTable(ml.users), item_features=FeatureTable(ml.items)
    )
    return fitted


def test_beats_popularity_for_warm_users() -> None:
    _, train, of_new_users, _ = movielens_like()
    allowed = {"candidates": train["item_id"].unique()}
    assert_better(*(ndcg_at_10(trained(kind), of_new_users, **allowed) for kind in (DeepFM, Popularity)))


@pytest.mark.parametrize("n_shown", [2, 5])
def test_beats_popularity_for_few_shot_users(n_shown: int) -> None:
    _, train, of_new_users, _ = movielens_like()
    shown = of_new_users.groupby("user_id").cumcount() < n_shown
    told = {"interactions": of_new_users[shown], "candidates": train["item_id"].unique()}
    wanted = of_new_users[~shown]
    assert_better(*(ndcg_at_10(trained(kind), wanted, **told) for kind in (DeepFM, Popularity)))


def test_beats_content_neighbours_for_warm_items() -> None:
    _, _, _, of_new_items = movielens_like()
    told = {"candidates": of_new_items["item_id"].unique()}
    assert_better(*(ndcg_at_10(trained(kind), of_new_items, **told) for kind in (DeepFM, ContentKNN)))


def test_context_decides_the_item() -> None:
    model = fitted(context=True, max_iter=30)
    hot = two_groups(N)[0]["item_id"].unique()
    for user in (0, 1):
        asked = pd.DataFrame({"daytime": ["morning", "evening"]})
        found = model.recommend([user, user], k=3, context=asked, candidates=hot, exclude_seen=False)
        item = found["item_id"].str[1:].astype(int).to_numpy()
        assert (item % 2 == user).all()
        assert (item[:3] % 4 < 2).all()
        assert (item[3:] % 4 >= 2).all()


def test_partial_fit_grows_and_keeps_what_was_learned() -> None:
    X, users, items = two_groups(N)
    told: dict[str, Any] = {"user_features": FeatureTable(users), "item_features": FeatureTable(items)}
    held = np.random.default_rng(1).random(len(X)) < 0.2
    model = make(max_iter=30).fit(X[~held], **told)
    before = model.score(X[held])
    old = model.net_.get_parameter("items").detach().numpy().copy()
    day2 = pd.DataFrame({"user_id": [0, 2, 4, 6, 1000], "item_id": ["fresh"] * 4 + ["i2"]})
    model.partial_fit(day2, item_features=pd.DataFrame({"genres": [["calm"]]}, index=["fresh"]))
    assert model.n_iter_ == 10
    assert model.net_.sizes["users"] == len(model.users_) == N + 1
    assert model.net_.sizes["items"] == len(model.items_) == len(model.item_halves_) == N + 1
    # It goes on from where it was.
    moved = np.linalg.norm(model.net_.get_parameter("items").detach().numpy()[:-1] - old)
    assert 0 < moved < np.linalg.norm(old)
    assert model.score(X[held]) > before - 0.1
    even, odd = model.predict(pd.DataFrame({"user_id": [8, 9], "item_id": ["fresh", "fresh"]}))
    assert even > odd
    assert (model.recommend([1000], k=5)["path"] == "hot").all()


SMALL = pd.DataFrame({"user_id": [1, 1, 2, 2, 3, 3, 4], "item_id": ["a", "b", "a", "c", "b", "c", "d"]})
KINDS = pd.DataFrame({"kind": ["x", "y", "x", "y", "x"]}, index=pd.Index(list("abcde"), name="item_id"))
NOTHING = pd.DataFrame({"kind": [np.nan] * 5}, index=KINDS.index)
ZEROS = pd.DataFrame({"kind": [np.zeros(3)] * 5}, index=KINDS.index)
AGES = pd.DataFrame({"age": [1.0, 2.0, 3.0, 4.0, 5.0]}, index=pd.Index([1, 2, 3, 4, 5], name="user_id"))


@pytest.mark.parametrize(
    ("X", "told"),
    [
        (SMALL, {}),
        (SMALL, {"user_features": AGES}),
        (SMALL, {"item_features": KINDS}),
        (SMALL, {"item_features": NOTHING}),
        (SMALL, {"item_features": ZEROS}),
        (SMALL, {"item_features": KINDS.assign(other=np.nan)}),
        (SMALL[:2], {}),
        (SMALL[SMALL["item_id"] == "a"], {"item_features": KINDS}),
        (SMALL[:1], {}),
        (SMALL[:1], {"item_features": KINDS, "user_features": AGES}),
        (SMALL.assign(daytime=np.nan), {}),
        (pd.DataFrame({"user_id": 1, "item_id": range(70)}), {}),
    ],
    ids=[
        "no features",
        "features of users alone",
        "features of items alone",
        "no value in a field",
        "a vector of zeros",
        "no value in one of two fields",
        "one user",
        "one item",
        "one interaction",
        "one interaction, many warm items",
        "no value in the context",
        "a user with all items",
    ],
)
@pytest.mark.parametrize("batch_size", [None, 1])
def test_little_data(X: pd.DataFrame, told: dict[str, Any], batch_size: int | None) -> None:
    model = make(max_iter=3, batch_size=batch_size)
    model.fit(X, **{name: FeatureTable(frame) for name, frame in told.items()})
    assert np.isfinite(sums_to_predictions(model, X)["contribution"]).all()
    found = model.recommend(X["user_id"].unique(), k=100, exclude_seen=False)
    assert len(found) == X["user_id"].nunique() * len(model.items_)
    assert np.isfinite(found["score"]).all()
    assert model.n_iter_ == len(model.loss_curve_) == 3


def test_weights_do_not_matter_where_they_are_positive() -> None:
    first, second = make(max_iter=3).fit(SMALL), make(max_iter=3).fit(SMALL, np.full(7, 1e30))
    np.testing.assert_array_equal(first.item_halves_, second.item_halves_)


@pytest.mark.parametrize("hidden_units", [(), (0,), (8, -1), (8.5,), ("8",)])
def test_impossible_hidden_units_are_refused(hidden_units: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"`hidden_units` is .*; expected one width or more"):
        make(hidden_units=hidden_units).fit(SMALL)


def test_divergence_is_told_and_leaves_finite_predictions() -> None:
    ml = make_movielens_like(200, 120, 4000, random_state=0)
    X = ml.interactions[["user_id", "item_id"]]
    model = make(learning_rate=1e12, max_iter=6)
    with pytest.warns(ConvergenceWarning, match=r"diverged in epoch \d.*lower `learning_rate`") as caught:
        model.fit(X, user_features=FeatureTable(ml.users), item_features=FeatureTable(ml.items))
    assert [Path(warning.filename) for warning in caught] == [Path(__file__)]
    assert model.n_iter_ < 6
    assert np.isfinite(model.predict(X)).all()


def test_scores_do_not_depend_on_the_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    model = fitted()
    X = pd.DataFrame({"user_id": np.repeat(np.arange(N), N), "item_id": np.tile(model.items_.ids, N)})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ColdStartWarning)
        expected = model.predict(X)
        monkeypatch.setattr(deepfm, "PAIRS_AT_A_TIME", 64)
        model.add_items([f"more {i}" for i in range(100)])
        np.testing.assert_allclose(model.predict(X), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("n_items", [77, 130, 201])
def test_items_that_are_alike_score_alike(n_items: int) -> None:
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"user_id": rng.integers(0, 60, 900), "item_id": rng.integers(0, 40, 900)}).drop_duplicates()
    kinds = ["a", "b"] * 20 + ["a"] * (n_items - 40)
    items = pd.DataFrame({"kind": kinds}, index=pd.RangeIndex(n_items, name="item_id"))
    model = make(max_iter=2).fit(X, item_features=FeatureTable(items))
    for users in ([0], list(range(7)), list(range(60))):
        found = model.recommend(users, k=n_items)
        alike = found[found["item_id"] >= 40]
        assert (alike.groupby("user_id")["score"].nunique() == 1).all()
        assert (alike.groupby("user_id")["item_id"].diff().dropna() > 0).all()


@pytest.mark.parametrize("n_threads", [1, 2])
def test_two_fits_agree_bit_for_bit_whatever_the_threads(n_threads: int) -> None:
    first, before = fitted(), torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        second = fitted()
        assert torch.get_num_threads() == n_threads
    finally:
        torch.set_num_threads(before)
    for name, weights in first.net_.named_parameters():
        assert torch.equal(weights, second.net_.get_parameter(name))
    assert first.loss_curve_ == second.loss_curve_
    assert not np.array_equal(first.item_halves_, fitted(random_state=1).item_halves_)


def test_a_random_state_is_drawn_from() -> None:
    state = np.random.RandomState(0)
    first, second = fitted(random_state=state), fitted(random_state=state)
    np.testing.assert_array_equal(first.item_halves_, fitted().item_halves_)
    assert not np.array_equal(first.item_halves_, second.item_halves_)


def test_similar_items_are_those_of_the_group() -> None:
    found = fitted(max_iter=25).similar_items(["i0", "i1"], k=8)
    item, similar = (found[name].str[1:].astype(int) for name in ("item_id", "similar_item_id"))
    assert (item % 2 == similar % 2).mean() > 0.9
    assert found["score"].between(-1.001, 1.001).all()


@pytest.mark.parametrize("changed", [{"n_factors": 4}, {"hidden_units": (8, 8, 8)}])
def test_partial_fit_after_another_shape_starts_afresh(changed: dict[str, Any]) -> None:
    X, *_ = two_groups(N)
    model = make(max_iter=3).fit(X).set_params(**changed).partial_fit(X.head(5))
    np.testing.assert_allclose(model.predict(X), make(max_iter=1, **changed).fit(X).predict(X), rtol=1e-4, atol=1e-5)
