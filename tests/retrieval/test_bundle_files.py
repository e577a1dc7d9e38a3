"""What an export leaves on disk: whole, its own, refused where it is harmed."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from recsys import FeatureTable, MatrixFactorization, Popularity, persistence
from recsys import load as recsys_load
from recsys._graphs import Graph
from recsys.exceptions import (
    CorruptModelError,
    InvalidInputError,
    PersistenceError,
    SchemaVersionError,
)
from recsys.persistence import read_directory, write_directory
from recsys.retrieval import ItemIndex, load_bundle
from recsys.vectors import VectorRecommender
from tests.contract.suite import fitted


def test_a_bundle_keeps_to_its_own(tmp_path: Path) -> None:
    """Neither is a bundle taken for a model or an index, nor does one replace the other."""
    X = pd.DataFrame({"user_id": ["ann", "bob"], "item_id": ["tea", "tea"]})
    model = Popularity().fit(X)
    model.export(tmp_path / "bundle")
    model.export(tmp_path / "bundle")
    model.save(tmp_path / "model")
    with pytest.raises(
        PersistenceError, match=r"holds a bundle, not a model: load it with `recsys.retrieval.load_bundle`"
    ):
        recsys_load(tmp_path / "bundle")
    with pytest.raises(PersistenceError, match="holds a saved Bundle"):
        model.save(tmp_path / "bundle")
    with pytest.raises(PersistenceError, match="holds a saved Bundle"):
        ItemIndex.load(tmp_path / "bundle")
    with pytest.raises(PersistenceError, match="holds a saved Popularity"):
        model.export(tmp_path / "model")
    with pytest.raises(PersistenceError, match="holds a saved Popularity; expected a bundle"):
        load_bundle(tmp_path / "model")
    with pytest.raises(PersistenceError, match="There is no saved model"):
        load_bundle(tmp_path / "nothing")
    assert load_bundle(tmp_path / "bundle").recommend(["eve"])[0].item_ids == ["tea"]


def test_harm_is_found(tmp_path: Path) -> None:
    model, _ = fitted("ContentEASE")
    assert isinstance(model, VectorRecommender)
    model.export(tmp_path)
    for file in sorted(tmp_path.iterdir()):
        content = file.read_bytes()
        for harmed in (content[:-1], content[:-9] + bytes([content[-9] ^ 1]) + content[-8:], b""):
            file.write_bytes(harmed)
            with pytest.raises(CorruptModelError):
                load_bundle(tmp_path)
        file.unlink()
        with pytest.raises(PersistenceError):
            load_bundle(tmp_path)
        file.write_bytes(content)
    assert load_bundle(tmp_path).n_users == 40


@pytest.mark.parametrize(
    "change",
    [
        {"graphs": {"users": {"graph": np.zeros(9, dtype=np.uint8), "tables": []}}},
        {"graphs": {"users": {"graph": None, "tables": []}}},
        {"graphs": {}},
        {"changed": {}},
        {"n_similar": None, "changed": {"joined": []}},
        {"items": {"form": "text", "ids": ["one"]}},
        {"tables": {}},
        {"index": {}},
        {"users": {"labels": {"form": "text", "ids": []}}},
    ],
)
def test_what_no_export_writes_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    model, _ = fitted("ContentEASE")
    assert isinstance(model, VectorRecommender)
    model.export(tmp_path / "bundle")
    assert_refused(tmp_path, lambda state: state.update(change))


def assert_refused(folder: Path, change: Callable[[dict[str, Any]], object], words: str = "are no bundle") -> None:
    """The bundle in `folder` is, with its state changed and its checksums right."""
    state, manifest = read_directory(folder / "bundle")
    change(state)
    header = {name: manifest[name] for name in ("class", "recsys_version", "model")}
    write_directory(folder / "other", state, header)
    with pytest.raises(CorruptModelError, match=words):
        load_bundle(folder / "other")


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bundle that has a field of each kind, and one of another catalogue."""
    folder = tmp_path_factory.mktemp("rich")
    X = pd.DataFrame({"user_id": [1, 1, 2, 2, 3, 3], "item_id": ["tea", "milk", "tea", "rum", "rum", "gin"]})
    users = pd.DataFrame(
        {
            "user_id": [1, 2, 3],
            "age": [20.0, 30.0, 50.0],
            "club": ["chess", "golf", "chess"],
            "tags": [["a", "b"], ["b"], ["c", "a"]],
            "bio": ["likes the sea", "the mountains", "sea and mountains"],
            "taste": [[0.1, 1.0], [1.0, 0.5], [-1.0, 0.0]],
        }
    )
    model = MatrixFactorization(n_factors=2, l2=1.0, random_state=0)
    model.fit(X, user_features=FeatureTable(users, text=["bio"])).export(folder / "bundle")
    MatrixFactorization(n_factors=1, l2=1.0, random_state=0).fit(X.iloc[:3]).export(folder / "foreign")
    assert load_bundle(folder / "bundle").n_items == 4
    return folder


