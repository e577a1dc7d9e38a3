"""The presets are the published protocols: rows, candidates, masks, thresholds and metrics."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from recsys import ContentKNN, Popularity
from recsys.datasets import make_movielens_like
from recsys.evaluation import Protocol, check_leaks, protocol
from recsys.evaluation.protocols import PROTOCOLS
from recsys.exceptions import InvalidInputError, InvalidTypeError

NAMES = ["sampled", "random", "random-by-user", "item-cold-warm", "item-cold", "user-cold", "time"]


@pytest.fixture(scope="module")
def data() -> Any:
    return make_movielens_like(n_users=60, n_items=140, n_interactions=2400, random_state=0)


def test_every_protocol_has_its_name_and_says_what_it_is() -> None:
    assert list(PROTOCOLS) == NAMES
    for name, found in PROTOCOLS.items():
        assert isinstance(found, Protocol)
        assert protocol(name) is found
        assert found.name == name
        assert found.description.endswith(".")
    settled = {name: (found.k, found.metrics, found.min_rating) for name, found in PROTOCOLS.items()}
    assert settled == {
        "sampled": (10, ("HR", "NDCG"), None),
        "random": (10, ("HR", "Recall", "NDCG", "MRR"), 3),
        "random-by-user": (10, ("HR", "Recall", "NDCG", "MRR"), 3),
        "item-cold-warm": (20, ("Recall", "NDCG"), None),
        "item-cold": (10, ("NDCG",), None),
        "user-cold": (10, ("NDCG",), None),
        "time": (10, ("HR", "NDCG", "MRR", "MAP"), 3),
    }


@pytest.mark.parametrize("name", NAMES)
def test_an_evaluator_runs_a_protocol_and_its_splits_are_the_same(name: str, data: Any) -> None:
    chosen = protocol(name)
    models = {"Popularity": Popularity(), "Content": ContentKNN()}
    found = chosen.evaluator(seeds=(3,), n_resamples=10).evaluate(models, data)
    X, splits = chosen.splits(data.interactions, 3)
    assert found.splits["scenario"].tolist() == [split.name for split in splits]
    assert found.splits["hash"].tolist() == [split.hash for split in splits]
    prefix = "sampled " if name == "sampled" else ""
    assert found.metrics == [f"{prefix}{metric}@{chosen.k}" for metric in chosen.metrics]
    kept = data.interactions if chosen.min_rating is None else data.interactions.query("rating >= 3")
    pd.testing.assert_frame_equal(X, kept[["user_id", "item_id"]].reset_index(drop=True))
    for split in splits:
        check_leaks(X, split, kept["timestamp"])


def test_sampled_is_the_last_item_among_99_that_the_user_has_not(data: Any) -> None:
    X, [split] = protocol("sampled").splits(data.interactions)
    last = data.interactions.sort_values("timestamp", kind="stable").groupby("user_id").tail(1)
    enough = data.interactions.groupby("user_id").size() <= 140 - 99
    assert set(split.test) == set(last.index[last["user_id"].map(enough)])
    assert len(split.test) > 30
    assert isinstance(split.candidates, pd.DataFrame)
    assert (split.candidates.groupby("user_id").size() == 100).all()
    had = pd.MultiIndex.from_frame(X.iloc[split.train])
    offered = pd.MultiIndex.from_frame(split.candidates)
    assert not offered.isin(had).any()
    assert pd.MultiIndex.from_frame(X.iloc[split.test]).isin(offered).all()


def test_random_is_8_1_1_of_the_better_ratings(data: Any) -> None:
    X, [split] = protocol("random").splits(data.interactions)
    n = int((data.interactions["rating"] >= 3).sum())
    assert len(X) == n < len(data.interactions)
    assert len(split.test) == len(split.validation) == -(-n // 10)
    assert len(split.train) == n - 2 * len(split.test)
    assert split.candidates is None


def test_random_by_user_is_8_1_1_of_each_users_better_ratings(data: Any) -> None:
    X, [split] = protocol("random-by-user").splits(data.interactions)
    owner = X["user_id"]
    assert len(X) == int((data.interactions["rating"] >= 3).sum())
    n_rows = owner.value_counts().sort_index()
    assert (n_rows >= 3).all()
    tenth = (n_rows // 10).clip(lower=1)
    for part, expected in ((split.test, tenth), (split.validation, tenth), (split.train, n_rows - 2 * tenth)):
        pd.testing.assert_series_equal(owner.iloc[part].value_counts().sort_index(), expected, check_names=False)
    assert split.candidates is None


def test_a_fifth_of_the_items_is_cold(data: Any) -> None:
    X, [cold, _] = protocol("item-cold").splits(data.interactions)
    n = X["item_id"].nunique()
    assert isinstance(cold.candidates, pd.Index)
    assert len(cold.candidates) == -(-n // 5)
    assert set(X["item_id"].iloc[cold.test]) == set(cold.candidates)
    X, [cold, _, everything] = protocol("item-cold-warm").splits(data.interactions)
    assert [len(np.asarray(split.candidates)) for split in (cold, everything)] == [round(n / 10), n - round(n / 10)]


def test_a_fifth_of_the_users_is_new_and_has_one_query_set(data: Any) -> None:
    X, splits = protocol("user-cold").splits(data.interactions)
    assert [split.name for split in splits] == [f"user-cold k={k}" for k in (0, 1, 2, 5, 10, "all")]
    new = X["user_id"].iloc[splits[0].test].unique()
    assert len(new) == -(-X["user_id"].nunique() // 5)
    for split in splits:
        assert split.test.tolist() == splits[0].test.tolist()
    n_rows = X["user_id"].value_counts()[new]
    assert (X["user_id"].iloc[splits[0].test].value_counts()[new] == np.ceil(n_rows / 2)).all()
    assert len(splits[-1].revealed) + len(splits[-1].test) == n_rows.sum()


def test_time_is_the_last_fifth_of_users_and_items_with_a_past(data: Any) -> None:
    kept = data.interactions[data.interactions["rating"] >= 3].reset_index(drop=True)
    _, [split] = protocol("time").splits(data.interactions)
    assert kept["timestamp"].is_unique
    start = np.sort(kept["timestamp"])[int(len(kept) * 0.8)]
    past, later = kept[kept["timestamp"] < start], kept[kept["timestamp"] >= start]
    tested = later[later["user_id"].isin(past["user_id"]) & later["item_id"].isin(past["item_id"])]
    assert split.train.tolist() == past.index.tolist()
    assert split.test.tolist() == tested.index.tolist()
    assert len(tested) < len(later)
    assert isinstance(split.candidates, pd.Index)
    assert set(split.candidates) == set(past["item_id"])


def test_what_a_protocol_settles_is_settled() -> None:
    with pytest.raises(InvalidInputError, match=r"`k` is 5, but protocol 'time' settles it as 10; expected other opti"):
        protocol("time").evaluator(k=5)
    made = protocol("item-cold-warm").evaluator(seeds=(0, 1), baseline="EASE")
    assert (made.k, made.seeds, made.baseline, made.min_rating) == (20, (0, 1), "EASE", None)


def test_an_unknown_protocol_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"`name` is 'item-cold-hot', no protocol. Did you mean 'item-cold"):
        protocol("item-cold-hot")
    number: Any = 1
    with pytest.raises(InvalidTypeError, match=r"`name` is 1; expected the name of a protocol, such as 'random'"):
        protocol(number)


def test_columns_that_a_protocol_needs_are_asked_for(data: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"`min_rating` is 3, but `data.interactions` has no column 'rating'"):
        protocol("time").splits(data.interactions.drop(columns="rating"))
    with pytest.raises(InvalidInputError, match=r"no column 'timestamp', only .*, but LeaveLastOut goes by time"):
        protocol("sampled").splits(data.interactions.drop(columns="timestamp"))


def test_popularity_is_what_replay_found(ml_1m: Any) -> None:
    # examples/02_models_comparison.ipynb of RePlay: Popular, with 1,139 users.
    _, [split] = protocol("time").splits(ml_1m.interactions)
    assert ml_1m.interactions.query("rating >= 3")["user_id"].iloc[split.test].nunique() == 1139
    models = {"Popularity": Popularity()}
    table = protocol("time").evaluator(n_resamples=10).evaluate(models, ml_1m).table().query("group == 'overall'")
    means = table.set_index("metric")["mean"]
    assert means.to_dict() == pytest.approx(
        {"HR@10": 0.645303, "NDCG@10": 0.243711, "MRR@10": 0.390426, "MAP@10": 0.157302}, abs=5e-4
    )
