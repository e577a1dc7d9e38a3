from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from benchmarks import metrics
from benchmarks.metrics import LEAST_RATIOS, METRICS, K, in_turns, make_frames, markdown, ours


def test_generated_frames_are_valid_and_the_same_for_a_seed() -> None:
    lists, relevant = make_frames(50, 200, 600, seed=0)
    assert len(relevant) == 600
    assert not relevant.duplicated().any()
    assert lists.groupby("user_id").size().max() == K
    assert set(ours(lists, relevant)) == set(METRICS)
    pd.testing.assert_frame_equal(lists, make_frames(50, 200, 600, seed=0)[0])


def test_a_missing_peer_is_named() -> None:
    values = {
        "metrics": {
            "counts": {"users": 1, "rows": 1, "positives": 1},
            "missing": list(LEAST_RATIOS),
            "means": {"recsys": dict.fromkeys(METRICS, 0.5)},
            "seconds": {"recsys": [1.0, 2.0, 3.0]},
            "rounds": 3,
            "load": 0.0,
            "environment": {"python": "3", "cores": 1, "packages": {}},
        },
        "full-ranking": {
            "counts": {"users": 1, "items": 1, "factors": 1},
            "seconds": {"recommend": [0.25], "ranking_metrics": [0.5]},
        },
        "memory": {"rows": []},
    }
    text = markdown(values)
    assert "| recsys | 2.00 | 4.0 |" in text
    assert "| ranx | not installed |" in text
    assert "| 0.75 | 1.5 |" in text


def test_libraries_take_turns_and_a_missing_one_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def run(part: str, library: str) -> dict[str, Any]:
        assert part == "metrics"
        calls.append(library)
        here = library != "ranx"
        return {
            "counts": {"users": 3},
            "seconds": {library: float(len(calls))} if here else {},
            "means": {library: {"HR": 0.5}} if here else {},
        }

    monkeypatch.setattr(metrics, "in_a_process", run)
    found = in_turns(2)
    assert calls == ["recsys", "RecTools", "ranx", "recsys", "RecTools"]
    assert found["seconds"] == {"recsys": [1.0, 4.0], "RecTools": [2.0, 5.0]}
    assert found["missing"] == ["ranx"]
    assert found["means"] == {"recsys": {"HR": 0.5}, "RecTools": {"HR": 0.5}}
    assert found["counts"] == {"users": 3}
