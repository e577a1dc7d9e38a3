"""The benchmark of published protocols runs the presets, all of them, and writes what it found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmarks import quality
from recsys import EASE, Popularity
from recsys.evaluation import protocol
from recsys.evaluation.protocols import PROTOCOLS


def test_every_preset_is_run_by_its_name() -> None:
    assert list(quality.PROTOCOLS) == list(PROTOCOLS)
    assert {name for name, *_ in quality.TARGETS} <= set(PROTOCOLS)


def test_what_is_written_is_what_an_evaluator_finds(
    ml_100k: Any, data_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RECSYS_DATA_HOME", str(data_home))
    monkeypatch.setattr(quality, "RESULTS", tmp_path)
    quality.main(["--dataset", "100k", "--protocol", "time"])
    assert (tmp_path / "quality-time-ml-100k.md").read_text() in capsys.readouterr().out
    rows = json.loads((tmp_path / "quality-time-ml-100k.json").read_text())["rows"]
    models = {"Popularity": Popularity(), "EASE": EASE(l2=800.0)}
    table = protocol("time").evaluator(n_resamples=10).evaluate(models, ml_100k).table()
    found = table.query("group == 'overall' and metric == 'NDCG@10'").set_index("model")["mean"]
    # Equal scores rank in another order there.
    assert {row["model"]: row["NDCG@10"] for row in rows} == pytest.approx(found.to_dict(), abs=2e-3)


def test_another_number_of_seeds_writes_nothing(
    ml_100k: Any, data_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RECSYS_DATA_HOME", str(data_home))
    monkeypatch.setattr(quality, "RESULTS", tmp_path)
    monkeypatch.setitem(quality.PROTOCOLS, "time", lambda *_: iter([{"question": "a", "model": "b", "HR@10": 0.5}]))
    quality.main(["--dataset", "ml-100k", "--protocol", "time", "--seeds", "2"])
    told = capsys.readouterr().out
    assert "| a | b | HR@10 | 0.5000 |  | 0.5000, 0.5000 |" in told
    assert "Not 3 seeds were run, but 2: nothing is written." in told
    assert not list(tmp_path.iterdir())


def test_movielens_1m_has_its_name_its_note_and_its_targets_however_it_is_called(
    ml_1m: Any, data_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECSYS_DATA_HOME", str(data_home))
    monkeypatch.setattr(quality, "RESULTS", tmp_path / "results")
    row = {"question": "1 + 99", "model": "EASE", "HR@10": 0.5}
    monkeypatch.setitem(quality.PROTOCOLS, "sampled", lambda *_: iter([row]))
    quality.main(["--dataset", "1m", "--protocol", "sampled"])
    text = (tmp_path / "results" / "quality-sampled-ml-1m.md").read_text()
    assert text.startswith("# ml-1m: sampled")
    assert "ML-1M, 7.9 % of timestamps estimated: this touches which item is a user's last." in text
    assert "| 1 + 99 | EASE | HR@10 | 0.5000 | 0.7150 | 0.5000, 0.5000, 0.5000 |" in text


def test_what_must_be_reached_is_known_of_movielens_1m_alone() -> None:
    rows = pd.DataFrame({"question": ["1 + 99"], "model": ["EASE"], "HR@10": [0.5]})
    assert "| 0.5000 | 0.7150 | 0.5000 |" in quality.markdown("ml-1m", "sampled", rows)
    assert "| 0.5000 |  | 0.5000 |" in quality.markdown("ml-100k", "sampled", rows)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "0"], "--seeds is 0; expected at least 1"),
        (["--seeds", "-1"], "--seeds is -1; expected at least 1"),
        (["--dataset", "nope"], "--dataset: There is no MovieLens data set 'nope'"),
    ],
)
def test_bad_arguments_are_refused(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        quality.main(arguments)
    assert message in capsys.readouterr().err


def test_the_flagship_is_compared_with_what_it_stands_on(
    ml_100k: Any, data_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECSYS_DATA_HOME", str(data_home))
    monkeypatch.setattr(quality, "RESULTS", tmp_path)
    monkeypatch.setattr(quality, "SEEDS", 1)
    quality.main(["--dataset", "100k", "--protocol", "item-cold", "--model", "contrastive", "--seeds", "1"])
    written = (tmp_path / "quality-contrastive-item-cold-ml-100k.json").read_text()
    assert "NaN" not in written
    rows = pd.DataFrame(json.loads(written)["rows"])
    text = (tmp_path / "quality-contrastive-item-cold-ml-100k.md").read_text()
    assert rows["scenario"].nunique() == 2
    for _, part in rows.groupby("scenario"):
        base, ours = (part[part["model"] == name].iloc[0] for name in ("ContentEASE", "ContrastiveRecommender"))
        assert ours["difference"] == pytest.approx(ours["mean"] - base["mean"])
        assert f"| {base['mean']:.4f} | {ours['mean']:.4f} | {ours['difference']:+.4f} [" in text


def test_nothing_is_relative_to_a_mean_of_zero() -> None:
    found = {"scenario": "all", "metric": "HR@10", "mean": [0.0, 0.1], "difference": [np.nan, 0.1]}
    found |= {"difference_low": [np.nan, 0.05], "difference_high": [np.nan, 0.15]}
    frame = pd.DataFrame(found | {"model": ["ContentEASE", "ContrastiveRecommender"]})
    last = quality.compared_markdown(frame).splitlines()[-1]
    assert last == "| all | HR@10 | 0.0000 | 0.1000 | +0.1000 [+0.0500, +0.1500] | - |"
