"""What the flagship costs is measured on known clocks, slices and splits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import flagship_costs, scaling
from recsys import EASE, ContrastiveRecommender, Popularity
from recsys.datasets import make_movielens_like
from recsys.evaluation import Evaluator, Split, UserColdSplit, ranking_metrics

DAY = 86_400


def small_models() -> dict[str, Any]:
    return {
        "ContrastiveRecommender": ContrastiveRecommender(n_factors=8, n_tower_factors=4, max_iter=3, residual=False)
    }


@pytest.fixture
def data(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Generated data, and a flagship that is small."""
    monkeypatch.setattr(flagship_costs, "models", small_models)
    monkeypatch.setattr(scaling, "models", small_models)
    return make_movielens_like(n_users=60, n_items=40, n_interactions=900, random_state=0)


@given(st.lists(st.integers(0, 60), min_size=1, max_size=80), st.integers(1, 6))
def test_a_day_is_never_cut_and_slices_are_in_order_of_time(days: list[int], n: int) -> None:
    times = pd.Series(np.array(days) * DAY + np.arange(len(days)))
    found = flagship_costs.day_slices(times, first=0.5, n=n)
    by_day = pd.Series(found).groupby(np.array(days))
    assert (by_day.nunique() == 1).all()
    assert by_day.first().is_monotonic_increasing
    assert found.min() >= 0
    assert found.max() <= n
    assert (found == 0).mean() <= 0.5


def test_slices_of_many_days_are_of_about_equal_size() -> None:
    times = pd.Series(np.random.default_rng(0).permutation(12_000) * 3600)
    sizes = np.bincount(flagship_costs.day_slices(times))
    np.testing.assert_allclose(sizes, [6000, *[1000] * 6], atol=24)


def test_differences_are_told_with_intervals_and_relative_to_the_baseline() -> None:
    record = flagship_costs.Record("base")
    users, rows = np.arange(10), np.arange(3)
    zeros = dict.fromkeys(("HR@10", "Recall@10", "MRR@10"), 0.0)
    split = Split("all", rows, rows[:2], hash="abc")
    for model, value in {"base": 0.5, "better": 0.55}.items():
        found = pd.DataFrame({"user_id": users, "NDCG@10": value, **zeros})
        record.add(model, split, 0, found, fit_seconds=2.0)
        record.add(model, split, 1, found.assign(group="hot", **{"NDCG@10": 0.0}), fit_seconds=4.0)
    evaluation = record.evaluation()
    lines = flagship_costs.differences(evaluation, ("overall", "hot")).splitlines()
    assert lines[0] == "| NDCG@10 | base | better |"
    assert lines[2] == "| all | 0.5000 | +0.0500 [+0.0500, +0.0500] (+10.0 %) |"
    assert lines[3] == "| all, hot | 0.0000 | +0.0000 [+0.0000, +0.0000] |"
    assert evaluation.costs["fit_seconds"].tolist() == [2.0, 4.0, 2.0, 4.0]
    sizes = {"hash": "abc", "sampled": False, "train": 3, "revealed": 0, "test": 2}
    assert evaluation.splits.to_dict("records") == [{"scenario": "all", "seed": seed, **sizes} for seed in (0, 1)]


def test_a_failure_is_told_in_its_cell() -> None:
    assert flagship_costs.difference_cell({"error": "MemoryError: no room"}, 0.5) == "failed: MemoryError: no room"


def test_refits_are_judged_on_the_days_that_follow(data: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flagship_costs, "REFITS", 2)
    found = flagship_costs.refit(data, [0])
    rows = pd.DataFrame(found.values["towers alone"]).query("group == 'overall' and metric == 'NDCG@10'")
    means = rows.set_index(["scenario", "model"])["mean"]
    assert set(rows["scenario"]) == {"refit 1", "refit 2", "all refits"}
    assert set(rows["model"]) == {"from scratch", "shrink and perturb", "plain warm start"}
    X, slices = data.interactions[["user_id", "item_id"]], flagship_costs.day_slices(data.interactions["timestamp"])
    features = flagship_costs.features_of(data, 0)
    model = flagship_costs.flagship(**flagship_costs.TOWERS_ALONE, random_state=0).fit(X[slices == 0], **features)
    model.set_params(shrink=1.0, perturb=0.0).partial_fit(X[slices == 1]).partial_fit(X[slices == 2])
    test = X[slices == 3]
    expected = ranking_metrics(model.recommend(test["user_id"].unique(), 10), test)["NDCG@10"].mean()
    assert means["refit 2", "plain warm start"] == pytest.approx(expected, abs=1e-6)
    tested = X[(slices == 2) | (slices == 3)]["user_id"].nunique()
    assert (rows[rows["scenario"] == "all refits"]["n_users"] == tested).all()
    spent = pd.DataFrame(found.values["towers alone, CPU seconds"]).set_index("model")
    assert (spent[["refit 1", "refit 2"]] > 0).all(axis=None)
    total = spent.sum(axis=1)
    share = total["plain warm start"] / total["from scratch"]
    assert f"| plain warm start | {total['plain warm start']:.1f} | {share:.2f} |" in found.text


