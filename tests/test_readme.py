"""The README shows what the code does: its example runs, its table is the committed result."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def test_the_table_is_the_committed_result() -> None:
    shown = re.search(r"<!-- table: ml-100k -->\n(.*?)\n<!-- end of table -->", README, re.DOTALL)
    assert shown is not None
    assert shown.group(1) in (ROOT / "benchmarks" / "results" / "ml-100k.md").read_text()
    assert shown.group(1).count("\n") >= 10


def test_the_example_runs(ml_100k: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data_home: Path) -> None:
    example, own_data = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RECSYS_DATA_HOME", str(data_home))
    names: dict[str, Any] = {}
    # The example as printed, but for the length of the training.
    source = example.replace("random_state=0", "random_state=0, max_iter=1")
    exec(compile(source, "README.md", "exec"), names)  # noqa: S102
    model, clicks = names["model"], names["clicks"]
    assert model.recommend([1, 2], k=5).groupby("user_id").size().to_dict() == {1: 5, 2: 5}
    few_shot = model.recommend(["ann"], k=5, interactions=clicks)
    assert (few_shot["path"] == "few-shot").all()
    assert not few_shot["item_id"].isin(clicks["item_id"]).any()
    warm = model.recommend(["ann"], k=5, user_features=names["ann"])
    assert (warm["path"] == "warm").all()
    again = names["load"](tmp_path / "model").recommend(["ann"], k=5, user_features=names["ann"])
    pd.testing.assert_frame_equal(again, warm)
    exec(compile(own_data, "README.md", "exec"), names)  # noqa: S102
    table = names["table"].query("metric == 'NDCG@10' and group == 'overall'").set_index("model")
    assert table["n_users"].to_dict() == {"Popularity": 943, "EASE": 943}
    assert table.loc["EASE", "difference_low"] > 0
