"""The studies of the flagship compare what they say they compare, and write what they found."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmarks import flagship, flagship_costs, run
from recsys import EASE, AutoRec, ContrastiveRecommender, DeepFM, LightGBMRecommender, MatrixFactorization, Popularity
from recsys.datasets import make_movielens_like
from recsys.evaluation import Evaluation, Evaluator, ItemColdSplit, RandomSplit, UserColdSplit


def small_models() -> dict[str, Any]:
    """Models that fit in no time."""
    ours = ContrastiveRecommender(n_factors=8, n_tower_factors=4, max_iter=1, residual=False)
    return {
        "Popularity": Popularity(),
        "EASE": EASE(),
        "MatrixFactorization": MatrixFactorization(n_factors=4, max_iter=1),
        "AutoRec": AutoRec(n_factors=4, max_iter=1),
        "DeepFM": DeepFM(max_iter=1),
        "LightGBMRecommender": LightGBMRecommender(n_estimators=2),
        "ContrastiveRecommender": ours,
    }


@pytest.fixture
def data(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Generated data, and models that are small."""
    for module in (run, flagship_costs):
        monkeypatch.setattr(module, "models", small_models)
    return make_movielens_like(n_users=60, n_items=40, n_interactions=900, random_state=0)


def told(rows: Any, column: str = "mean") -> dict[tuple[str, str], Any]:
    """NDCG@10 of all test rows, by scenario and model."""
    table = pd.DataFrame(rows).query("group == 'overall' and metric == 'NDCG@10'")
    return dict(zip(zip(table["scenario"], table["model"], strict=True), table[column], strict=True))


def alone(splitter: Any, model: Any, data: Any) -> dict[tuple[str, str], Any]:
    """The same of one model that was evaluated by itself, as "model"."""
    return told(Evaluator([splitter], baseline="model").evaluate({"model": model}, data).table())


def test_variants_of_data_are_compared_on_the_same_splits(data: Any) -> None:
    bare = flagship.with_features(data, items=None)
    assert bare.users is data.users
    assert data.items is not None
    variants: flagship.Variants = {"with": (run.models()["EASE"], data), "without": (Popularity(), bare)}
    found = flagship.evaluated(variants, [RandomSplit()], [0, 1])
    assert found.baseline == "with"
    assert len(found.splits) == 2
    together = Evaluator([RandomSplit()], seeds=[0, 1]).evaluate({"with": EASE(), "Popularity": Popularity()}, data)
    expected = told(together.table())
    assert told(found.table())["random", "with"] == expected["random", "with"]
    difference = expected["random", "Popularity"] - expected["random", "with"]
    assert told(found.table(), "difference")["random", "without"] == pytest.approx(difference)


def test_an_ablation_measures_every_part_against_the_full_model(data: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flagship, "ABLATED", ("item-cold",))
    parts = {"no memory": {"memory_weight": 0.0}, "closed form alone": {"memory_weight": 0.0, "tower_weight": 0.0}}
    monkeypatch.setattr(flagship, "WITHOUT", parts)
    monkeypatch.setattr(flagship, "WITHOUT_IN_TOWERS", {"no contrast": {"contrast_weight": 0.0}})
    found = flagship.ablation(data, [0])
    assert not any(told(found.values["full"], "error").values())
    means, scenario = told(found.values["full"]), "item-cold (cold candidates)"
    assert len(means) == 2 * 6
    splitter = run.splitters()["item-cold"]
    for name, parameters in parts.items():
        again = alone(splitter, flagship_costs.flagship(**parameters), data)
        assert means[scenario, name] == pytest.approx(again[scenario, "model"], abs=1e-6)
    again = alone(splitter, flagship_costs.flagship(), flagship.with_features(data, users=None))
    assert means[scenario, "no attributes of users"] == pytest.approx(again[scenario, "model"], abs=1e-6)
    assert found.page is not None
    assert found.page.ablation is found.page.evaluation
    assert {model for _, model in told(found.values["towers alone"])} == {"towers alone", "no contrast"}


def test_every_switch_is_a_parameter_of_the_model() -> None:
    for parameters in (*flagship.WITHOUT.values(), *flagship.WITHOUT_IN_TOWERS.values(), flagship_costs.TOWERS_ALONE):
        assert parameters.keys() <= ContrastiveRecommender().get_params().keys()


def test_learning_rates_are_tried_in_the_whole_model_and_in_towers_alone(
    data: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flagship, "RATES", np.array([1e-3, 1e-2]))
    monkeypatch.setattr(flagship, "SCENARIOS", (RandomSplit(),))
    found = flagship.learning_rate(data, [0])
    means = told(found.values["results"])
    assert {scenario for scenario, _ in means} == {"random", "random, towers alone"}
    model = flagship_costs.flagship(**flagship_costs.TOWERS_ALONE, learning_rate=0.01)
    again = alone(RandomSplit(), model, data)
    assert means["random, towers alone", "0.01"] == pytest.approx(again["random", "model"], abs=1e-6)
    best = max(("0.001", "0.01"), key=lambda rate: means["random, towers alone", rate])
    [line] = [line for line in found.text.splitlines() if line.startswith("| random, towers alone")]
    assert line.endswith(f"| {best} |")
    assert found.page is not None
    assert "Learning rates" in found.page.to_markdown()


