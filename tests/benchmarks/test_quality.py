"""The benchmark of published protocols runs the presets, all of them, and writes what it found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

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
    quality.main(["--dataset", "ml-100k", "--protocol", "time", "--seeds", "1"])
    assert (tmp_path / "quality-time-ml-100k.md").read_text() in capsys.readouterr().out
    rows = json.loads((tmp_path / "quality-time-ml-100k.json").read_text())["rows"]
    models = {"Popularity": Popularity(), "EASE": EASE(l2=800.0)}
    table = protocol("time").evaluator(n_resamples=10).evaluate(models, ml_100k).table()
    found = table.query("group == 'overall' and metric == 'NDCG@10'").set_index("model")["mean"]
    # Equal scores rank in another order there.
    assert {row["model"]: row["NDCG@10"] for row in rows} == pytest.approx(found.to_dict(), abs=2e-3)
