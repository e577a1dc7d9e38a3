"""The benchmark of bundles asks what it says, and its table shows what was measured."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import bundle
from recsys import ContentEASE
from recsys.datasets import make_movielens_like


def test_requests_are_of_the_kinds_they_are_called() -> None:
    data = make_movielens_like(n_users=30, n_items=40, n_interactions=600, random_state=0)
    requests = bundle.requests_of(data, 5)
    assert tuple(requests) == ("hot", "few-shot", "warm", "cold")
    assert {len(some) for some in requests.values()} == {5}
    hot = {user for request in requests["hot"] for user in request["users"]}
    assert hot <= set(data.interactions["user_id"])
    assert all(1 <= len(request["interactions"]["new"]) <= 10 for request in requests["few-shot"])


def test_a_run_writes_its_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = make_movielens_like(n_users=30, n_items=40, n_interactions=600, random_state=0)
    features = {"user_features": data.users, "item_features": data.items}
    model = ContentEASE(n_factors=4, random_state=0).fit(data.interactions[["user_id", "item_id"]], **features)
    model.save(tmp_path / "model")
    monkeypatch.setattr(bundle, "fetch_movielens", lambda *args, **options: SimpleNamespace(**data))
    monkeypatch.setattr(bundle, "N_REQUESTS", 3)
    bundle.main(["--model", str(tmp_path / "model"), "--starts", "1", "--output", str(tmp_path)])
    text = (tmp_path / "bundle-ml-1m.md").read_text()
    assert text in capsys.readouterr().out
    assert "Of these requests 100.00% get the list of `model.recommend`" in text
    assert "| few-shot | " in text
    assert (tmp_path / "bundle-ml-1m.json").exists()
