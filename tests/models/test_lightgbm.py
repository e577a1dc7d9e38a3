from __future__ import annotations

import copy
import re
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from recsys import FeatureTable, MatrixFactorization, Popularity, load
from recsys.base import BaseRecommender
from recsys.datasets import make_movielens_like
from recsys.exceptions import ColdStartWarning, InvalidInputError
from recsys.models import lightgbm as module
from recsys.models._ranking_table import RankingTable
from recsys.models._tree_scores import TreeScores
from recsys.models.lightgbm import LightGBMRecommender, Trees
from tests.models.worlds import two_groups

N = 40


def make(**params: Any) -> LightGBMRecommender:
    defaults = {"n_estimators": 20, "min_child_samples": 10, "n_factors": 6, "n_jobs": 1, "random_state": 0}
    return LightGBMRecommender(**(defaults | params))


@cache
def _fitted(context: bool) -> LightGBMRecommender:
    X, users, items = two_groups(N, context=context)
    return make().fit(X, user_features=FeatureTable(users), item_features=FeatureTable(items))


def fitted(context: bool = False) -> LightGBMRecommender:
    return copy.deepcopy(_fitted(context))


def everything(users: Any = range(N)) -> pd.DataFrame:
    user, item = (grid.ravel() for grid in np.meshgrid(list(users), np.arange(N), indexing="ij"))
    return pd.DataFrame({"user_id": user, "item_id": [f"i{i}" for i in item]})


def share_of_own_group(model: BaseRecommender, users: list[int], k: int, **told: Any) -> float:
    found = model.recommend(users, k=k, **told)
    return float((found["item_id"].str[1:].astype(int) % 2 == found["user_id"] % 2).mean())


def test_hot_warm_and_few_shot_users_get_the_items_of_their_group() -> None:
    model = fitted()
    hot, warm = [i for i in range(N) if i % 8 != 7], [7, 15, 23]
    assert share_of_own_group(model, hot, 4) > 0.97
    assert share_of_own_group(model, warm, 4) == 1
    clicks = pd.DataFrame({"user_id": [101, 101, 102, 102], "item_id": ["i1", "i3", "i2", "i4"]})
    assert share_of_own_group(model, [101, 102], 8, interactions=clicks) == 1
    assert model.recommend([0, 7], k=1)["path"].tolist() == ["hot", "warm"]


def test_warm_items_are_ranked_by_their_content() -> None:
    model = fitted()
    warm = pd.DataFrame({"genres": [["board", "calm"], ["ball"]]}, index=pd.Index(["even", "odd"], name="item_id"))
    model.add_items(warm)
    users = np.array([i for i in range(N) if i % 8 != 7])
    X = pd.DataFrame({"user_id": np.repeat(users, 2), "item_id": ["even", "odd"] * len(users)})
    scores = model.predict(X).reshape(-1, 2)
    assert ((scores[:, 0] > scores[:, 1]) == (users % 2 == 0)).mean() > 0.97


def test_context_moves_the_scores() -> None:
    model = fitted(context=True)
    # Of the same genre, but taken at another time of the day.
    X = pd.DataFrame({"user_id": np.repeat([0, 2, 4, 6], 2), "item_id": ["i0", "i2"] * 4})
    morning = model.predict(X.assign(daytime="morning")).reshape(-1, 2)
    evening = model.predict(X.assign(daytime="evening")).reshape(-1, 2)
    assert (morning[:, 0] - morning[:, 1] > evening[:, 0] - evening[:, 1]).all()
    assert np.isfinite(model.predict(X.assign(daytime=None))).all()


def test_beats_popularity_and_keeps_up_with_factors() -> None:
    data = make_movielens_like(n_users=300, n_items=120, n_interactions=8000, random_state=0)
    X = data.interactions[["user_id", "item_id"]]
    held = np.random.default_rng(0).random(len(X)) < 0.2
    tables = {"user_features": FeatureTable(data.users), "item_features": FeatureTable(data.items)}
    model = make(n_factors=16).fit(X[~held], **tables)
    assert model.score(X[held]) > Popularity().fit(X[~held]).score(X[held]) + 0.08
    factors = MatrixFactorization(n_factors=16, l2=10.0, random_state=0).fit(X[~held])
    assert model.score(X[held]) > 0.9 * factors.score(X[held])