def test_junk_is_drawn_anew_for_each_seed_and_tells_nothing() -> None:
    frame = pd.DataFrame({"item_id": np.arange(4000), "year": 1990})
    one, other = flagship.with_junk(frame, 0), flagship.with_junk(frame, 1)
    pd.testing.assert_frame_equal(one, flagship.with_junk(frame, 0))
    pd.testing.assert_frame_equal(one[["item_id", "year"]], frame)
    names = [f"junk {i}" for i in range(flagship.N_JUNK)]
    assert list(one.columns) == ["item_id", "year", *names]
    for name in names:
        # A share of 1 / 20, give or take six standard deviations.
        np.testing.assert_allclose(one[name].value_counts(normalize=True), 1 / flagship.N_JUNK_VALUES, atol=0.021)
        assert (one[name] != other[name]).mean() == pytest.approx(0.95, abs=0.021)


def test_junk_is_added_to_items_and_to_users_apart(data: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flagship, "NEW_ITEMS_AND_FEW_SHOT", (ItemColdSplit(),))
    found = flagship.junk_field(data, [0])
    means, scenario = told(found.values["results"]), "item-cold (cold candidates)"
    for part in ("items", "users"):
        noisy = flagship.with_features(data, **{part: flagship.with_junk(getattr(data, part), 0)})
        expected = alone(ItemColdSplit(), flagship_costs.flagship(), noisy)[scenario, "model"]
        assert means[scenario, f"ten random fields of {part}"] == pytest.approx(expected, abs=1e-6)
    assert {"genres", "junk 0", "junk 9"} <= set(pd.DataFrame(found.values["weights"])["field"])


def blocks(n_users: int = 40, n_items: int = 40) -> Any:
    """Half of the users take items of even numbers, half of odd ones; features tell nothing."""
    pairs = pd.DataFrame(np.argwhere(np.add.outer(np.arange(n_users), np.arange(n_items)) % 2 == 0))
    interactions = pairs.set_axis(["user_id", "item_id"], axis=1).sample(frac=0.6, random_state=0)
    users = pd.DataFrame({"user_id": np.arange(n_users), "kind": "user"})
    items = pd.DataFrame({"item_id": np.arange(n_items), "kind": "item"})
    return SimpleNamespace(interactions=interactions.reset_index(drop=True), users=users, items=items, name="blocks")


def test_the_rich_field_tells_what_users_set_aside_take_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flagship, "N_GROUPS", 2)
    data = blocks()
    plain, rich = flagship.with_rich_field(data, 0)
    assert plain.interactions.equals(rich.interactions)
    assert set(plain.interactions["user_id"]) <= set(plain.users["user_id"])
    assert len(plain.users) == 20
    taste = rich.items.set_index("item_id")["taste"]
    assert taste[::2].nunique() == taste[1::2].nunique() == 1
    assert taste[0] != taste[1]


def test_the_rich_field_does_not_depend_on_those_who_are_tested() -> None:
    data = blocks()
    plain, rich = flagship.with_rich_field(data, 0)
    ours = data.interactions["user_id"].isin(plain.users["user_id"])
    changed = data.interactions.assign(
        item_id=data.interactions["item_id"].where(~ours, (data.interactions["item_id"] + 1) % 40)
    )
    other = SimpleNamespace(interactions=changed, users=data.users, items=data.items)
    pd.testing.assert_frame_equal(flagship.with_rich_field(other, 0)[1].items, rich.items)
    few = changed[~ours & (changed["item_id"] > 0)]
    lacking = SimpleNamespace(interactions=few, users=data.users, items=data.items)
    assert flagship.with_rich_field(lacking, 0)[1].items["taste"].isna().tolist() == [True, *[False] * 39]


