"""The benchmark of retrieval compares the same answers, and its tables show what was measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import retrieval


def test_over_fetching_finds_what_a_filter_finds() -> None:
    vectors, queries = retrieval.data(500, 8)
    raw, mask = retrieval.flat(vectors), np.arange(500) % 7 == 0
    rows, _ = retrieval.over_fetch(lambda size: raw.search(queries, size)[::-1], mask, 0.9)
    expected = np.where(mask, queries @ vectors.T, -np.inf).argsort(axis=1)[:, ::-1][:, : retrieval.K]
    assert rows.tolist() == expected.tolist()


def test_turns_are_medians() -> None:
    fast, slow = retrieval.in_turns([lambda: None, lambda: sum(range(20_000))], 5)
    assert 0 <= fast < slow


def test_a_run_writes_its_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(retrieval, "PEERS", dict.fromkeys(retrieval.PEERS, "not_there"))
    monkeypatch.setattr(retrieval, "rounds_for", lambda function, seconds: 1)
    retrieval.main(["--sizes", "2000", "--quick", "--output", str(tmp_path)])
    text = (tmp_path / "retrieval.md").read_text()
    assert text in capsys.readouterr().out
    assert "| 2,000 | ItemIndex, exact | 1.0000 |" in text
    assert "| 2,000 | 10% |" in text
    assert (tmp_path / "retrieval.json").exists()
