"""What is compared with other libraries: who differs, or leaves a user out, is told."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from benchmarks import agreement
from benchmarks.agreement import METRICS, K
from recsys import Popularity
from recsys.evaluation import ranking_metrics


def same(recommended: pd.DataFrame, liked: pd.DataFrame) -> pd.DataFrame:
    """Our own values."""
    return ranking_metrics(recommended, liked, K, METRICS).rename(columns=lambda name: name.split("@")[0])


def another(recommended: pd.DataFrame, liked: pd.DataFrame) -> pd.DataFrame:
    """The recall of one user is a little higher."""
    values = same(recommended, liked)
    return values.assign(Recall=values["Recall"] + 1e-8 * (values.index == values.index[7]))


def incomplete(recommended: pd.DataFrame, liked: pd.DataFrame) -> pd.DataFrame:
    """The first user is left out."""
    return same(recommended, liked).iloc[1:]


def run(monkeypatch: pytest.MonkeyPatch, data_home: Path, output: Path, **libraries: object) -> str:
    """What is written where these libraries can be imported."""
    monkeypatch.setenv("RECSYS_DATA_HOME", str(data_home))
    monkeypatch.setattr(agreement, "models", lambda: {"Popularity": Popularity()})
    monkeypatch.setattr(agreement, "LIBRARIES", {"not_there": same, **libraries})
    monkeypatch.setattr(agreement, "version", lambda name: "1")
    agreement.main(["--dataset", "ml-100k", "--output", str(output)])
    return (output / "agreement-ml-100k.md").read_text()


def test_who_agrees_is_written_beside_what_was_found_before(
    monkeypatch: pytest.MonkeyPatch, data_home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    zeros = " | ".join(["0.0e+00"] * len(METRICS))
    text = run(monkeypatch, data_home, tmp_path, json=same)
    assert f"| leave-last-out | Popularity | 943 | {zeros} |" in text
    assert f"| random | Popularity | 920 | {zeros} |" in text
    assert f"| global time | Popularity | 301 | {zeros} |" in text
    assert "not_there: not compared here" in capsys.readouterr().out
    text = run(monkeypatch, data_home, tmp_path, math=same)
    assert "## json 1" in text
    assert "## math 1" in text


@pytest.mark.parametrize(("library", "told"), [(another, "Differences of 1.0e-08"), (incomplete, "Differences of nan")])
def test_who_does_not_agree_is_told(
    monkeypatch: pytest.MonkeyPatch, data_home: Path, tmp_path: Path, library: object, told: str
) -> None:
    with pytest.raises(SystemExit, match=told):
        run(monkeypatch, data_home, tmp_path, json=library)