def test_a_rich_field_is_found(data: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    del data
    monkeypatch.setattr(flagship, "N_GROUPS", 2)
    monkeypatch.setattr(flagship, "NEW_ITEMS_AND_FEW_SHOT", (ItemColdSplit(),))
    found = flagship.rich_field(blocks(), [0])
    means, scenario = told(found.values["results"]), "item-cold (cold candidates)"
    assert means[scenario, "with the field"] > means[scenario, "without"] + 0.1
    [terms] = found.values["closed form"]
    assert max(terms, key=lambda term: terms[term]).startswith("taste")
    assert "taste" in set(pd.DataFrame(found.values["weights"])["field"])


def test_the_best_of_the_others_is_picked_in_each_metric() -> None:
    users = np.arange(200)
    half = np.where(users < 100, 1.0, 0.0)
    values = {"A": (0.2, half), "B": (0.4, half - half), "ours": (0.5, half)}
    frames = [
        pd.DataFrame({"user_id": users, "NDCG@10": ndcg, "HR@10": hr}).assign(
            model=model, scenario="all", seed=0, group="overall"
        )
        for model, (ndcg, hr) in values.items()
    ]
    splits = pd.DataFrame({"scenario": ["all"], "seed": [0], "hash": [""], "sampled": [False]})
    failures = pd.DataFrame(columns=["scenario", "seed", "model", "error"])
    rows = pd.concat(frames, ignore_index=True)
    evaluation = Evaluation(rows, splits, splits, failures, "A", metrics=["NDCG@10", "HR@10"])
    ndcg, hr = flagship.against_best(evaluation, ["A", "B"], "ours").to_dict("records")
    assert (ndcg["metric"], ndcg["best"], hr["metric"], hr["best"]) == ("NDCG@10", "B", "HR@10", "A")
    assert [ndcg[key] for key in ("of_best", "mean", "difference")] == pytest.approx([0.4, 0.5, 0.1])
    assert [ndcg["low"], ndcg["high"], hr["difference"]] == pytest.approx([0.1, 0.1, 0.0])


def test_the_first_five_are_revealed_and_all_the_rest_is_tested(data: Any) -> None:
    found = flagship.first_five(data, [0])
    assert found.page is not None
    evaluation = found.page.evaluation
    [split] = evaluation.splits.to_dict("records")
    assert split["scenario"] == "user-cold first k=5"
    asked = evaluation.per_user["user_id"].unique()
    assert len(asked) == 12
    n_rows = data.interactions["user_id"].value_counts()[asked]
    # Of those who have so few, one is left to test.
    assert split["revealed"] == np.minimum(n_rows - 1, 5).sum()
    assert split["train"] + split["revealed"] + split["test"] == 900
    means = evaluation.values("user-cold first k=5", "NDCG@10").mean()
    best = means.drop("ContrastiveRecommender").max()
    assert f"| {best:.4f} | {means['ContrastiveRecommender']:.4f} |" in found.text


def test_the_models_of_the_paper_are_compared_in_every_scenario(data: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flagship, "SETTINGS", {"user-cold": (UserColdSplit(k=(0,)),)})
    found = flagship.paper(data, [0])
    rows = pd.DataFrame(found.values["against the best"])
    assert rows["metric"].tolist() == ["HR@10", "Recall@10", "NDCG@10", "MRR@10"]
    assert set(rows["best"]) <= set(flagship.PAPER)
    np.testing.assert_allclose(rows["difference"], rows["mean"] - rows["of_best"], atol=2e-6)


def test_sparse_users_share_a_train_set_with_all_users() -> None:
    X = make_movielens_like(n_users=60, n_items=40, n_interactions=900, random_state=0).interactions
    whole, sparse = flagship.SETTINGS["random"]
    [one] = type(whole)(**{**vars(whole), "random_state": 3}).splits(X[["user_id", "item_id"]])
    [other] = type(sparse)(**{**vars(sparse), "random_state": 3}).splits(X[["user_id", "item_id"]])
    np.testing.assert_array_equal(one.train, other.train)


@pytest.mark.parametrize(
    ("study", "dataset", "note"),
    [
        ("refit", "ml-1m", "7.9 % of timestamps estimated"),
        ("first-five", "ml-1m", "7.9 % of timestamps estimated"),
        ("first-five", "ml-100k", "Parameters were chosen on validation rows"),
    ],
)
def test_a_reader_is_told_of_timestamps_and_of_parameters(study: str, dataset: str, note: str) -> None:
    assert note in flagship.notes(study, dataset, 3)


@pytest.mark.parametrize(("study", "dataset"), [("junk-field", "ml-1m"), ("scaling", "generated")])
def test_a_study_without_time_and_choice_needs_no_note(study: str, dataset: str) -> None:
    assert flagship.notes(study, dataset, 3) == ""


def test_what_a_study_found_is_printed_and_written(
    ml_100k: Any, data_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    del ml_100k
    monkeypatch.setenv("RECSYS_DATA_HOME", str(data_home))
    result = flagship_costs.Found("| a |\n", {"results": [{"mean": 0.5, "difference": None}]})
    monkeypatch.setitem(flagship.STUDIES, "refit", lambda data, seeds: result)
    flagship.main(["--study", "refit", "--seeds", "2", "--output", str(tmp_path / "new")])
    text = (tmp_path / "new" / "flagship-refit-ml-100k.md").read_text()
    assert text.startswith("# ml-100k: refit\n\n2 seed(s), ")
    assert text.endswith("| a |\n")
    assert text in capsys.readouterr().out
    values = json.loads((tmp_path / "new" / "flagship-refit-ml-100k.json").read_text())
    assert values["results"] == [{"mean": 0.5, "difference": None}]
    assert (values["dataset"], values["study"], values["seeds"]) == ("ml-100k", "refit", 2)
    assert values["environment"]["packages"]["recsys"] == "0.1.0"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--study", "refit", "--seeds", "0"], "--seeds is 0; expected at least 1"),
        (["--study", "nope"], "invalid choice: 'nope'"),
        (["--study", "refit", "--dataset", "nope"], "--dataset: There is no MovieLens data set 'nope'"),
    ],
)
def test_bad_arguments_are_refused(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        flagship.main(arguments)
    assert message in capsys.readouterr().err
