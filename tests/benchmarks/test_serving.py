"""The benchmark of the service sends what it says, checks every answer, and its table shows what was measured."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import demo, serving
from recsys import ContentEASE
from recsys.datasets import make_movielens_like
from recsys.retrieval import load_bundle


@pytest.fixture(scope="module")
def data() -> Any:
    return make_movielens_like(n_users=30, n_items=40, n_interactions=600, random_state=0)


@pytest.fixture(scope="module")
def bundle(data: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    features = {"user_features": data.users, "item_features": data.items}
    model = ContentEASE(n_factors=4, random_state=0).fit(data.interactions[["user_id", "item_id"]], **features)
    path = tmp_path_factory.mktemp("bundle")
    model.export(path)
    return path


def test_requests_are_of_all_kinds_and_know_their_answers(data: Any, bundle: Path) -> None:
    loaded = load_bundle(bundle)
    asked = serving.asked_of(loaded, data, 3)
    assert len(asked) == 12
    head, _, body = asked[1].sent.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /recommend HTTP/1.1\r\n")
    assert head.endswith(f"content-length: {len(body)}".encode())
    told = json.loads(body)
    [found] = loaded.recommend(["new"], interactions={"new": told["interactions"]})
    assert asked[1].item_ids == found.item_ids
    assert [sorted(json.loads(each.sent.partition(b"\r\n\r\n")[2])) for each in asked[:4]] == [
        ["user"],
        ["interactions", "user"],
        ["features", "user"],
        ["user"],
    ]


def body(*items: tuple[int, float]) -> bytes:
    return json.dumps({"items": [{"id": item, "score": score} for item, score in items]}).encode()


def test_an_answer_is_right_but_for_rounding() -> None:
    asked = [serving.Asked(b"", [1, 2, 3], [0.9, 0.5, 0.5])]
    for items, right in (
        (((1, 0.9), (2, 0.5), (3, 0.5)), True),
        (((1, 0.9), (3, 0.50001), (2, 0.5)), True),
        (((2, 0.9), (1, 0.5), (3, 0.5)), False),
        (((1, 0.9), (2, 0.5)), False),
        (((1, 0.9), (2, 0.5), (3, 0.4)), False),
    ):
        assert serving.is_right(serving.Done(0, 0.0, 0.0, 200, body(*items)), asked) is right


def test_a_summary_counts() -> None:
    asked = [serving.Asked(b"", [1], [0.5])]
    good = body((1, 0.5))
    done = [
        serving.Done(0, 0.0, 0.002, 200, good),
        serving.Done(0, 0.0, 0.004, 200, good),
        serving.Done(0, 0.0, 0.011, 200, good),
        serving.Done(0, 0.0, 0.001, 503, b""),
        serving.Done(0, 0.0, 0.5, 0, b""),
    ]
    found = serving.summary(done, asked, rate=2.5, seconds=2.0)
    assert (found["sent"], found["good"], found["good a second"]) == (5, 0.4, 1.0)
    assert (found["shed"], found["failed"], found["wrong"]) == (0.2, 1, 0)
    assert (found["median ms"], found["shed 99% ms"]) == (4.0, 1.0)
    with_wrong = [*done, serving.Done(0, 0.0, 0.001, 200, body((1, 0.9)))]
    assert serving.summary(with_wrong, asked, 2.5, 2.0)["wrong"] == 1


def test_a_run_writes_its_table(
    data: Any, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(serving, "fetch_movielens", lambda *args, **options: SimpleNamespace(**data))
    for name, value in (("N_REQUESTS", 3), ("MOST_STEPS", 1), ("FIRST", 20.0), ("N_CONNECTIONS", 4)):
        monkeypatch.setattr(serving, name, value)
    serving.main(["--bundle", str(bundle), "--seconds", "0.5", "--max-wait", "5", "--output", str(tmp_path)])
    text = (tmp_path / "serving-ml-1m.md").read_text()
    assert text in capsys.readouterr().out
    found = json.loads((tmp_path / "serving-ml-1m.json").read_text())["found"]
    assert [step["sent"] for step in (*found["curve"], found["twice"], found["half"])] == [10, 20, 5]
    assert {step["failed"] + step["wrong"] for step in (*found["curve"], found["twice"], found["half"])} == {0}
    assert "Wrong or lost: 0 of 35." in text
    assert [line.split(" |")[0] for line in text.splitlines()[-3:]] == ["| rising", "| twice", "| half"]


def test_the_demo_serves_films(data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "fetch_movielens", lambda name: SimpleNamespace(**data))
    monkeypatch.setattr(demo, "ContrastiveRecommender", lambda random_state: ContentEASE(n_factors=4, random_state=0))
    demo.main([str(tmp_path / "demo")])
    bundle = load_bundle(tmp_path / "demo")
    assert (bundle.n_items, bundle.n_users) == (40, 30)
    [answer] = bundle.recommend([1], k=1, where={"title": data.items["title"].iloc[0]}, exclude_seen=False)
    assert answer.item_ids == [data.items["item_id"].iloc[0]]