KNOTS: list[Any] = [None, 5, [], np.zeros(3), np.array([1.0, 2.0, np.nan])]


@pytest.mark.parametrize(
    ("field", "change"),
    [
        *((field, {"kind": "x"}) for field in range(5)),
        *((field, {"width": 5.0}) for field in range(5)),
        *((field, {"width": 1}) for field in range(5)),
        *((field, {"name": 5}) for field in range(5)),
        (0, {"name": "club"}),
        *((0, {"knots": knots}) for knots in KNOTS),
        (0, {"dates": 0}),
        (1, {"categories": {"form": "text", "ids": ["chess", "chess"]}}),
        (1, {"categories": None}),
        (2, {"frequent": np.array([0, 3])}),
        (2, {"frequent": None}),
        (3, {"terms": ["sea"]}),
        (3, {"idf": np.ones((5, 1), dtype=np.float32)}),
        (4, {"mean": np.array([np.inf, 0.0])}),
        (4, {"scale": 0.0}),
        (4, {"scale": "1"}),
    ],
    ids=str,
)
def test_encoders_that_are_not_whole_are_refused(rich: Path, field: int, change: dict[str, Any]) -> None:
    assert_refused(rich, lambda state: state["user_features"]["specs"][field].update(change))
    for name in change:
        assert_refused(rich, lambda state, name=name: state["user_features"]["specs"][field].pop(name))  # type: ignore[misc]


