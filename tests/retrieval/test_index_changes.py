"""An index that changes answers like a plain dict of its items, at every moment, to every thread."""

from __future__ import annotations

import copy
import pickle
import threading
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from recsys.exceptions import InvalidInputError, InvalidTypeError
from recsys.retrieval import ItemIndex, _changing, _snapshot
from recsys.retrieval._approximate import Approximate
from recsys.retrieval._segments import Selection

LABELS = [f"i{n}" for n in range(24)]
labels = st.lists(st.sampled_from(LABELS), unique=True, max_size=12)
numbers = st.integers(-2, 2)
ways = st.sampled_from([None, {"year": {">=": 1}}, {"not": {"year": 0}}, {"genres": {"in": ["x", "y"]}}, {"year": 9}])


def _about(ids: list[str], seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    years = np.where(rng.random(len(ids)) < 0.3, np.nan, rng.integers(0, 3, size=len(ids)))
    genres = [[g for g in "xyz" if rng.random() < 0.4] for _ in ids]
    return pd.DataFrame(
        {"item_id": pd.Series(ids, dtype=object), "year": years, "genres": pd.Series(genres, dtype=object)}
    )


def _allowed(where: Any, year: float, genres: list[str]) -> bool:
    """The filters of `ways`, one by one."""
    if where is None:
        return True
    if "not" in where:
        return year != 0
    if "genres" in where:
        return bool({"x", "y"} & set(genres))
    return year >= 1 if isinstance(where["year"], dict) else year == 9


class Catalogue(RuleBasedStateMachine):
    """An index beside a dict from labels to vectors and metadata, in the order in which they joined."""

    kind: Any = "exact"

    @initialize(ids=labels.filter(bool), seed=st.integers(0, 99))
    def build(self, ids: list[str], seed: int) -> None:
        rows, about = self._rows(ids, seed)
        self.index = ItemIndex(ids, rows, kind=self.kind, metadata=about, recall_target=0.01)
        self.model: dict[str, Any] = {}
        self._note(ids, rows, about)

    def _rows(self, ids: list[str], seed: int) -> tuple[Any, pd.DataFrame]:
        return np.random.default_rng(seed).integers(-2, 3, size=(len(ids), 3)), _about(ids, seed)

    def _note(self, ids: list[str], rows: Any, about: pd.DataFrame) -> None:
        for label, row, year, genres in zip(ids, rows, about["year"], about["genres"], strict=True):
            self.model[label] = (row, year, genres)

    @rule(ids=labels, seed=st.integers(0, 99))
    def add(self, ids: list[str], seed: int) -> None:
        rows, about = self._rows(ids, seed)
        if known := set(ids) & self.model.keys():
            with pytest.raises(InvalidInputError, match=f"names {len(known)} items that are in the index"):
                self.index.add(ids, rows, about)
            return
        assert self.index.add(ids, rows, about if ids else None) is self.index
        self._note(ids, rows, about)

    @rule(ids=labels, seed=st.integers(0, 99))
    def update(self, ids: list[str], seed: int) -> None:
        rows, about = self._rows(ids, seed)
        if unknown := set(ids) - self.model.keys():
            with pytest.raises(InvalidInputError, match=f"names {len(unknown)} items that are not in the index"):
                self.index.update(ids, rows, about)
            return
        self.index.update(ids, rows, about)
        self._note(ids, rows, about)

    @rule(data=st.data(), seed=st.integers(0, 99), part=st.sampled_from(["vectors", "metadata"]))
    def update_one_part(self, data: st.DataObject, seed: int, part: str) -> None:
        ids = [label for label in data.draw(labels) if label in self.model]
        rows, about = self._rows(ids, seed)
        if part == "vectors":
            self.index.update(ids, rows)
            self.model.update({label: (row, *self.model[label][1:]) for label, row in zip(ids, rows, strict=True)})
        elif ids:
            self.index.update(ids, metadata=about)
            old = [self.model[label][0] for label in ids]
            self._note(ids, old, about)

    @rule(ids=labels)
    def remove(self, ids: list[str]) -> None:
        if unknown := set(ids) - self.model.keys():
            with pytest.raises(InvalidInputError, match=f"names {len(unknown)} items that are not in the index"):
                self.index.remove(ids)
            return
        self.index.remove(ids)
        for label in ids:
            del self.model[label]

    @rule()
    def compact(self) -> None:
        self.index.compact()

    @rule()
    def save_and_load(self) -> None:
        with TemporaryDirectory() as folder:
            self.index.save(folder)
            self.index = ItemIndex.load(folder)

    @rule(
        queries=st.lists(st.tuples(numbers, numbers, numbers), min_size=1, max_size=6),
        k=st.integers(1, 30),
        where=ways,
        candidates=st.one_of(st.none(), labels),
        exclude=st.one_of(st.none(), labels, st.lists(st.tuples(st.integers(0, 5), st.sampled_from(LABELS)))),
    )
    def search(self, queries: list[Any], k: int, where: Any, candidates: Any, exclude: Any) -> None:
        if candidates is not None:
            candidates = [label for label in candidates if label in self.model] or None
        is_pairs = bool(exclude) and isinstance(exclude[0], tuple)
        frame = pd.DataFrame(exclude, columns=["query", "item_id"]) if is_pairs else exclude
        found = self.index.search(queries, k, where=where, candidates=candidates, exclude=frame)
        arrays = self.index.search_arrays(queries, k, where=where, candidates=candidates, exclude=frame)
        for query, vector in enumerate(queries):
            answer = found[found["query"] == query]
            taken, scores, lengths = (each[query] for each in arrays)
            assert taken[:lengths].tolist() == answer["item_id"].tolist()
            assert scores[:lengths].tolist() == answer["score"].tolist()
            places = {label: place for place, label in enumerate(self.model)}
            expected = sorted(
                (-int(np.dot(vector, row)), places[label], label)
                for label, (row, year, genres) in self.model.items()
                if _allowed(where, year, genres)
                and (candidates is None or label in candidates)
                and ((query, label) if is_pairs else label) not in (exclude or [])
            )
            self._compare(answer, expected, k)

    def _compare(self, answer: pd.DataFrame, expected: list[Any], k: int) -> None:
        assert answer["item_id"].tolist() == [label for _, _, label in expected[:k]]
        assert answer["score"].tolist() == [-score for score, _, _ in expected[:k]]
        assert answer["rank"].tolist() == list(range(1, len(answer) + 1))

    @invariant()
    def holds_what_it_should(self) -> None:
        if hasattr(self, "index"):
            assert self.index.items.ids.tolist() == list(self.model)
            assert len(self.index) == len(self.model)


class Approximately(Catalogue):
    """Some of the best may be missing: those that come are allowed, scored exactly, in order, and as many."""

    def _compare(self, answer: pd.DataFrame, expected: list[Any], k: int) -> None:
        listed = [
            (-score, place, label)
            for (label, score), place in zip(
                answer[["item_id", "score"]].itertuples(index=False),
                [{label: place for _, place, label in expected}[label] for label in answer["item_id"]],
                strict=True,
            )
        ]
        assert len(listed) == min(k, len(expected))
        assert set(listed) <= set(expected)
        assert listed == sorted(listed)


class Lists(Approximately):
    kind = "ivf"


class Graph(Approximately):
    kind = "hnsw"


@pytest.mark.parametrize("machine", [Catalogue, Lists, Graph])
def test_every_history_gives_the_answers_of_a_dict(machine: type[Catalogue], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_snapshot, "_SMALL", 6)
    monkeypatch.setattr(_changing, "_STRUCTURED_FROM", 4)
    # Of so few items a scan is always cheaper; here it is not to be known.
    monkeypatch.setattr(Approximate, "_rows_read", lambda structure, effort: 0.0)
    run_state_machine_as_test(
        machine, settings=settings(max_examples=25, stateful_step_count=20, deadline=None, derandomize=True)
    )


def test_a_reader_sees_one_state_and_never_waits(tmp_path: Path) -> None:
    """Every version gives all items one number: an answer that mixes versions has two scores."""
    n = 400
    index = ItemIndex(np.arange(n), np.ones((n, 1)), metadata=pd.DataFrame({"version": [1.0] * n}))
    stop, n_answers = threading.Event(), [0, 0, 0]
    wrong: list[Any] = []

    def read(reader: int) -> None:
        while not stop.is_set():
            labels, scores, lengths = index.search_arrays([[1]], n + 9)
            version = scores[0, 0]
            extra = labels[0, : lengths[0]] >= n
            if len(set(scores[0, : lengths[0]].tolist())) != 1 or extra.sum() not in (0, 5) or lengths[0] < n:
                wrong.append((scores, labels))
            found = index.search_arrays([[1]], n + 9, where={"version": {"<": float(version)}})
            # A later state has later versions alone.
            if found[2][0]:
                wrong.append(found)
            n_answers[reader] += 1

    readers = [threading.Thread(target=read, args=(reader,)) for reader in range(3)]
    for reader in readers:
        reader.start()
    try:
        for version in range(2, 60):
            now = [n + each for each in range(5)] if version % 2 else []
            about = pd.DataFrame({"version": [float(version)] * (n + 5)})
            if not now and version > 2:
                index.remove([n + each for each in range(5)])
            index.update(np.arange(n), np.full((n, 1), version), about)
            if now:
                index.add(now, np.full((5, 1), version), about)
            if version % 10 == 0:
                index.compact()
                index.save(tmp_path / "index")
    finally:
        stop.set()
        for reader in readers:
            reader.join()
    assert not wrong
    assert min(n_answers) > 0


def test_searches_do_not_wait_for_a_change_under_way() -> None:
    index = ItemIndex(["a", "b"], np.eye(2))
    done = threading.Event()

    def search() -> None:
        index.search([[1, 0]])
        done.set()

    with index._changing:
        threading.Thread(target=search, daemon=True).start()
        assert done.wait(30)


def test_a_change_that_is_refused_changes_nothing() -> None:
    index = ItemIndex(["a", "b"], np.eye(2), metadata=pd.DataFrame({"year": [1, 2]}, index=["a", "b"]))
    before = index._state
    about = pd.DataFrame({"year": ["x", "y"]}, index=["c", "a"])
    refused: list[tuple[Any, str]] = [
        (lambda: index.add(["c", "c"], np.eye(2)), "more than once"),
        (lambda: index.add(["c", "a"], np.eye(2)), "names 1 items that are in the index: 'a'; .* use `update`"),
        (lambda: index.add(["c"], np.eye(2)), "2 rows for 1 ids"),
        (lambda: index.add(["c"], np.eye(3)[:1]), "3 dimensions; expected 2"),
        (lambda: index.add(["c"], [[np.nan, 0]]), "NaN"),
        (lambda: index.add(["c"], [[1, 0]], about), "has text in 'year'; expected numbers"),
        (lambda: index.update(["a", "z"], np.eye(2)), "names 1 items that are not in the index: 'z'; .* use `add`"),
        (lambda: index.update(["a"], metadata=about), "has text in 'year'; expected numbers"),
        (lambda: index.remove(["a", "a"]), "more than once"),
        (lambda: index.update(["a"]), "`vectors` and `metadata` are both None; expected what to replace"),
        (lambda: index.remove(["a", 1]), "names 1 items that are not in the index: 1;"),
    ]
    for change, message in refused:
        with pytest.raises(InvalidInputError, match=message):
            change()
        assert index._state is before


def test_all_may_go_and_others_come() -> None:
    index = ItemIndex([1, 2], np.eye(2)).remove([2, 1])
    assert len(index) == 0
    assert index.search([[1, 1]]).empty
    assert index.compact().search_arrays([[1, 1]])[0].shape == (1, 0)
    assert index.add([2, 3], np.eye(2)).search([[2, 1]])["item_id"].tolist() == [2, 3]


@pytest.mark.parametrize("n", [1, 1100])
def test_an_emptied_index_grows_again(n: int) -> None:
    ids, vectors = list(range(n)), np.ones((n, 2))
    index = ItemIndex(ids, vectors).remove(ids).add(ids, vectors).compact()
    assert index.search([[1, 1]], 2)["item_id"].tolist() == ids[:2]
    index.remove(ids).compact().add([7], [[1, 0]]).update([7], [[3, 0]])
    assert index.search([[1, 0]])[["item_id", "score"]].to_numpy().tolist() == [[7, 3]]


def test_a_selection_is_made_once_however_many_ask_first() -> None:
    for n_allowed in (50, 990):
        for _ in range(50):
            selection = Selection(np.arange(1000) < n_allowed)
            start, made = threading.Barrier(4), list[Any]()

            def ask(selection: Selection = selection, start: threading.Barrier = start, made: list[Any] = made) -> None:
                start.wait()
                made.append((selection.selector, selection.bitmap, selection.rows))

            threads = [threading.Thread(target=ask) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert len(made) == 4
            assert all(found is first for each in made for found, first in zip(each, made[0], strict=True))


def test_an_updated_item_keeps_its_place_and_one_that_comes_back_does_not() -> None:
    index = ItemIndex(list("abc"), np.ones((3, 1)))
    index.update(["a"], [[5]]).update(["a"], [[1]])
    assert index.search([[1]])["item_id"].tolist() == ["a", "b", "c"]
    index.remove(["a"]).add(["a"], [[1]])
    assert index.search([[1]])["item_id"].tolist() == ["b", "c", "a"]
    assert index.compact().search([[1]])["item_id"].tolist() == ["b", "c", "a"]


def test_labels_of_other_types_may_join() -> None:
    index = ItemIndex([1, 2], np.eye(2)).add([3.0], [[3, 3]]).add(["x"], [[1, 1]])
    assert index.search([[2, 1]], 4)["item_id"].tolist() == [3, "x", 1, 2]
    assert index.search_arrays([[2, 1]], 4)[0].tolist() == [[3, "x", 1, 2]]
    assert ItemIndex([1, 2], np.eye(2)).add([3.0], [[3, 3]]).search([[1, 1]])["item_id"].dtype == np.int64


def test_a_large_whole_number_that_joins_floats_stays_what_it_is() -> None:
    index = ItemIndex([1.5], [[1, 1]]).add([2**60 + 1], [[1, 1]]).add([2**60], [[1, 1]])
    expected = [1.5, 2**60 + 1, 2**60]
    for _ in range(2):
        assert index.items.ids.tolist() == index.search([[1, 0]])["item_id"].tolist() == expected
        assert index.search_arrays([[1, 0]])[0].tolist() == [expected]
        index.compact()


def test_an_index_is_neither_pickled_nor_copied() -> None:
    index = ItemIndex([1], [[1]])
    for ask in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(InvalidTypeError, match="`save` it, and `load` it"):
            ask(index)