def test_accuracy_by_time_is_that_of_an_evaluator(data: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flagship_costs, "SCENARIOS", (UserColdSplit(k=(0, 5)),))
    monkeypatch.setattr(flagship_costs, "contenders", lambda: {"ContentEASE": EASE(l2=9.0), "Popularity": Popularity()})
    found = flagship_costs.accuracy_time(data, [0])
    rows = pd.DataFrame(found.values["results"]).query("group == 'overall' and metric == 'NDCG@10'")
    means = rows.set_index(["scenario", "model"])["mean"]
    models = {"ContentEASE": EASE(l2=9.0), "Popularity": Popularity()}
    table = Evaluator([UserColdSplit(k=(0, 5))]).evaluate(models, data).table()
    expected = table.query("group == 'overall' and metric == 'NDCG@10'").set_index(["scenario", "model"])["mean"]
    # Equal scores rank in another order there.
    np.testing.assert_allclose(means[expected.index], expected, atol=0.02)
    costs = pd.DataFrame(found.values["costs"])
    # Scenarios of one training set share its fit.
    assert costs.groupby("model")["fit_seconds"].nunique().eq(1).all()
    assert found.page is not None
    assert "against the time of a fit" in found.page.to_html()


def test_the_contenders_are_the_model_its_parts_and_what_is_faster() -> None:
    found = flagship_costs.contenders()
    assert list(found)[:3] == ["ContentEASE", "EASE", "MatrixFactorization"]
    defaults = ContrastiveRecommender().get_params()
    assert found["max_iter=22"].get_params() == defaults
    assert found["without towers"].get_params() == {**defaults, "tower_weight": 0.0}


def test_the_profile_knows_every_stage_by_its_name(data: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = ContrastiveRecommender(n_factors=8, n_tower_factors=4, max_iter=1)
    monkeypatch.setattr(flagship_costs, "models", lambda: {"ContrastiveRecommender": ours})
    X = data.interactions[["user_id", "item_id"]]
    rows = flagship_costs.profiled(flagship_costs.flagship(random_state=0), X, **flagship_costs.features_of(data, 0))
    known = {row["function"] for row in rows}
    stages = flagship_costs.STAGES
    assert {*stages, *(part for parts in stages.values() for part in parts)} <= known
    total = flagship_costs.seconds_of(rows, "contrastive._fit")
    parts = [flagship_costs.seconds_of(rows, stage) for stage in stages]
    assert 0.8 * total < sum(parts) <= total


def test_seconds_are_of_the_function_and_what_it_calls() -> None:
    rows = [
        {"function": "content._solve", "calls": 1, "own": 1.0, "all": 3.0},
        {"function": "content._solve", "calls": 1, "own": 0.5, "all": 0.5},
        {"function": "other._solve", "calls": 1, "own": 9.0, "all": 9.0},
    ]
    assert flagship_costs.seconds_of(rows, "content._solve") == 3.5


def test_growth_is_told_by_rows_and_by_items(data: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    del data
    monkeypatch.setattr(
        scaling, "in_a_process", lambda _, shape: {"rows": shape[0], "cpu": 2e-6 * shape[0] ** 1.5, "mib": 7.0}
    )
    monkeypatch.setattr(scaling, "SHAPES", ((10_000, 1, 1), (1_000_000, 1, 1)))
    monkeypatch.setattr(flagship_costs, "CATALOGUES", ((900, 60, 40), (900, 60, 80)))
    found = flagship_costs.growth(None, [0])
    assert "| 1,000,000 | 2000.0 | 2000.0 | 7 |" in found.text
    assert "Exponent over rows: 1.50." in found.text
    assert [row["items"] for row in found.values["items"]] == [40, 80]
    assert all(row["met"] <= row["items"] for row in found.values["items"])
    assert all(row["training.run_epochs"] <= row["_tower_part._fit_towers"] for row in found.values["items"])
