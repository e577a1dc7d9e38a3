"""The evaluator: what it reports is what a loop by hand finds."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.utils._param_validation import InvalidParameterError

from recsys import EASE, BaseRecommender, ContentKNN, MatrixFactorization, Popularity
from recsys.datasets import make_movielens_like
from recsys.evaluation import (
    BothColdSplit,
    Evaluation,
    Evaluator,
    ItemColdSplit,
    LeaveLastOut,
    RandomSplit,
    SparseSubset,
    UserColdSplit,
    bootstrap_interval,
    paired_bootstrap,
)
from recsys.evaluation import evaluator as evaluator_module
from recsys.exceptions import DataWarning, InvalidInputError, InvalidTypeError, RecsysWarning

MODELS: dict[str, BaseRecommender] = {"Popularity": Popularity(), "EASE": EASE(l2=20.0)}


@pytest.fixture(scope="module")
def data() -> Any:
    return make_movielens_like(n_users=80, n_items=50, n_interactions=1600, random_state=0)


@pytest.fixture(scope="module")
def evaluation(data: Any) -> Evaluation:
    splitters = [LeaveLastOut(), UserColdSplit(k=(0, 5)), ItemColdSplit(hot_test_size=0.1)]
    return Evaluator(splitters, seeds=(0, 1), n_resamples=200).evaluate({**MODELS, "Content": ContentKNN()}, data)


def test_leave_last_out_equals_a_loop(data: Any, evaluation: Evaluation) -> None:
    X = data.interactions[["user_id", "item_id"]]
    [split] = LeaveLastOut().splits(X, groups=data.interactions["timestamp"])
    items = data.items.sample(frac=1, random_state=0)
    lists = EASE(l2=20.0).fit(X.iloc[split.train], item_features=items).recommend(X["user_id"].unique(), k=10)
    wanted = X.iloc[split.test].set_index("user_id")["item_id"]
    ranks = {user: part["item_id"].tolist() for user, part in lists.groupby("user_id")}
    expected = {
        user: 1 / np.log2(ranks[user].index(item) + 2) if item in ranks[user] else 0.0 for user, item in wanted.items()
    }
    rows = evaluation.per_user.query("scenario == 'leave-last-out' and model == 'EASE' and group == 'overall'")
    found = rows.set_index("user_id")["NDCG@10"]
    assert found.to_dict() == pytest.approx(expected)
    assert sum(expected.values()) > 0


def test_sampled_metrics_rank_among_the_negatives_and_say_so(data: Any) -> None:
    splitters = [LeaveLastOut(), LeaveLastOut(n_negatives=9)]
    with pytest.warns(RecsysWarning, match="Broken failed"):
        found = Evaluator(splitters, k=3, n_resamples=50).evaluate({**MODELS, "Broken": Broken()}, data)
    scenario = "leave-last-out (1 + 9 sampled)"
    table = found.table()
    assert table.loc[table["scenario"] == scenario, "metric"].str.startswith("sampled ").all()
    assert table.loc[table["scenario"] == "leave-last-out", "metric"].str.endswith("@3").all()
    assert table.query("model != 'Broken'")["mean"].notna().all()
    assert set(table.query("model == 'Broken' and scenario == @scenario")["metric"]) == set(
        table.query("model == 'EASE' and scenario == @scenario")["metric"]
    )

    X = data.interactions[["user_id", "item_id"]]
    splitter = LeaveLastOut(n_negatives=9, random_state=0)
    [split] = splitter.splits(X, groups=data.interactions["timestamp"])
    assert isinstance(split.candidates, pd.DataFrame)
    model = EASE(l2=20.0).fit(X.iloc[split.train], item_features=data.items)
    scores = split.candidates.assign(score=model.predict(split.candidates))
    wanted = X.iloc[split.test].set_index("user_id")["item_id"]
    expected = {}
    for user, part in scores.groupby("user_id"):
        own = part["score"][part["item_id"] == wanted[user]].item()
        expected[user] = float((part["score"] > own).sum() < 3)
        assert (part["score"] == own).sum() == 1
    values = found.values(scenario, "sampled HR@3")["EASE"]
    assert values.to_dict() == expected
    assert 0 < values.mean() < 1
    with pytest.raises(InvalidInputError, match="Nothing was measured for scenario 'leave-last-out'"):
        found.values("leave-last-out", "sampled HR@3")


def test_lists_that_hold_every_sampled_item_are_warned_of(data: Any) -> None:
    evaluator = Evaluator([LeaveLastOut(n_negatives=9)], n_resamples=10)
    message = r"'leave-last-out \(1 \+ 9 sampled\)' offers only 10 candidates to a user: lists of 10 hold them all"
    with pytest.warns(DataWarning, match=message) as caught:
        found = evaluator.evaluate(MODELS, data)
    assert [warning.filename for warning in caught] == [__file__]
    assert found.per_user[["sampled HR@10", "sampled Recall@10"]].eq(1).all(axis=None)


def test_sampled_items_that_a_model_does_not_know_are_warned_of() -> None:
    interactions = pd.DataFrame({"user_id": [1, 1, 2, 2, 3, 3], "item_id": list("abacad"), "timestamp": [0, 1] * 3})
    evaluator = Evaluator([LeaveLastOut(n_negatives=2)], k=2, n_resamples=10)
    data = {"interactions": interactions, "users": None, "items": None}
    with pytest.warns(DataWarning, match="`candidates` names 3 items that are not in the catalogue: '[bcd]', '[bcd]'"):
        evaluator.evaluate({"Popularity": Popularity()}, data)


def test_the_table_is_the_bootstrap_of_the_users(evaluation: Evaluation) -> None:
    rows = evaluation.per_user.query("scenario == 'user-cold k=5' and group == 'overall'")
    ease = rows[rows["model"] == "EASE"].groupby("user_id", sort=False)["NDCG@10"].mean()
    popularity = rows[rows["model"] == "Popularity"].groupby("user_id", sort=False)["NDCG@10"].mean()
    line = evaluation.table().query(
        "scenario == 'user-cold k=5' and group == 'overall' and model == 'EASE' and metric == 'NDCG@10'"
    )
    options: dict[str, Any] = {"n_resamples": 200, "random_state": 0}
    assert line[["mean", "low", "high"]].to_numpy()[0] == pytest.approx(bootstrap_interval(ease, **options))
    expected = paired_bootstrap(ease.to_numpy(), popularity[ease.index].to_numpy(), **options)
    assert line[["difference", "difference_low", "difference_high"]].to_numpy()[0] == pytest.approx(expected)
    assert evaluation.compare("EASE", "Popularity", "user-cold k=5", "NDCG@10") == pytest.approx(expected)
    assert line["n_users"].item() == len(ease)


def test_names_hold_no_nul(data: Any) -> None:
    models = {"a\0": Popularity(), "a": EASE()}
    with pytest.raises(
        InvalidTypeError, match=r"`models` has the key 'a\\x00'; expected names, as text. None may hold"
    ):
        Evaluator([LeaveLastOut()], baseline="a").evaluate(models, data)


def test_the_baseline_is_compared_with_nobody(evaluation: Evaluation) -> None:
    table = evaluation.table()
    own = table[table["model"] == "Popularity"]
    assert own[["difference", "p_value"]].isna().all(axis=None)
    assert table[table["model"] != "Popularity"]["p_value"].between(0, 1).all()


def test_groups_are_told_apart(evaluation: Evaluation) -> None:
    groups = evaluation.per_user.groupby("scenario")["group"].unique().map(set).to_dict()
    assert groups["user-cold k=0"] == {"overall", "cold-start"}
    assert {"overall", "few-shot"} <= groups["user-cold k=5"]
    assert groups["item-cold (cold candidates)"] == {"overall", "cold-start"}
    assert groups["item-cold (whole catalogue)"] == {"overall", "hot", "cold-start"}
    cold = evaluation.per_user.query("scenario == 'item-cold (whole catalogue)' and group == 'cold-start'")
    means = cold.groupby("model")["NDCG@10"].mean()
    # Popularity gives warm items nothing: it finds them only for users who have nearly all hot ones.
    assert means["Popularity"] < 0.5 * means["Content"]


def test_scenarios_of_one_train_set_share_a_fit(evaluation: Evaluation) -> None:
    cold = evaluation.costs[evaluation.costs["scenario"].str.startswith("user-cold")]
    assert (cold.groupby(["model", "seed"])["fit_seconds"].nunique() == 1).all()
    assert (evaluation.costs[["fit_seconds", "recommend_seconds"]] > 0).all(axis=None)
    shares = evaluation.costs.set_index(["scenario", "model"])["cold_share"].sort_index()
    assert (shares["user-cold k=0", "EASE"] == 1).all()
    assert (shares["user-cold k=5", "EASE"] == 0).all()


def test_constant_scores_gain_nothing_from_the_order_of_the_items(data: Any) -> None:
    # Cold items listed best first would look well ranked by a model that scores them all alike.
    best_first = data.interactions["item_id"].value_counts().index
    items = data.items.set_index("item_id").loc[best_first].reset_index()
    sorted_data = type(data)(interactions=data.interactions, users=data.users, items=items)
    splitters, seeds = [ItemColdSplit(test_size=0.5)], tuple(range(12))
    found = Evaluator(splitters, seeds=seeds, n_resamples=10).evaluate({"Popularity": Popularity()}, sorted_data)
    rows = found.per_user.query("scenario == 'item-cold (cold candidates)' and group == 'overall'")
    # A random list of 10 of 25 finds a relevant item as often as it holds one; best first finds far more.
    n_relevant = data.interactions.groupby("user_id").size().mean() / 2
    assert rows["Recall@10"].mean() == pytest.approx(10 / 25, abs=0.06)
    assert n_relevant > 3


def test_the_same_seeds_give_the_same_results(data: Any, evaluation: Evaluation) -> None:
    again = Evaluator([LeaveLastOut()], seeds=(0,), n_resamples=200).evaluate(MODELS, data)
    rows = evaluation.per_user.query("scenario == 'leave-last-out' and seed == 0 and model != 'Content'")
    pd.testing.assert_frame_equal(again.per_user, rows.reset_index(drop=True))
    assert set(again.splits["hash"]) <= set(evaluation.splits["hash"])


def test_validation_rows_are_neither_learned_nor_recommended(data: Any) -> None:
    splitter = RandomSplit(test_size=0.1, validation_size=0.3)
    found = Evaluator([splitter], n_resamples=10).evaluate({"Popularity": Popularity()}, data)
    X = data.interactions[["user_id", "item_id"]]
    [split] = RandomSplit(test_size=0.1, validation_size=0.3, random_state=0).splits(X)
    assert found.splits["train"].item() == len(split.train)
    train = evaluator_module._in_random_order(X.iloc[split.train], 0)
    model = Popularity().fit(train, item_features=data.items.sample(frac=1, random_state=0))
    lists = model.recommend(X["user_id"].iloc[split.test].unique(), exclude=X.iloc[split.validation])
    relevant = X.iloc[split.test].merge(lists)
    overall = found.per_user[found.per_user["group"] == "overall"].set_index("user_id")
    assert set(overall.index[overall["HR@10"] > 0]) == set(relevant["user_id"])


def test_min_rating_drops_rows(data: Any) -> None:
    found = Evaluator([LeaveLastOut()], min_rating=4, n_resamples=10).evaluate({"Popularity": Popularity()}, data)
    assert found.splits[["train", "test"]].to_numpy().sum() == (data.interactions["rating"] >= 4).sum()


@pytest.mark.parametrize(
    ("options", "models", "message"),
    [
        ({"splitters": []}, MODELS, "`splitters` is empty; expected at least one"),
        ({"splitters": [LeaveLastOut()], "seeds": ()}, MODELS, "`seeds` is empty"),
        ({"splitters": [LeaveLastOut()]}, {}, "`models` is empty"),
        (
            {"splitters": [LeaveLastOut()]},
            {"Popularity": Popularity(), "Liked": Popularity(min_rating=4)},
            "Model 'Liked' has `min_rating` 4, .*; expected None: pass Evaluator.*min_rating=4",
        ),
        ({"splitters": [LeaveLastOut()], "baseline": "Popularty"}, MODELS, "Did you mean 'Popularity'?"),
    ],
)
def test_bad_input_is_refused(data: Any, options: dict[str, Any], models: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message.replace("?", r"\?")):
        Evaluator(**options).evaluate(models, data)


def test_what_is_no_data_is_refused(data: Any) -> None:
    evaluator = Evaluator([LeaveLastOut()], n_resamples=10)
    for wrong, right in (("user_features", "users"), ("item", "items")):
        with pytest.raises(
            InvalidInputError, match=f"`data` has features as '{wrong}'; expected them by the name of '{right}'"
        ):
            evaluator.evaluate(MODELS, {"interactions": data.interactions, wrong: data[right]})
    named = {"interactions": data.interactions, "user": "me"}
    assert not evaluator.evaluate(MODELS, named).table().empty
    unrated = data.interactions.assign(rating=np.nan)
    with pytest.raises(InvalidInputError, match="`min_rating` is given, but every rating is missing"):
        Evaluator([LeaveLastOut()], min_rating=4).evaluate(MODELS, {"interactions": unrated})
    with pytest.raises(InvalidTypeError, match=r"`data` is of type list and has no frame `interactions`; .* Bunch"):
        evaluator.evaluate(MODELS, [data.interactions])
    renamed = data.interactions.rename(columns={"user_id": "customer"})
    with pytest.raises(InvalidInputError, match=r"`data.interactions` lacks 'user_id' and has 'customer', .* rename"):
        evaluator.evaluate(MODELS, {"interactions": renamed})
    unrated = {"interactions": data.interactions.drop(columns="rating")}
    with pytest.raises(InvalidInputError, match=r"`min_rating` is 4, but `data.interactions` has no column 'rating'"):
        Evaluator([LeaveLastOut()], min_rating=4).evaluate(MODELS, unrated)
    twice = {"interactions": pd.concat([data.interactions, data.interactions[["rating"]]], axis=1)}
    with pytest.raises(InvalidInputError, match=r"`data.interactions` has several columns 'rating'; expected one"):
        Evaluator([LeaveLastOut()], min_rating=4).evaluate(MODELS, twice)
    twice = {"interactions": pd.concat([data.interactions, data.interactions[["timestamp"]]], axis=1)}
    with pytest.raises(InvalidInputError, match=r"`data.interactions` has several columns 'timestamp'; expected one"):
        evaluator.evaluate(MODELS, twice)
    with pytest.raises(InvalidTypeError, match=r"`data.items` is of type list; expected a DataFrame or None"):
        evaluator.evaluate(MODELS, {"interactions": data.interactions, "items": [1]})


def test_one_column_of_features_counts_where_the_ids_are_in_the_index(data: Any) -> None:
    evaluator = Evaluator([ItemColdSplit()], n_resamples=10)
    models = {"Popularity": Popularity(), "Content": ContentKNN()}
    genres = data.items[["item_id", "genres"]]
    found = [
        evaluator.evaluate(models, {"interactions": data.interactions, "items": items}).per_user
        for items in (genres, genres.set_index("item_id"))
    ]
    pd.testing.assert_frame_equal(found[0], found[1])


def test_constant_scores_show_no_order_of_the_rows(data: Any) -> None:
    # Popular items first: their first rows come before those of others.
    counts = data.interactions["item_id"].map(data.interactions["item_id"].value_counts())
    rows = data.interactions.iloc[np.argsort(-counts, kind="stable")].reset_index(drop=True)
    orders = [evaluator_module._in_random_order(rows, seed)["item_id"].unique() for seed in range(30)]
    assert all(set(order) == set(rows["item_id"]) for order in orders)
    place = pd.Series(0.0, index=rows["item_id"].unique())
    for order in orders:
        place[order] += np.arange(len(order)) / len(orders)
    assert abs(np.corrcoef(np.arange(len(place)), place)[0, 1]) < 0.35
    assert len(evaluator_module._in_random_order(rows, 0)) == len(rows)


def test_every_seed_counts_where_the_split_has_none(data: Any) -> None:
    found = Evaluator([LeaveLastOut()], seeds=(0, 1), n_resamples=10).evaluate(
        {"Popularity": Popularity(), "MF": MatrixFactorization(n_factors=4, l2=1.0)}, data
    )
    assert found.costs.groupby("model")["seed"].unique().map(list).to_dict() == {"MF": [0, 1], "Popularity": [0, 1]}
    table = found.table().query("metric == 'NDCG@10' and group == 'overall'").set_index("model")
    assert table["seed_std"].to_dict()["MF"] > 0


def test_comparing_what_was_not_measured_is_refused(evaluation: Evaluation) -> None:
    with pytest.raises(InvalidInputError, match=r"Nothing was measured for model 'Nobody' .*; expected one of 'Pop"):
        evaluation.compare("Nobody", "EASE", "leave-last-out", "NDCG@10")
    for position, argument in enumerate(("model", "other", "scenario", "metric", "group")):
        names: list[Any] = ["EASE", "Popularity", "leave-last-out", "NDCG@10", "overall"]
        names[position] = [names[position]]
        with pytest.raises(InvalidTypeError, match=rf"`{argument}` is \['.*'\]; expected a name that stands in `table"):
            evaluation.compare(*names)
    with pytest.raises(InvalidInputError, match="Nothing was measured for scenario 'last', metric 'NDCG@10'"):
        evaluation.compare("Content", "EASE", "last", "NDCG@10")
    with pytest.raises(InvalidInputError, match=r"Nothing was measured for .*, metric 'NDCG'"):
        evaluation.values("leave-last-out", "NDCG")
    nobody = replace(evaluation, per_user=evaluation.per_user.assign(**{"NDCG@10": np.nan}))
    with pytest.raises(InvalidInputError, match=r"Nothing was measured for .*, metric 'NDCG@10'"):
        nobody.values("leave-last-out", "NDCG@10")


def test_values_of_users_are_means_over_seeds(evaluation: Evaluation) -> None:
    values = evaluation.values("user-cold k=5", "Recall@10", "few-shot")
    assert list(values.columns) == ["Popularity", "EASE", "Content"]
    rows = evaluation.per_user.query("scenario == 'user-cold k=5' and group == 'few-shot' and model == 'EASE'")
    user = rows["user_id"].value_counts().index[0]
    assert values.loc[user, "EASE"] == pytest.approx(rows.loc[rows["user_id"] == user, "Recall@10"].mean())
    row = evaluation.table().query("scenario == 'user-cold k=5' and group == 'few-shot' and metric == 'Recall@10'")
    np.testing.assert_allclose(row.set_index("model")["mean"], values.mean())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "`k` is 0; expected at least 1"),
        ({"k": "ten"}, "`k` is 'ten'; expected a whole number"),
        ({"metrics": ["NDGC"]}, "`metrics` holds 'NDGC'"),
        ({"metrics": "NDCG"}, "expected a sequence of names"),
        ({"metrics": []}, "`metrics` is []; expected names, such as ['NDCG', 'Recall']"),
        ({"metrics": None}, "`metrics` is None; expected names"),
        ({"confidence": "0.95"}, "`confidence` is '0.95'; expected a number between 0 and 1"),
        ({"min_rating": "4"}, "`min_rating` is '4'; expected a number, such as 4, or None"),
        ({"min_rating": float("nan")}, "`min_rating` is nan; expected a number, such as 4, or None"),
        ({"min_rating": 99}, "`min_rating` is 99, above every rating; the best is 5"),
        ({"baseline": ["Popularity"]}, "`baseline` is ['Popularity'], none of the models"),
        ({"n_resamples": 0}, "`n_resamples` is 0"),
        ({"confidence": 95}, "`confidence` is 95; expected a number between 0 and 1"),
        ({"splitters": ["random"]}, "`splitters` holds 'random'; expected splitters such as LeaveLastOut()"),
        ({"splitters": [LeaveLastOut]}, "`splitters` holds <class"),
        (
            {"splitters": LeaveLastOut()},
            "`splitters` is LeaveLastOut(n_last=1, n_negatives=None, random_state=None); expected a sequence, such as "
            "[LeaveLastOut()].",
        ),
        ({"seeds": 3}, "`seeds` is 3; expected a sequence, such as [0]"),
        ({"seeds": [0, 0]}, "`seeds` is [0, 0]; expected distinct numbers"),
        ({"seeds": [2**32]}, "`seeds` holds 4294967296; expected numbers up to 4294967295"),
        ({"seeds": [None]}, "`seeds` is None; expected an integer of 0 or more"),
        ({"seeds": ["a"]}, "`seeds` is 'a'; expected an integer of 0 or more"),
        ({"models": {1: Popularity()}}, "`models` has the key 1; expected names, as text"),
        ({"models": {"Popularity": Popularity(half_life=-1)}}, "The 'half_life' parameter of Popularity must be"),
        ({"models": [Popularity()]}, '`models` is of type list; expected a dict: {"EASE": EASE()}, say'),
        (
            {"models": {"Popularity": Popularity}},
            "`models` holds <class 'recsys.models.popularity.Popularity'> as 'Pop",
        ),
    ],
)
def test_parameters_are_checked_before_any_fit(data: Any, options: dict[str, Any], message: str) -> None:
    class Unfit(Popularity):
        def fit(self, *_: Any, **__: Any) -> Any:
            raise AssertionError("fitted")

    splitters, models = options.pop("splitters", [LeaveLastOut()]), options.pop("models", {"Popularity": Unfit()})
    # Parameters of a model are scikit-learn's to refuse.
    expected = InvalidParameterError if "half_life" in message else InvalidInputError
    with pytest.raises(expected, match=re.escape(message)):
        Evaluator(splitters, **options).evaluate(models, data)


def test_groups_of_users_add_up_to_all_of_them(evaluation: Evaluation, data: Any) -> None:
    gender = data.users.set_index("user_id")["gender"]
    found, table = evaluation.by(gender), evaluation.table()
    keys = ["scenario", "model", "metric"]
    overall = table[table["group"] == "overall"].set_index(keys)
    assert set(found["group"]) == {"F", "M"}
    total = found.assign(total=found["mean"] * found["n_users"]).groupby(keys)[["total", "n_users"]].sum()
    assert (total["n_users"] == overall["n_users"].reindex(total.index)).all()
    np.testing.assert_allclose(total["total"] / total["n_users"], overall["mean"].reindex(total.index))
    women = evaluation.per_user.query("group == 'overall' and model == 'EASE' and scenario == 'leave-last-out'")
    women = women[women["user_id"].map(gender) == "F"]
    row = found.query("group == 'F' and model == 'EASE' and scenario == 'leave-last-out' and metric == 'NDCG@10'")
    assert row["mean"].item() == pytest.approx(women.groupby("user_id")["NDCG@10"].mean().mean())
    lengths = data.interactions.groupby("user_id").size()
    with pytest.warns(DataWarning, match="`groups` lacks 5 of 80 users who were tested, .*: they are left out"):
        parts = evaluation.by(pd.cut(lengths[lengths > lengths.min()], [0, 15, 1000], labels=["short", "long"]))
    assert set(parts["group"]) == {"short", "long"}
    assert parts.groupby(keys)["n_users"].sum().max() < overall["n_users"].max()


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({1: "F"}, "`groups` is of type dict; expected a Series, indexed by user id"),
        (pd.Series(["F", "M"], index=[1, 1]), "`groups` has several groups of 1; expected one a user"),
        (pd.Series(["F"], index=["1"]), "`groups` tells of no user that was tested: it is of '1', they are"),
        (pd.Series([], dtype=object), "`groups` names the group of no user, in 0 rows; expected that of each who was"),
        (pd.Series([None], index=[1]), "`groups` names the group of no user, in 1 rows"),
        (pd.Series([("F", 1), "M"], index=[1, 2]), r"`groups` holds \('F', 1\); expected one label a user"),
        (pd.Series([["F"], ["M"]], index=[1, 2]), r"`groups` holds \['F'\], \['M'\]; expected one label a user"),
        (pd.Series(pd.Categorical([("F", 1)]), index=[1]), r"`groups` holds \('F', 1\)"),
    ],
)
def test_groups_that_tell_nothing_are_refused(groups: Any, message: str, evaluation: Evaluation) -> None:
    with pytest.raises(InvalidInputError, match=message):
        evaluation.by(groups)


class Broken(Popularity):
    """Fails in `fit` on few rows, and in `recommend` on many."""

    def fit(self, X: Any, y: Any = None, **features: Any) -> Broken:
        if len(X) < 1200:
            raise MemoryError("no room")
        super().fit(X, y, **features)
        return self

    def recommend(self, *_: Any, **__: Any) -> pd.DataFrame:
        raise RuntimeError("no answer")


def test_a_model_that_fails_says_why_and_the_others_go_on(data: Any) -> None:
    splitters = [LeaveLastOut(), RandomSplit(test_size=0.6)]
    fails = {"Popularity": Popularity(), "Broken": Broken(), "EASE": EASE(l2=20.0)}
    with pytest.warns(RecsysWarning, match=r"Broken failed in (leave-last-out|random), seed [01]: ") as caught:
        found = Evaluator(splitters, seeds=(0, 1), n_resamples=20).evaluate(fails, data)
    assert len(caught) == 4
    assert found.failures[["scenario", "seed", "model", "error"]].to_numpy().tolist() == [
        ["leave-last-out", 0, "Broken", "RuntimeError: no answer"],
        ["random", 0, "Broken", "MemoryError: no room"],
        ["leave-last-out", 1, "Broken", "RuntimeError: no answer"],
        ["random", 1, "Broken", "MemoryError: no room"],
    ]
    sound = Evaluator(splitters, seeds=(0, 1), n_resamples=20).evaluate(MODELS, data)
    pd.testing.assert_frame_equal(
        found.per_user.reset_index(drop=True), sound.per_user.reset_index(drop=True), check_dtype=False
    )
    table = found.table()
    failed = table[table["error"] != ""]
    assert set(failed["model"]) == {"Broken"}
    assert failed.groupby("scenario")["error"].first().tolist() == ["RuntimeError: no answer", "MemoryError: no room"]
    assert failed["mean"].isna().all()
    rest = table[table["error"] == ""].reset_index(drop=True)
    pd.testing.assert_frame_equal(rest, sound.table().reset_index(drop=True), check_dtype=False)


def test_who_failed_with_one_seed_has_no_values(data: Any) -> None:
    sound = Evaluator([LeaveLastOut()], seeds=(0, 1), n_resamples=20).evaluate(MODELS, data)
    row = {"scenario": "leave-last-out", "seed": 1, "model": "EASE", "error": "MemoryError: no room"}
    found = replace(sound, failures=pd.DataFrame([row]))
    by_metric = found.values_by_metric("leave-last-out")
    assert list(by_metric) == found.metrics
    for metric, values in by_metric.items():
        pd.testing.assert_frame_equal(values, sound.values("leave-last-out", metric).drop(columns="EASE"))
        pd.testing.assert_frame_equal(values, found.values("leave-last-out", metric))
    assert found.values_by_metric("no such scenario") == {}
    with pytest.raises(InvalidTypeError, match="`scenario` is 3; expected a name"):
        found.values_by_metric(3)  # type: ignore[arg-type]


def test_a_baseline_that_fails_leaves_the_means(data: Any) -> None:
    models = {"Broken": Broken(), "EASE": EASE(l2=20.0)}
    evaluator = Evaluator([LeaveLastOut()], baseline="Broken", n_resamples=20)
    with pytest.warns(RecsysWarning, match="Broken failed"):
        table = evaluator.evaluate(models, data).table()
    ease = table[table["model"] == "EASE"]
    assert ease["mean"].notna().all()
    assert ease["difference"].isna().all()


def test_where_every_model_fails_nothing_is_measured(data: Any) -> None:
    evaluator = Evaluator([LeaveLastOut()], baseline="Broken", n_resamples=20)
    with (
        pytest.warns(RecsysWarning, match="Broken failed"),
        pytest.raises(InvalidInputError, match="Every model failed, the first with RuntimeError: no answer"),
    ):
        evaluator.evaluate({"Broken": Broken()}, data)


def test_new_users_and_new_items_at_once_and_sparse_users(data: Any) -> None:
    splitters = [BothColdSplit(k=(0, 2)), SparseSubset(quantile=0.5)]
    models = {"Popularity": Popularity(), "ContentKNN": ContentKNN()}
    table = Evaluator(splitters, metrics=("Recall",), n_resamples=10).evaluate(models, data).table()
    assert set(zip(table["scenario"], table["group"], strict=True)) == {
        ("both-cold k=0", "overall"),
        ("both-cold k=0", "cold-start"),
        ("both-cold k=2", "overall"),
        ("both-cold k=2", "cold-start"),
        ("sparse users", "overall"),
        ("sparse users", "hot"),
    }
    X = data.interactions[["user_id", "item_id"]]
    [split] = SparseSubset(quantile=0.5, random_state=0).splits(X)
    train = X.iloc[split.train]
    counts, worst, best = train["item_id"].value_counts(), [], []
    masked = X.iloc[np.concatenate([split.train, split.validation])]
    for user, wanted in X.iloc[split.test].groupby("user_id")["item_id"]:
        left = counts.drop(masked.loc[masked["user_id"] == user, "item_id"], errors="ignore")
        bar = left.nlargest(10).min()
        sure, tied = left.index[left > bar], left.index[left == bar]
        hits, n_tied, free = wanted.isin(sure).sum(), wanted.isin(tied).sum(), 10 - len(sure)
        worst.append((hits + max(0, free - (len(tied) - n_tied))) / len(wanted))
        best.append((hits + min(free, n_tied)) / len(wanted))
    found = table.query("scenario == 'sparse users' and model == 'Popularity' and group == 'overall'")["mean"].item()
    # Equal counts rank in an order drawn by seed.
    assert np.mean(worst) - 1e-12 <= found <= np.mean(best) + 1e-12
    assert np.mean(best) - np.mean(worst) < 0.1


def test_a_split_by_time_asks_for_times(data: Any) -> None:
    timeless = {"interactions": data.interactions.drop(columns="timestamp"), "users": None, "items": None}
    message = r"`data.interactions` has no column 'timestamp', only .* but LeaveLastOut goes by time"
    with pytest.raises(InvalidInputError, match=message):
        Evaluator([RandomSplit(), LeaveLastOut()]).evaluate({"Popularity": Popularity()}, timeless)
    rows = data.interactions.assign(timestamp=data.interactions["timestamp"].where(data.interactions.index > 2))
    infinite = rows["timestamp"].where(data.interactions.index > 0, np.inf)
    holes = {"interactions": rows.assign(timestamp=infinite), "users": None, "items": None}
    message = (
        r"^Column 'timestamp' of `data.interactions` is missing or infinite in 3 rows, but LeaveLastOut goes by time"
    )
    with pytest.raises(InvalidInputError, match=message):
        Evaluator([RandomSplit(), LeaveLastOut()]).evaluate({"Popularity": Popularity()}, holes)
    assert len(Evaluator([RandomSplit()]).evaluate({"Popularity": Popularity()}, holes).table())
    texts = holes | {"interactions": rows.assign(timestamp=pd.to_datetime(rows["timestamp"], unit="s").astype(str))}
    message = (
        r"^Column 'timestamp' of `data.interactions` has dtype .*, but LeaveLastOut goes by time; expected numbers"
    )
    with pytest.raises(InvalidTypeError, match=message):
        Evaluator([LeaveLastOut()]).evaluate({"Popularity": Popularity()}, texts)


def test_times_may_be_kept_by_arrow(data: Any) -> None:
    plain = pd.to_datetime(data.interactions["timestamp"], unit="s")
    kinds = ["datetime64[s]", "timestamp[ns][pyarrow]", "timestamp[us, tz=Asia/Tokyo][pyarrow]", "int64[pyarrow]"]
    found = []
    for kind in kinds:
        times = data.interactions["timestamp"] if kind.startswith("int") else plain
        times = times.dt.tz_localize("UTC") if "tz" in kind else times
        rows = data.interactions.assign(timestamp=times.astype(kind))
        found.append(Evaluator([LeaveLastOut()], n_resamples=10).evaluate(MODELS, {"interactions": rows}))
    for other in found[1:]:
        pd.testing.assert_frame_equal(other.per_user, found[0].per_user)
    holes = rows.assign(timestamp=plain.where(rows.index > 2).astype("timestamp[ns][pyarrow]"))
    with pytest.raises(InvalidInputError, match="is missing or infinite in 3 rows"):
        Evaluator([LeaveLastOut()]).evaluate(MODELS, {"interactions": holes})


def test_features_without_ids_are_refused(data: Any) -> None:
    users = data.users.drop(columns="user_id").sample(frac=1, random_state=1).reset_index(drop=True)
    nameless = {"interactions": data.interactions, "users": users, "items": None}
    with pytest.raises(InvalidInputError, match=r"`data.users` has no column 'user_id' and its index only numbers the"):
        Evaluator([LeaveLastOut()], n_resamples=10).evaluate({"Popularity": Popularity()}, nameless)
    doubled = {**nameless, "users": None, "items": pd.concat([data.items, data.items.head(1)])}
    with pytest.raises(InvalidInputError, match=r"`data.items` has more than one row for 1 ids"):
        Evaluator([LeaveLastOut()], n_resamples=10).evaluate({"Popularity": Popularity()}, doubled)


@pytest.mark.parametrize("splitters", [[LeaveLastOut(), LeaveLastOut(n_last=2)], [RandomSplit(n_splits=2)]])
def test_splits_of_one_name_are_refused(splitters: list[Any], data: Any) -> None:
    message = (
        r"`splitters` gives several splits named '(leave-last-out|random)'.* Instead of `n_splits` pass more `seeds` "
        r"to the Evaluator; of several splitters of one kind, give each an Evaluator of its own"
    )
    with pytest.raises(InvalidInputError, match=message):
        Evaluator(splitters, n_resamples=10).evaluate({"Popularity": Popularity()}, data)


def test_a_seed_gets_a_fit_of_its_own(data: Any) -> None:
    models = {"Popularity": Popularity(), "MF": MatrixFactorization(n_factors=2, max_iter=1)}

    def values(seeds: tuple[int, ...]) -> Any:
        found = Evaluator([LeaveLastOut()], seeds=seeds, n_resamples=10).evaluate(models, data).per_user
        return found[(found["seed"] == 256) & (found["model"] == "MF")]["NDCG@10"].to_numpy()

    np.testing.assert_array_equal(values((0, 256)), values((256,)))
