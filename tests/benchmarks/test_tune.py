"""Tuning sees no test row, gives every model the same trials, and says what it tried."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmarks import run, tune
from recsys import EASE, Popularity
from recsys.evaluation import Evaluator, LeaveLastOut


@pytest.mark.parametrize("name", run.splitters())
def test_what_is_tuned_on_holds_nothing_that_any_seed_of_the_benchmark_is_tested_on(ml_100k: Any, name: str) -> None:
    splitter, rows = run.splitters()[name], ml_100k.interactions
    left = tune.without_test(splitter, ml_100k)
    inner = left.interactions
    # The splits of the benchmark itself: its seeds, its evaluator.
    evaluator = Evaluator([splitter], seeds=range(run.TUNED_SEEDS), baseline="Popularity")
    hashes = set(evaluator.evaluate({"Popularity": Popularity()}, ml_100k).splits["hash"])
    seeds = [{"random_state": seed} if hasattr(splitter, "random_state") else {} for seed in range(run.TUNED_SEEDS)]
    pairs, times = rows[["user_id", "item_id"]], rows["timestamp"]
    splits = [split for seed in seeds for split in type(splitter)(**vars(splitter) | seed).splits(pairs, groups=times)]
    assert {split.hash for split in splits} == hashes
    seen = pd.MultiIndex.from_frame(inner[["user_id", "item_id"]])
    train = pd.MultiIndex.from_frame(pairs)
    for split in splits:
        assert not seen.isin(train[split.test]).any()
        assert not seen.isin(train[split.revealed]).any()
        assert seen.isin(train[split.train]).all()
    # New users and items of a test are new to all trials.
    if name in ("user-cold", "item-cold"):
        column = f"{name[:4]}_id"
        cold = {entity for s in splits for entity in set(rows[column]) - set(rows[column].iloc[s.train])}
        assert cold
        assert cold.isdisjoint(inner[column])
        kept = {"user_id": left.users, "item_id": left.items}[column][column]
        everyone = {"user_id": ml_100k.users, "item_id": ml_100k.items}[column][column]
        assert cold.isdisjoint(kept)
        # Who never had a row is warm in the benchmark, and is here.
        assert set(everyone) - set(rows[column]) <= set(kept)
    assert 0.25 * len(rows) < len(inner) < len(rows)


def test_every_scenario_gets_its_trials_and_the_benchmark_uses_what_they_found(
    ml_100k: Any, data_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECSYS_DATA_HOME", str(data_home))
    for module in (run, tune):
        monkeypatch.setattr(module, "TUNED", tmp_path)
        monkeypatch.setattr(module, "models", lambda: {"Popularity": Popularity(), "EASE": EASE(l2=1e6)})
        monkeypatch.setattr(module, "splitters", lambda: {"leave-last-out": LeaveLastOut()})
    monkeypatch.setitem(tune.STARTS, "EASE", {"l2": 1e5})
    arguments = ["--models", "EASE", "--scenarios", "leave-last-out", "--trials", "3"]
    tune.main(arguments)
    written = (tmp_path / "ml-100k.json").read_text()
    found = json.loads(written)["models"]["EASE"]["leave-last-out"]
    assert found["n_trials"] == len(found["trials"]) == 3
    [told] = run.remarks("ml-100k", run.TUNED_SEEDS)
    assert told == "Parameters were chosen on validation rows: ``benchmarks/tuned/ml-100k.json``."
    [told] = run.remarks("ml-100k", run.TUNED_SEEDS + 1)
    assert told.endswith("ml-100k.json``, where test rows of the seeds from 3 on were among them.")
    assert found["trials"][0]["params"] == {"l2": 1e5}
    assert found["value"] == max(trial["value"] for trial in found["trials"]) > found["start_value"]
    tuned = run.tuned_models("ml-100k", "leave-last-out")
    assert tuned["EASE"].get_params()["l2"] == found["params"]["l2"]
    assert run.tuned_models("ml-1m", "leave-last-out")["EASE"].get_params()["l2"] == 1e6
    # From the same seed the same trials.
    tune.main(arguments)
    assert (tmp_path / "ml-100k.json").read_text() == written


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seed", "-1"], "--seed is -1; expected a number from 0 to 4294967295"),
        (["--seed", "4294967296"], "--seed is 4294967296; expected a number from 0 to 4294967295"),
        (["--trials", "0"], "--trials is 0; expected at least 1"),
        (["--dataset", "nope"], "--dataset: There is no MovieLens data set 'nope'"),
    ],
)
def test_bad_arguments_are_refused(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        tune.main(arguments)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("name", tune.SPACES)
def test_a_search_starts_within_its_space(name: str) -> None:
    space, start = tune.SPACES[name], tune.STARTS[name]
    assert list(start) == list(space)
    assert all(space[key]._contains(value) for key, value in start.items())


@pytest.mark.parametrize("name", tune.SPACES)
def test_defaults_are_what_won_on_movielens_1m_to_two_digits(name: str) -> None:
    won = json.loads((run.TUNED / "ml-1m.json").read_text())["best_of_all"][name]["params"]
    assert set(won) == set(tune.SPACES[name])
    defaults = run.models()[name].get_params()
    assert {key: defaults[key] for key in won} == {
        key: value if isinstance(value, int) else float(f"{value:.2g}") for key, value in won.items()
    }


def test_values_of_a_known_answer(ml_100k: Any) -> None:
    inner = tune.without_test(LeaveLastOut(), ml_100k)
    value = tune.validation_value(Popularity(), LeaveLastOut(), inner)
    rows = inner.interactions
    [split] = LeaveLastOut().splits(rows[["user_id", "item_id"]], groups=rows["timestamp"])
    train, test = rows.iloc[split.train], rows.iloc[split.test]
    counts, gains = train.groupby("item_id").size(), []
    for user, item in zip(test["user_id"], test["item_id"], strict=True):
        left = counts.drop(train.loc[train["user_id"] == user, "item_id"])
        rank = int((left > left.get(item, 0)).sum()) + 1
        gains.append(1 / np.log2(rank + 1) if rank <= 10 else 0.0)
    # Equal counts rank in an order drawn by seed.
    assert value == pytest.approx(np.mean(gains), abs=0.003)


def test_all_scenarios_see_the_same_candidates(ml_100k: Any) -> None:
    found = {}
    for name, splitter in run.splitters().items():
        if name in ("leave-last-out", "random"):
            found[name] = tune.tune("EASE", splitter, tune.without_test(splitter, ml_100k), 4, seed=3)
    candidates = [[trial["params"] for trial in each["trials"]] for each in found.values()]
    assert candidates[0] == candidates[1]
    assert len({params["l2"] for params in candidates[0]}) == 4
    # More trials go on where fewer stopped.
    splitter = run.splitters()["random"]
    more = tune.tune("EASE", splitter, tune.without_test(splitter, ml_100k), 6, seed=3)
    assert more["trials"][:4] == found["random"]["trials"]


def test_a_candidate_is_judged_over_the_scenarios_that_saw_it() -> None:
    def log(*values: float) -> dict[str, Any]:
        return {"trials": [{"params": {"l2": float(i)}, "value": value} for i, value in enumerate(values)]}

    found = {"random": log(0.1, 0.2, 0.15), "time": log(0.4, 0.2, 0.4)}
    assert tune.best_of_all(found) == {"params": {"l2": 1.0}, "ratio": 1.25}
    found["time"]["trials"].pop(1)
    assert tune.best_of_all(found) == {"params": {"l2": 2.0}, "ratio": 1.25}


def test_what_was_found_joins_what_the_file_has(tmp_path: Path) -> None:
    target = tmp_path / "tuned" / "ml-1m.json"
    entry = {"params": {"l2": 1.0}, "value": 0.2, "trials": [{"params": {"l2": 1.0}, "value": 0.2}]}
    tune.record(target, "ml-1m", "EASE", "random", entry)
    tune.record(target, "ml-1m", "EASE", "time", entry)
    tune.record(target, "ml-1m", "AutoRec", "time", entry)
    written = json.loads(target.read_text())
    assert {name: set(known) for name, known in written["models"].items()} == {
        "EASE": {"random", "time"},
        "AutoRec": {"time"},
    }
    assert written["best_of_all"]["EASE"] == {"params": {"l2": 1.0}, "ratio": 1.0}
    # Of another space, nothing can be compared with what was found before.
    other = {"params": {"k": 2}, "value": 0.3, "trials": [{"params": {"k": 2}, "value": 0.3}]}
    tune.record(target, "ml-1m", "EASE", "time", other)
    written = json.loads(target.read_text())
    assert written["models"] == {"EASE": {"time": other}, "AutoRec": {"time": entry}}
    assert written["best_of_all"]["EASE"] == {"params": {"k": 2}, "ratio": 1.0}
