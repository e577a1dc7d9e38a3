"""`make benchmark` prints and writes what was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from benchmarks import run
from recsys import EASE, ContrastiveRecommender, Popularity
from recsys.datasets import make_movielens_like
from recsys.evaluation import Evaluator, ItemColdSplit, LeaveLastOut, RandomSplit
from recsys.exceptions import RecsysWarning


def test_a_table_replaces_what_stood_between_its_marks_and_nothing_else() -> None:
    text = "a\n<!-- table: ml-1m -->\nold\n<!-- end of table -->\nb\n<!-- table: x -->\nkept\n<!-- end of table -->\n"
    assert run.with_table(text, "ml-1m", r"| \1 |" + "\n") == text.replace("old", r"| \1 |")
    assert run.with_table(text, "ml-10m", "new\n") == text


def test_everything_is_printed_and_written(
    ml_100k: Any, data_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RECSYS_DATA_HOME", str(data_home))
    monkeypatch.setattr(run, "models", lambda: {"Popularity": Popularity(), "EASE": EASE()})
    monkeypatch.setattr(run, "splitters", lambda: {"last": LeaveLastOut(), "item-cold": ItemColdSplit()})
    heeded = pd.DataFrame({"side": ["item"], "field": ["genres"], "group": ["hot"], "weight": [0.5], "n_pairs": [9]})
    monkeypatch.setattr(run, "flagship_weights", lambda *_: heeded.assign(low=0.4, high=0.6))
    readme = run.README.read_text()
    run.main(["--output", str(tmp_path), "--seeds", "2"])
    markdown = (tmp_path / "ml-100k.md").read_text()
    assert markdown in capsys.readouterr().out
    assert "### leave-last-out (943 users)" in markdown
    # Nobody is known to have a cold item: both models fall back to the order of the catalogue there.
    [cold] = [line for line in markdown.splitlines() if line.startswith("| item-cold (cold")]
    assert cold.count("**") == 4
    values = json.loads((tmp_path / "ml-100k.json").read_text())
    assert {split["seed"] for split in values["splits"]} == {0, 1}
    assert len({split["hash"] for split in values["splits"] if split["scenario"].startswith("item-cold")}) > 1
    assert values["environment"]["packages"]["recsys"] == "0.1.0"
    shown = {(row["model"], row["scenario"], row["metric"], row["group"]): row for row in values["results"]}
    best = shown["EASE", "leave-last-out", "NDCG@10", "overall"]
    assert best["low"] < best["mean"] < best["high"]
    assert f"{best['mean']:.4f} [{best['low']:.4f}, {best['high']:.4f}]" in markdown
    assert best["difference_low"] > 0
    assert list(best)[-3:] == ["p_value", "seed_std", "error"]
    page = (tmp_path / "ml-100k.html").read_text()
    assert f">{best['mean']:.4f}<" in page
    assert "100,000 interactions of 943 users with 1,682 items." in page
    assert "genres: weight 0.5000 [0.4000, 0.6000], hot" in page
    assert run.README.read_text() == readme


def test_a_part_of_the_benchmark_writes_nothing(
    ml_100k: Any, data_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RECSYS_DATA_HOME", str(data_home))
    run.main(["--models", "Popularity", "--scenarios", "leave-last-out", "--output", str(tmp_path)])
    assert "nothing is written" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_the_flagship_heeds_the_id_of_hot_users_and_items_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "models", lambda: {"ContrastiveRecommender": ContrastiveRecommender(tower_weight=0.5)})
    data = make_movielens_like(n_users=60, n_items=40, n_interactions=900, random_state=0)
    found = run.flagship_weights("generated", data, n_pairs=100).set_index(["side", "field", "group"])
    pairs = found["n_pairs"]
    assert pairs["item", "id", "hot"] == pairs["user", "id", "hot"] == 100
    assert pairs["item", "id", "cold-start"] == pairs["user", "id", "few-shot"] + pairs["user", "id", "cold-start"]
    hot, few, cold = (found["weight"].xs(group, level="group") for group in ("hot", "few-shot", "cold-start"))
    assert hot["user", "id"] > 0
    assert hot["item", "id"] > 0
    assert few["user", "id"] == cold["user", "id"] == cold["item", "id"] == 0
    assert min(hot["user", "history"], few["user", "history"]) > cold["user", "history"] == 0
    # A readout of content alone, which has all of the towers' share.
    assert set(cold["item"].drop("id")) == {0.5}


def test_no_seed_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run.main(["--seeds", "0"])
    assert "--seeds is 0; expected at least 1" in capsys.readouterr().err


def test_an_unknown_data_set_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run.main(["--dataset", "nope"])
    assert "error: --dataset: There is no MovieLens data set 'nope'. Known names: '100k'" in capsys.readouterr().err


@pytest.mark.parametrize("below", ["", "new/folder"])
def test_an_output_that_can_be_no_folder_is_refused_before_anything(
    tmp_path: Path, below: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delattr(run, "fetch_movielens")
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(SystemExit):
        run.main(["--output", str(file / below)])
    assert f"--output is {file / below}, but {file} is a file; expected a folder" in capsys.readouterr().err
    assert file.read_text() == "mine"


def test_a_model_that_fails_says_so_in_both_tables() -> None:
    class Broken(Popularity):
        def fit(self, *_: Any, **__: Any) -> Broken:
            raise MemoryError("no room")

    data = make_movielens_like(n_users=60, n_items=30, n_interactions=900, random_state=0)
    models = {"Popularity": Popularity(), "Broken": Broken(), "EASE": EASE(l2=1.0)}
    with pytest.warns(RecsysWarning, match="Broken failed in random, seed 0: MemoryError: no room"):
        found = Evaluator([RandomSplit()], n_resamples=50).evaluate(models, data)
    lines = run.scenario_table(found, found.table(), "random").splitlines()
    [failed] = [line for line in lines if line.startswith("| Broken |")]
    assert failed.startswith("| Broken | failed: MemoryError: no room |")
    assert failed.count("|") == lines[2].count("|")
    summary = [line.split(" | ") for line in run.summary_table(found, found.table()).splitlines()]
    assert summary[0] == ["| NDCG@10", "Popularity", "EASE", "Broken |"]
    assert summary[2][0] == "| random"
    assert summary[2][-1] == "failed |"
    assert summary[3][-1] == " |"
