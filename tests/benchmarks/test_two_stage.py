"""The benchmark of two stages, on generated rows and models that fit in a moment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmarks import two_stage
from recsys import EASE, MatrixFactorization, TwoStageRecommender
from recsys.datasets import make_movielens_like


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    data = make_movielens_like(n_users=120, n_items=80, n_interactions=3000, random_state=0)

    def pair(name: str, scenario: str, ranker: str, seed: int) -> TwoStageRecommender:
        stages: dict[str, Any] = {"retriever": MatrixFactorization(n_factors=8), "ranker": EASE(l2=100.0)}
        return TwoStageRecommender(**stages, n_candidates=30, random_state=seed)

    monkeypatch.setattr(two_stage, "pair", pair)
    monkeypatch.setattr(two_stage, "read_movielens", lambda parser, name: data)
    monkeypatch.setattr(two_stage, "REQUESTS", 3)


def test_two_stages_are_compared_with_the_better_one() -> None:
    rows = pd.DataFrame({"scenario": "random", "ranker": "DeepFM", "seed": 0, "weights": [[0.5, 0.5, 0.5]] * 6})
    rows["user"], rows["model"] = [1, 1, 1, 2, 2, 2], ["retriever", "ranker alone", "two stages"] * 2
    rows["NDCG"] = [0.2, 0.3, 0.5, 0.1, 0.3, 0.3]
    [found] = two_stage.compared(rows)
    assert found["better"] == "ranker alone"
    assert found["ahead"][0] == pytest.approx(0.1)
    assert found["ahead"][1] <= found["ahead"][0] <= found["ahead"][2]


def test_a_run_prints_every_table_and_writes_none_of_a_part(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    two_stage.main(["--seeds", "1", "--rankers", "DeepFM", "--output", str(tmp_path)])
    text = capsys.readouterr().out
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    assert sum(line.startswith("| random | DeepFM |") for line in lines) == 1
    assert sum(line.startswith("| user-cold") for line in lines) == 5
    assert sum(line.startswith("| diversity |") for line in lines) == len(two_stage.DIVERSITY)
    explored = [line.split(" | ") for line in lines if line.startswith("| exploration |")]
    exposure = np.array([float(line[5]) for line in explored])
    assert (np.diff(exposure) >= 0).all()
    assert "nothing is written" in text
    assert list(tmp_path.iterdir()) == []