def _set(*path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """What replaces a part of a state; a callable makes it of what is there."""

    def change(state: dict[str, Any]) -> None:
        for name in path[:-1]:
            state = state[name]
        state[path[-1]] = value(state[path[-1]]) if callable(value) else value

    return change


@pytest.mark.parametrize(
    "change",
    [
        _set("user_features", "sep", value=5),
        _set("user_features", "ignored", value=None),
        _set("min_rating", value="x"),
        _set("min_rating", value=[]),
        _set("min_rating", value=float("nan")),
        _set("n_similar", value=3),
        _set("items", value={"form": "text", "ids": ["tea"] * 4}),
        _set("items", value={"form": "text", "ids": ["tea", "milk", "rum", None]}),
        _set("items", value={"form": "numbers", "ids": np.array([1.0, 2.0, 3.0, np.nan])}),
        _set("items", value={"form": "numbers", "ids": np.array([True, False, True, False])}),
        _set("users", "labels", "ids", value=lambda ids: ids[:, None]),
        _set("users", "labels", "ids", value=lambda ids: ids * 0),
        _set("users", "history", "data", value=lambda data: data[:, None]),
        _set("users", "history", "data", value=lambda data: data * np.float32(np.nan)),
        _set("users", "history", "indices", value=lambda indices: indices[:, None]),
        _set("users", "history", "indices", value=lambda indices: indices.astype(np.float32)),
        _set("index", "vectors", value=lambda vectors: vectors[:, 1:].copy()),
        _set("index", "vectors", value=lambda vectors: np.hstack([vectors, vectors])),
        _set("index", "vectors", value=lambda vectors: vectors * np.float32(np.nan)),
        _set("index", "vectors", value=lambda vectors: vectors / np.float32(0.0)),
    ],
)
@pytest.mark.filterwarnings("ignore:(divide|invalid)")
def test_parts_that_are_not_what_they_were_are_refused(rich: Path, change: Callable[[dict[str, Any]], object]) -> None:
    assert_refused(rich, change)


@pytest.mark.parametrize("parts", [["graphs", "tables"], ["graphs"], ["tables"]])
def test_graphs_of_other_models_are_refused(rich: Path, parts: list[str]) -> None:
    foreign, _ = read_directory(rich / "foreign")
    assert_refused(rich, lambda state: state.update({name: foreign[name] for name in parts}), "bundle")


def test_a_graph_that_asks_for_something_else_is_refused(rich: Path) -> None:
    """For an input that there is not, or finding one vector for all."""
    for inputs, rows in (("nobody", 2), ("history_values", 1)):
        graph = Graph()
        found = graph.input(inputs, np.float32, ["n", "m"]).sum(1) * np.zeros((1, 2), dtype=np.float32)
        found = found if rows == 2 else found.sum(0)
        stored = np.frombuffer(graph.to_bytes({"user_vectors": found}), dtype=np.uint8)
        assert_refused(rich, _set("graphs", "users", value={"graph": stored, "tables": []}), "bundle")


def test_a_newer_bundle_is_told_from_a_harmed_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Popularity().fit(pd.DataFrame({"user_id": [1], "item_id": [2]}))
    with monkeypatch.context() as patch:
        patch.setattr(persistence, "SCHEMA_VERSION", persistence.SCHEMA_VERSION + 1)
        model.export(tmp_path)
    with pytest.raises(SchemaVersionError, match="upgrade recsys"):
        load_bundle(tmp_path)


def test_an_export_that_fails_leaves_the_bundle_of_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    X = pd.DataFrame({"user_id": ["ann", "bob"], "item_id": ["tea", "ale"]})
    model = Popularity().fit(X)
    model.export(tmp_path)

    def fail(*args: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(persistence, "_write_synced", fail)
    with pytest.raises(PersistenceError, match="no space left"):
        Popularity().fit(X.iloc[:1]).export(tmp_path)
    assert load_bundle(tmp_path).n_items == 2
    assert len(list(tmp_path.iterdir())) == 3


def test_labels_that_cannot_be_read_are_not_written(tmp_path: Path) -> None:
    X = pd.DataFrame({"user_id": pd.to_datetime(["2001-01-01"]), "item_id": [1]})
    with pytest.raises(PersistenceError, match="Labels that are dates cannot be exported"):
        Popularity().fit(X).export(tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kind": "fast"}, "`kind` is 'fast'; expected one of 'exact', 'auto', 'ivf', 'hnsw'"),
        ({"recall_target": 2}, "`recall_target` is 2; expected a share"),
        ({"include_users": "no"}, "`include_users` is 'no'; expected True or False"),
        ({"metadata": pd.DataFrame({"year": [1]}, index=["ale"])}, "`metadata` has no row of 1 ids: 'tea'"),
    ],
)
def test_bad_exports_are_refused(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    model = Popularity().fit(pd.DataFrame({"user_id": [1], "item_id": ["tea"]}))
    with pytest.raises(InvalidInputError, match=words):
        model.export(tmp_path / "bundle", **options)
    assert not (tmp_path / "bundle").exists()


def test_a_model_without_a_graph_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Popularity, "_user_graph", VectorRecommender._user_graph)
    with pytest.raises(PersistenceError, match="Popularity cannot be exported: it does not describe its user side"):
        Popularity().fit(pd.DataFrame({"user_id": [1], "item_id": [2]})).export(tmp_path)


@pytest.mark.parametrize(("hook", "words"), [("_item_graph", "how items join"), ("_user_parts", "the sum of")])
def test_so_do_models_without_the_others(
    hook: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Popularity, hook, getattr(VectorRecommender, hook))
    with pytest.raises(PersistenceError, match=f"Popularity cannot be exported: it does not describe .*{words}"):
        Popularity().fit(pd.DataFrame({"user_id": [1], "item_id": [2]})).export(tmp_path)


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Popularity().fit(pd.DataFrame({"user_id": [1], "item_id": [2]}))
    model.export(tmp_path)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(PersistenceError, match=r"`onnx` is missing: pip install 'recsys\[export\]'"):
        model.export(tmp_path)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(PersistenceError, match=r"`onnxruntime`, which is missing: pip install 'recsys\[serve\]'"):
        load_bundle(tmp_path)


def test_a_bundle_may_be_replaced_while_it_is_loaded_and_asked(tmp_path: Path) -> None:
    """Whoever loads finds the bundle of before or of after, and what was loaded goes on to answer."""
    X = pd.DataFrame({"user_id": [1, 2, 2], "item_id": ["tea", "tea", "ale"]})
    models = [Popularity().fit(X), Popularity().fit(X.iloc[1:])]
    models[0].export(tmp_path)
    first = load_bundle(tmp_path)
    found: set[tuple[int, float]] = set()

    def replace() -> None:
        for turn in range(40):
            models[turn % 2].export(tmp_path)

    writer = threading.Thread(target=replace)
    writer.start()
    while writer.is_alive():
        bundle = load_bundle(tmp_path)
        [answer] = bundle.recommend([7])
        found.add((bundle.n_users, answer.scores[1]))
    writer.join()
    assert found <= {(2, 0.5), (1, 1.0)}
    assert first.recommend([7])[0].scores == [1.0, 0.5]


def test_saves_that_overlap_leave_one_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of items that join meanwhile, the last save has all."""
    fitted("ContentEASE")[0].export(tmp_path / "a")
    bundle, commit = load_bundle(tmp_path / "a"), persistence._commit

    def late(*arguments: Any) -> None:
        threading.Event().wait(0.01)
        commit(*arguments)

    def save(first: int) -> None:
        for label in range(first, first + 4):
            bundle.add_items({label: {}}).save(tmp_path / "a")

    monkeypatch.setattr(persistence, "_commit", late)
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(save, (700, 800, 900)))
    assert len(list((tmp_path / "a").iterdir())) == 3
    assert load_bundle(tmp_path / "a").n_items == bundle.n_items == 42
