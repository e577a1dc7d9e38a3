"""Ranking metrics as `scoring` of scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn import config_context
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer

from recsys import EASE, LightGBMRecommender, Popularity
from recsys.datasets import make_movielens_like
from recsys.evaluation import LeaveLastOut, RandomSplit, make_ranking_scorer, ranking_metrics, score_metrics
from recsys.exceptions import InvalidInputError, InvalidTypeError


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return make_movielens_like(n_users=60, n_items=40, n_interactions=1200, random_state=0).interactions


@pytest.mark.parametrize("metric", ["HR", "Recall", "recallcalibrated", "Precision", "ndcg", "MRR", "map"])
@pytest.mark.parametrize("k", [1, 5, 60])
def test_a_scorer_is_the_mean_of_the_metric(metric: str, k: int, rows: pd.DataFrame) -> None:
    X = rows[["user_id", "item_id"]]
    train, test = next(RandomSplit(test_size=0.3, random_state=0).split(X))
    model = EASE(l2=10.0).fit(X.iloc[train])
    found = make_ranking_scorer(metric, k=k)(model, X.iloc[test], rows["rating"].iloc[test])
    name = {"recallcalibrated": "RecallCalibrated", "ndcg": "NDCG", "map": "MAP"}.get(metric, metric)
    lists = model.recommend(X.iloc[test]["user_id"].unique(), k)
    expected = ranking_metrics(lists, X.iloc[test], k, [name]).mean().item()
    assert found == pytest.approx(expected, abs=1e-12)
    assert 0 < found <= 1


@pytest.mark.parametrize("metric", ["HR", "Recall", "RecallCalibrated", "Precision", "NDCG", "MRR", "MAP"])
def test_expected_over_ties_is_the_mean_over_the_users(metric: str, rows: pd.DataFrame) -> None:
    X = rows[["user_id", "item_id"]]
    train, test = next(RandomSplit(test_size=0.3, random_state=0).split(X))
    # Popularity gives the same score to items with as many users: there are ties.
    model = Popularity().fit(X.iloc[train])
    known = X.iloc[train].assign(one=1).pivot_table("one", "user_id", "item_id", aggfunc="sum", fill_value=0)
    wanted = X.iloc[test].assign(one=1).pivot_table("one", "user_id", "item_id", aggfunc="sum", fill_value=0)
    items = wanted.columns.union(known.columns)
    known, wanted = (
        known.reindex(wanted.index, columns=items, fill_value=0),
        wanted.reindex(columns=items, fill_value=0),
    )
    pairs = pd.DataFrame({"user_id": np.repeat(wanted.index, len(items)), "item_id": np.tile(items, len(wanted))})
    scores = np.where(known > 0, -np.inf, model.predict(pairs).reshape(wanted.shape))
    expected = score_metrics(scores, wanted.to_numpy(), 5, [metric], ties="expected").mean().item()
    scorer = make_ranking_scorer(metric, k=5, ties="expected")
    assert scorer(model, X.iloc[test]) == pytest.approx(expected, abs=1e-12)
    assert scorer(model, X.iloc[test]) != make_ranking_scorer(metric, k=5)(model, X.iloc[test])
    with config_context(working_memory=0.001):
        assert scorer(model, X.iloc[test]) == pytest.approx(expected, abs=1e-12)
    assert scorer(model, X.iloc[test], np.zeros(len(test))) == 0
    # The catalogue's order plays no part.
    shuffled = Popularity().fit(X.iloc[train].sample(frac=1, random_state=1))
    assert scorer(shuffled, X.iloc[test]) == pytest.approx(expected, abs=1e-12)


def test_items_that_the_model_does_not_know_are_relevant_to_both(rows: pd.DataFrame) -> None:
    X = rows[["user_id", "item_id"]]
    new = X["item_id"].isin(X["item_id"].unique()[:5])
    model = EASE(l2=10.0).fit(X[~new])
    test = pd.concat([X[new], X[~new].iloc[::9]])
    for metric in ("Recall", "MAP", "NDCG"):
        found = [make_ranking_scorer(metric, k=5, ties=ties)(model, test) for ties in ("catalogue", "expected")]
        assert found[0] == pytest.approx(found[1], abs=1e-12)


def test_the_score_of_a_model_is_its_ndcg_at_10(rows: pd.DataFrame) -> None:
    X, y = rows[["user_id", "item_id"]], rows["rating"] - 3
    context = X.assign(hour=np.arange(len(X)) % 3)
    for model, some in ((EASE(l2=10.0), X), (LightGBMRecommender(n_estimators=5, random_state=0), context)):
        model.fit(some.iloc[:900], y.iloc[:900])
        asked = some.iloc[900:], y.iloc[900:]
        assert make_ranking_scorer("NDCG", k=10)(model, *asked) == model.score(*asked) > 0
    assert make_ranking_scorer()(model, some, np.zeros(len(some))) == 0


def test_a_search_in_a_pipeline_by_the_metric_that_matters(rows: pd.DataFrame) -> None:
    X, times = rows[["user_id", "item_id"]], rows["timestamp"]
    pipeline = Pipeline([("same", FunctionTransformer()), ("model", EASE())])
    scoring = {"recall": make_ranking_scorer("Recall", k=5), "mrr": make_ranking_scorer("MRR", k=5)}
    search: Any = GridSearchCV(pipeline, {"model__l2": [1.0, 1e6]}, scoring=scoring, refit="mrr", cv=LeaveLastOut())
    search.fit(X, groups=times)
    alone = cross_validate(EASE(l2=1.0), X, groups=times, scoring=scoring, cv=LeaveLastOut())
    assert search.cv_results_["mean_test_recall"][0] == alone["test_recall"].mean()
    assert search.cv_results_["mean_test_mrr"][0] == alone["test_mrr"].mean()
    assert search.best_params_["model__l2"] in (1.0, 1e6)


def test_what_cannot_be_scored_is_refused(rows: pd.DataFrame) -> None:
    with pytest.raises(InvalidInputError, match=r"`metric` is 'ndgc'\. Did you mean 'ndcg'"):
        make_ranking_scorer("ndgc")
    with pytest.raises(InvalidInputError, match=r"`metric` is 'NDCG@5'; expected .* cut: pass 'NDCG' and k=5"):
        make_ranking_scorer("NDCG@5")
    with pytest.raises(InvalidTypeError, match="`metric` is 5; expected a name"):
        make_ranking_scorer(5)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="`k` is 0; expected at least 1"):
        make_ranking_scorer(k=0)
    with pytest.raises(InvalidInputError, match="`ties` is 'random'"):
        make_ranking_scorer(ties="random")
    with pytest.raises(InvalidTypeError, match="`estimator` is a LinearRegression; expected a recommender"):
        make_ranking_scorer()(LinearRegression(), rows)
    model = Popularity().fit(rows[["user_id", "item_id"]])
    with pytest.raises(InvalidInputError, match="`X` names no item of the catalogue"):
        make_ranking_scorer()(model, rows[["user_id", "item_id"]].astype(str))