def test_a_model_of_noise_is_no_better_than_chance() -> None:
    rng = np.random.default_rng(1)
    liked = rng.random((300, 50)) < 0.25
    users, items = np.nonzero(liked)
    held = rng.random(len(users)) < 0.2
    X = pd.DataFrame({"user_id": users, "item_id": items})
    model = make(n_estimators=40).fit(X[~held])
    rest_users, rest_items = np.nonzero(~liked)
    others = pd.DataFrame({"user_id": rest_users, "item_id": rest_items})
    scores = np.append(model.predict(X[held]), model.predict(others))
    labels = np.repeat([1, 0], [held.sum(), len(others)])
    assert 0.47 < roc_auc_score(labels, scores) < 0.53


def test_the_number_of_threads_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAIRS_A_THREAD", 1)
    X, users, items = two_groups(N)
    tables = {"user_features": FeatureTable(users), "item_features": FeatureTable(items)}
    plain = make(n_estimators=5).fit(X, **tables).predict(everything())
    threaded = make(n_estimators=5, n_jobs=2).fit(X, **tables).predict(everything())
    np.testing.assert_array_equal(threaded, plain)
    assert not np.array_equal(make(n_estimators=5, random_state=1).fit(X, **tables).predict(everything()), plain)


def test_a_large_table_is_the_same_on_any_number_of_threads() -> None:
    rng = np.random.default_rng(0)
    table = RankingTable(
        rng.standard_normal((60_000, 6)).astype(np.float32), rng.integers(0, 2, 60_000), np.full(3000, 20)
    )
    grown = [make(n_jobs=n_jobs, n_estimators=4)._grow(table, seed=0) for n_jobs in (1, 2, 3)]
    trees = [found.text for found in grown if found is not None]
    assert len(trees) == 3
    assert len(set(trees)) == 1


def test_saved_and_copied_models_predict_the_same_bits(tmp_path: Path) -> None:
    model = fitted()
    expected = model.predict(everything())
    model.save(tmp_path / "model")
    for other in (load(tmp_path / "model"), copy.deepcopy(model)):
        np.testing.assert_array_equal(other.predict(everything()), expected)
    trees = model.trees_
    assert trees is not None
    back = Trees.from_state(trees.to_state())
    assert (back.text, back.slope) == (trees.text, trees.slope)


def test_scores_do_not_depend_on_who_else_is_asked_for() -> None:
    model = fitted()
    together = model.predict(everything())
    for user in (0, 5, 7):
        np.testing.assert_array_equal(model.predict(everything([user])), together[user * N : (user + 1) * N])


