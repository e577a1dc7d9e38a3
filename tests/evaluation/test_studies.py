"""What a report shows besides its evaluation: weights of fields, an ablation, learning rates."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pandas as pd
import pytest

from recsys import EASE, ContrastiveRecommender, FeatureTable, Popularity
from recsys.datasets import make_movielens_like
from recsys.evaluation import (
    Evaluation,
    Evaluator,
    LeaveLastOut,
    RandomSplit,
    Report,
    UserColdSplit,
    entity_groups,
    field_weights,
)
from recsys.evaluation._page import page
from recsys.exceptions import InvalidInputError, InvalidTypeError, RecsysWarning


@pytest.fixture(scope="module")
def data() -> Any:
    return make_movielens_like(n_users=80, n_items=50, n_interactions=1600, random_state=0)


@pytest.fixture(scope="module")
def evaluation(data: Any) -> Evaluation:
    models: dict[str, Any] = {"Popularity": Popularity(), "EASE": EASE(l2=20.0)}
    return Evaluator([LeaveLastOut()], n_resamples=50).evaluate(models, data)


@pytest.fixture(scope="module")
def told(data: Any) -> tuple[Any, pd.DataFrame, pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """A fitted model, train rows, pairs of all groups, rows revealed, and the weights."""
    X = data.interactions[["user_id", "item_id"]].sample(frac=1, random_state=0, ignore_index=True)
    new_user, new_item = X["user_id"] % 4 == 0, X["item_id"] % 5 == 0
    train = X[~new_user & ~new_item]
    pairs = pd.concat([train.head(200), X[new_user].head(60), X[new_item].head(60)], ignore_index=True)
    revealed = X[(X["user_id"] % 8 == 0) & ~new_item].groupby("user_id").head(2)
    # Every third item lacks genres, so that this field is absent there.
    items = data.items.assign(genres=data.items["genres"].where(data.items["item_id"] % 3 > 0))
    features = {"user_features": FeatureTable(data.users[["user_id", "age"]]), "item_features": FeatureTable(items)}
    model = ContrastiveRecommender(n_factors=8, max_iter=2, random_state=0).fit(train, **features)
    return model, train, pairs, revealed, field_weights(model, pairs, train, revealed)


def test_weights_are_means_over_the_pairs_of_a_group(told: Any) -> None:
    model, train, pairs, revealed, weights = told
    explained = model.explain(pairs, interactions=revealed)
    groups = entity_groups(train, pairs, revealed)
    assert groups["user"].nunique() == 3
    assert weights["side"].tolist() == sorted(weights["side"], reverse=True)
    assert set(weights.loc[weights["side"] == "item", "field"]) == {"id", "title", "year", "genres"}
    assert set(weights.loc[weights["side"] == "user", "field"]) == {
        "id",
        "age",
        "history",
        "similar users",
        "fields together",
    }
    for row in weights.itertuples():
        own = explained[(explained["source"] == row.side) & (explained["field"] == row.field)]
        # By a loop over the pairs: what is not told weighs nothing.
        values = []
        for i in np.flatnonzero(groups[row.side] == row.group):
            values.append(float(own.loc[own["row"] == i, "weight"].sum()))
        assert row.n_pairs == len(values)
        expected = (np.mean(values), np.quantile(values, 0.1), np.quantile(values, 0.9))
        assert (row.weight, row.low, row.high) == pytest.approx(expected)
    genres = weights[weights["field"] == "genres"].set_index("group")
    assert genres.loc["hot", "low"] == 0 < genres.loc["hot", "weight"]


def test_a_model_without_fields_is_refused(data: Any) -> None:
    X = data.interactions[["user_id", "item_id"]]
    with pytest.raises(InvalidInputError, match=r"`model` is EASE\(\), which explains its scores by no field of users"):
        field_weights(EASE().fit(X), X.head(5), X)


def test_weights_are_drawn_for_users_and_for_items(evaluation: Evaluation, told: Any) -> None:
    weights = told[-1]
    report = Report(evaluation, weights=weights)
    [study] = page(report)["studies"]
    users, items = study.rows
    for chart, side in ((users, "user"), (items, "item")):
        own = weights[weights["side"] == side]
        assert chart.title == f"Fields of {side}s"
        assert [series.look.name for series in chart.series] == list(own["field"].unique())
        assert [tick.text for tick in chart.legend] == [
            group for group in ("hot", "few-shot", "cold-start") if (own["group"] == group).any()
        ]
        [zero] = [tick.at for tick in chart.x_ticks if tick.text == "0"]
        for series in chart.series:
            for mark in series.marks:
                row = own[(own["field"] == series.look.name) & (own["group"] == mark.css)].iloc[0]
                assert mark.text == (
                    f"{series.look.name}: weight {row['weight']:.4f} [{row['low']:.4f}, {row['high']:.4f}], {mark.css}"
                )
                assert zero <= mark.low <= mark.high
    text = report.to_html()
    assert text.count('<section id="weights"') == text.count('href="#weights"') == 1
    values = json.loads(report.to_json())["weights"]
    assert [(row["field"], row["weight"]) for row in values] == list(
        zip(weights["field"], weights["weight"], strict=True)
    )
    [line] = [line for line in report.to_markdown().splitlines() if line.startswith("| user | history |")]
    of_history = weights[weights["field"] == "history"].set_index("group")["weight"]
    expected = [f"{of_history[group]:.3f}" for group in ("hot", "few-shot", "cold-start")]
    assert line.strip("| ").split(" | ")[2:] == expected


def test_an_ablation_is_drawn_as_differences_from_the_whole(evaluation: Evaluation, data: Any) -> None:
    variants: dict[str, Any] = {"whole": EASE(l2=20.0), "without": Popularity()}
    splitters = [LeaveLastOut(), RandomSplit(test_size=0.3)]
    ablation = Evaluator(splitters, baseline="whole", n_resamples=50).evaluate(variants, data)
    report = Report(evaluation, ablation=ablation)
    [study] = page(report)["studies"]
    assert [chart.title for chart in study.rows] == ["leave-last-out", "random"]
    table = ablation.table().query("model == 'without' and metric == 'NDCG@10' and group == 'overall'")
    for chart, (_, row) in zip(study.rows, table.iterrows(), strict=True):
        [series] = chart.series
        [mark] = series.marks
        interval = f"[{row['difference_low']:.4f}, {row['difference_high']:.4f}]"
        assert mark.text == f"without: NDCG@10 above whole {row['difference']:.4f} {interval}"
        [zero] = [tick.at for tick in chart.x_ticks if tick.text == "0"]
        assert (mark.x < zero) == (row["difference"] < 0)
        assert list(chart.legend) == []
    assert len(json.loads(report.to_json())["ablation"]) == len(ablation.table())
    [line] = [line for line in report.to_markdown().splitlines() if line.startswith("| without |")]
    assert line == f"| without | {' | '.join(f'{mean:.4f}' for mean in table['mean'])} |"


def test_learning_rates_are_drawn_as_a_line_a_scenario(evaluation: Evaluation, data: Any) -> None:
    rates = {"0.1": EASE(l2=10.0), "1e-3": EASE(l2=1000.0), "0.01": EASE(l2=100.0)}
    splitters = [LeaveLastOut(), UserColdSplit(k=(5,))]
    found = Evaluator(splitters, baseline="0.1", n_resamples=50).evaluate(rates, data)
    report = Report(evaluation, learning_rates=found)
    [study] = page(report)["studies"]
    [chart] = study.curves
    assert [tick.text for tick in chart.x_ticks] == ["0.001", "0.01", "0.1"]
    first, second, third = (tick.at for tick in chart.x_ticks)
    assert second - first == pytest.approx(third - second)
    assert {series.look.name for series in chart.series} == {"leave-last-out", "user-cold k=5"}
    means = found.table().query("metric == 'NDCG@10' and group == 'overall'").set_index(["scenario", "model"])["mean"]
    for series in chart.series:
        for mark, name in zip(series.marks, ("1e-3", "0.01", "0.1"), strict=True):
            assert mark.text.startswith(f"{series.look.name}: NDCG@10 {means[series.look.name, name]:.4f} [")
            assert mark.text.endswith(f"at a learning rate of {float(name):g}")
    assert '<section id="learning-rates"' in report.to_html()
    assert re.search(r"^\| NDCG@10 by learning rate \| leave-last-out \| user-cold k=5 \|$", report.to_markdown(), re.M)


class Broken(EASE):
    def fit(self, *_: Any, **__: Any) -> Broken:
        raise MemoryError("no room")


def test_a_variant_that_failed_is_named(evaluation: Evaluation, data: Any) -> None:
    variants: dict[str, Any] = {"whole": EASE(l2=20.0), "without": Popularity(), "in vain": Broken()}
    with pytest.warns(RecsysWarning, match="in vain failed"):
        found = Evaluator([LeaveLastOut()], baseline="whole", n_resamples=50).evaluate(variants, data)
    report = Report(evaluation, ablation=found)
    assert "Failed, at least once: in vain." in report.to_html()
    assert "| in vain | failed |" in report.to_markdown()
    rates: dict[str, Any] = {"0.1": EASE(), "0.01": Broken()}
    with pytest.warns(RecsysWarning, match="0.01 failed"):
        found = Evaluator([LeaveLastOut()], baseline="0.1", n_resamples=50).evaluate(rates, data)
    with pytest.raises(
        InvalidInputError, match=r"`learning_rates` has the rates '0.1'; expected two or more that were"
    ):
        Report(evaluation, learning_rates=found)
    variants = {"whole": Broken(), "without": Popularity()}
    with pytest.warns(RecsysWarning, match="whole failed"):
        found = Evaluator([LeaveLastOut()], baseline="whole", n_resamples=50).evaluate(variants, data)
    with pytest.raises(
        InvalidInputError, match=r"`ablation` has the baseline 'whole', which failed; expected the whole"
    ):
        Report(evaluation, ablation=found)


def test_the_same_rate_twice_is_refused(evaluation: Evaluation, data: Any) -> None:
    rates = {"0.001": EASE(), "1e-3": EASE(l2=5.0), "0.1": EASE(l2=9.0)}
    found = Evaluator([LeaveLastOut()], baseline="0.1", n_resamples=50).evaluate(rates, data)
    with pytest.raises(InvalidInputError, match=r"`learning_rates` has the rates '0.001', '1e-3', '0.1'; expected two"):
        Report(evaluation, learning_rates=found)


def test_further_columns_of_weights_are_left_out(evaluation: Evaluation, told: Any) -> None:
    report = Report(evaluation, weights=told[-1].assign(model="Contrastive", mean=0.1, when=pd.Timestamp("2020-01-01")))
    assert report.to_html() == Report(evaluation, weights=told[-1]).to_html()
    assert "when" not in json.loads(report.to_json())["weights"][0]


def test_nothing_given_shows_nothing(evaluation: Evaluation) -> None:
    report = Report(evaluation)
    assert page(report)["studies"] == []
    assert {"weights", "ablation", "learning_rates"}.isdisjoint(json.loads(report.to_json()))
    assert "Ablation" not in report.to_markdown()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda frame: frame.drop(columns="n_pairs"),
            "`weights` lacks 'n_pairs'; expected what `field_weights` returns",
        ),
        (lambda frame: frame.head(0), "`weights` has no rows"),
        (
            lambda frame: frame.assign(group="warm"),
            "`weights.group` holds 'warm'.*; expected hot, few-shot, cold-start",
        ),
        (lambda frame: frame.assign(side="both"), "`weights.side` holds 'both'.*; expected user, item"),
        (lambda frame: pd.concat([frame, frame]), "`weights` has several rows of .* in a group; expected one each"),
        (lambda frame: frame.assign(weight="a"), "`weights.weight` holds values that are not finite numbers"),
        (lambda frame: frame.assign(high=pd.NA), "`weights.high` holds values that are not finite numbers"),
        (lambda frame: frame.assign(field=None), "`weights.field` holds missing names"),
        (lambda frame: pd.concat([frame, frame["weight"]], axis=1), "`weights` has several columns 'weight'; expected"),
        (lambda frame: frame.assign(low=np.nan), "`weights.low` holds values that are not finite numbers"),
    ],
)
def test_weights_that_cannot_be_drawn_are_refused(evaluation: Evaluation, told: Any, change: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        Report(evaluation, weights=change(told[-1]))


def test_what_is_no_study_is_refused(evaluation: Evaluation, data: Any) -> None:
    wrong: Any = [1]
    with pytest.raises(InvalidTypeError, match="`weights` is of type list; expected a DataFrame: pass what `field_wei"):
        Report(evaluation, weights=wrong)
    with pytest.raises(InvalidTypeError, match="`ablation` is of type list; expected an Evaluation of variants of one"):
        Report(evaluation, ablation=wrong)
    with pytest.raises(InvalidInputError, match="`learning_rates` has a model named 'Popularity'; expected names that"):
        Report(evaluation, learning_rates=evaluation)
    alone = Evaluator([LeaveLastOut()], baseline="EASE", n_resamples=50).evaluate({"EASE": EASE()}, data)
    with pytest.raises(
        InvalidInputError, match="`ablation` has no variant that was measured but its baseline, 'EASE'; exp"
    ):
        Report(evaluation, ablation=alone)
    evaluator = Evaluator([LeaveLastOut()], metrics=("HR",), baseline="EASE", n_resamples=50)
    other = evaluator.evaluate({"EASE": EASE()}, data)
    with pytest.raises(InvalidInputError, match=r"`ablation` measures HR@10; expected NDCG@10, which the report shows"):
        Report(evaluation, ablation=other)