@pytest.mark.parametrize(("num_leaves", "own"), [(15, True), (100, False)])
def test_scores_are_those_of_lightgbm_for_pairs_and_for_all_items(
    num_leaves: int, own: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    X, users, items = two_groups(N)
    model = make(num_leaves=num_leaves, min_child_samples=1)
    model.fit(X, user_features=FeatureTable(users), item_features=FeatureTable(items))
    assert model.trees_ is not None
    assert (TreeScores.from_text(model.trees_.text) is not None) == own
    expected = model.predict(everything())
    monkeypatch.setattr(TreeScores, "from_text", lambda text: None)
    for other in (model, copy.deepcopy(model)):
        np.testing.assert_allclose(other.predict(everything()), expected, rtol=1e-6, atol=1e-7)
        found = other.recommend(range(N), k=N, exclude_seen=False)
        assert len(found) == N * len(model.items_)
        np.testing.assert_array_equal(found["score"], other.predict(found[["user_id", "item_id"]]))


def test_items_of_the_same_content_score_alike() -> None:
    model = fitted()
    genres = {"genres": [["ball"]] * 5}
    model.add_items(pd.DataFrame(genres, index=pd.Index([f"n{i}" for i in range(5)], name="item_id")))
    X = pd.DataFrame({"user_id": np.repeat(np.arange(N), 5), "item_id": [f"n{i}" for i in range(5)] * N})
    scores = model.predict(X).reshape(-1, 5)
    np.testing.assert_array_equal(scores, scores[:, :1].repeat(5, axis=1))


def test_partial_fit_fits_everything_anew() -> None:
    X, _, _ = two_groups(N)
    model = make().fit(X[X["user_id"] < 20])
    model.partial_fit(X[X["user_id"] >= 20])
    expected = make().fit(X)
    np.testing.assert_array_equal(model.items_.ids, expected.items_.ids)
    hot = everything(X["user_id"].unique())
    np.testing.assert_array_equal(model.predict(hot), expected.predict(hot))


def test_weights_are_only_signs() -> None:
    X, _, _ = two_groups(N)
    hot = everything(X["user_id"].unique())
    expected = make().fit(X).predict(hot)
    for y in (np.full(len(X), 1e30), np.random.default_rng(0).uniform(0.1, 5, len(X))):
        np.testing.assert_array_equal(make().fit(X, y).predict(hot), expected)


@pytest.mark.parametrize("context", [False, True])
def test_contributions_sum_to_the_prediction(context: bool) -> None:
    model = fitted(context)
    X = everything([0, 3, 7]).sample(40, random_state=0)
    if context:
        X["daytime"] = "morning"
    told = model.explain(X)
    np.testing.assert_allclose(told.groupby("row")["contribution"].sum(), model.predict(X), rtol=1e-4, atol=1e-5)
    assert set(told["source"]) <= {"user", "item", "history", "prior"}
    assert not told.duplicated(["row", "source", "field"]).any()
    # Those of the fields that the trees heed, and of what they start from.
    assert ("history", "taste") in set(zip(told["source"], told["field"], strict=True))
    weights = told.drop_duplicates(["source", "field"]).set_index(["source", "field"])["weight"]
    assert weights.drop([("prior", "average pair")]).sum() == pytest.approx(2, rel=1e-4)


@pytest.mark.parametrize(
    "X",
    [
        pd.DataFrame({"user_id": [1], "item_id": ["a"]}),
        pd.DataFrame({"user_id": [1, 2, 3], "item_id": ["a", "a", "a"]}),
        pd.DataFrame({"user_id": [1, 1, 1], "item_id": ["a", "b", "c"]}),
        pd.DataFrame({"user_id": [1, 1, 2, 2], "item_id": ["a", "b", "a", "b"]}),
    ],
)
def test_where_there_is_nothing_to_rank_the_score_is_the_popularity(X: pd.DataFrame) -> None:
    model = make().fit(X)
    assert model.trees_ is None
    np.testing.assert_array_equal(model.predict(X), np.ones(len(X)))
    told = model.explain(X)
    assert told["field"].unique().tolist() == ["popularity"]
    np.testing.assert_array_equal(told["contribution"], np.ones(len(X)))


def test_a_user_who_has_everything_and_features_that_say_nothing() -> None:
    X, users, items = two_groups(N)
    greedy = pd.DataFrame({"user_id": 999, "item_id": X["item_id"].unique()})
    constant = users.assign(club="chess", age=30.0)
    twice = items.assign(again=items["genres"], kind="thing", weight=1.0)
    model = make().fit(pd.concat([X, greedy]), user_features=FeatureTable(constant), item_features=FeatureTable(twice))
    assert np.isfinite(model.predict(everything())).all()
    assert model.recommend([999], k=50)["item_id"].isin(items.index).all()


def test_more_factors_than_users_or_items() -> None:
    X, _, _ = two_groups(N)
    model = make(n_factors=100).fit(X)
    assert share_of_own_group(model, list(range(0, N, 4)), 3) > 0.9


def test_without_features_warm_users_are_cold_and_unknown_items_finite() -> None:
    X, _, _ = two_groups(N)
    model = make().fit(X)
    with pytest.warns(ColdStartWarning, match="known of 1 of 1 users"):
        model.recommend([7], k=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ColdStartWarning)
        assert np.isfinite(model.predict(pd.DataFrame({"user_id": [0, 1], "item_id": ["new", "new"]}))).all()


@pytest.mark.parametrize(
    ("name", "value"),
    [("n_folds", 1), ("n_negatives", 501), ("num_leaves", 1), ("learning_rate", 0.0), ("n_factors", 0)],
)
def test_bad_parameters_are_refused(name: str, value: Any) -> None:
    X, _, _ = two_groups(N)
    with pytest.raises((InvalidInputError, ValueError), match=f"'{name}' parameter of LightGBMRecommender"):
        make(**{name: value}).fit(X)


def test_verbose_shows_a_bar_and_silence_is_the_default(capfd: pytest.CaptureFixture[str]) -> None:
    X, _, _ = two_groups(N)
    make(verbose=True).fit(X)
    assert "LightGBMRecommender" in capfd.readouterr().err
    make().fit(X)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("text", ["", "tree\n", 7])
def test_a_text_that_is_cut_short_is_refused_before_lightgbm_reads_it(text: Any) -> None:
    with pytest.raises(ValueError, match="cut short"):
        Trees.from_state({"text": text, "slope": 1.0})
    X, *_ = two_groups(N)
    model = make().fit(X)
    assert model.trees_ is not None
    with pytest.raises(ValueError, match="cut short"):
        Trees(model.trees_.text[:2500], 1.0)
    with pytest.raises(ValueError, match="none that LightGBM wrote"):
        Trees("garbage\npandas_categorical:null\n", 1.0)


@pytest.mark.parametrize(
    ("field", "new", "message"),
    [
        ("num_leaves", None, "'num_leaves'"),
        ("num_leaves", "0", "a tree of 0 leaves has"),
        ("split_feature", None, "'split_feature'"),
        ("split_feature", "-1", "values of split_feature"),
        ("threshold", "x", "values of threshold"),
        ("leaf_value", "1 2", "values of leaf_value"),
        ("max_feature_idx", None, "max_feature_idx"),
        ("max_feature_idx", "0", "above max_feature_idx"),
    ],
)
def test_altered_trees_are_refused_and_do_not_end_the_process(field: str, new: str | None, message: str) -> None:
    trees = fitted().trees_
    assert trees is not None
    line = "" if new is None else f"\n{field}={new}"
    text = re.sub(rf"\n{field}=.*", line, trees.text, count=1)
    with pytest.raises(ValueError, match=f"the text of the trees is none that LightGBM wrote: .*{message}"):
        Trees(text, 1.0)


def test_splits_by_categories_that_are_not_there_are_refused() -> None:
    trees = fitted().trees_
    assert trees is not None
    text = re.sub(r"\ndecision_type=\d+", "\ndecision_type=99", trees.text, count=1)
    with pytest.raises(ValueError, match="a decision_type is none of"):
        Trees(text, 1.0)


@pytest.mark.parametrize("side", ["left", "right"])
def test_splits_in_a_circle_are_refused(side: str) -> None:
    trees = fitted().trees_
    assert trees is not None
    text = re.sub(rf"(\n{side}_child)=\S+", r"\1=0", trees.text, count=1)
    with pytest.raises(ValueError, match="the splits of a tree make no tree"):
        Trees(text, 1.0)


@pytest.mark.parametrize(
    "params", [{"num_leaves": 200_000}, {"n_jobs": 0}, {"learning_rate": 1.5}, {"min_child_samples": 2**31}]
)
def test_parameters_beyond_what_lightgbm_takes_are_refused(params: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"The '{next(iter(params))}' parameter of LightGBMRecommender must be"):
        make(**params).fit(two_groups(N)[0])
